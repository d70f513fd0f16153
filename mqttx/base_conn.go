package mqttx

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
)

// baseConn is the Conn of the side that sends.
type baseConn struct {
	transport.UnimplementedConn
	base   *Base
	link   *baseLink
	sender transport.Sender
	once   sync.Once
}

// Info implements transport.Conn.
func (c *baseConn) Info() transport.Info { return c.base.info(c.link.broker, c.base.toBase()) }

// Close implements transport.Conn.
func (c *baseConn) Close() error {
	c.sender.Close(transport.ErrClosed)
	c.once.Do(c.base.release)
	return nil
}

// Send implements transport.Conn.
func (c *baseConn) Send(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
	return c.sender.Send(ctx, c.Info(), img, o, c.attempt)
}

func (c *baseConn) attempt(ctx context.Context, out *transport.Outgoing) (transport.Receipt, error) {
	image, err := c.cut(out)
	if err != nil {
		return transport.Receipt{}, err
	}
	select {
	case <-c.base.turn:
		defer func() { c.base.turn <- struct{}{} }()
	case <-ctx.Done():
		return transport.Receipt{}, ctx.Err()
	}
	if err := c.settle(ctx); err != nil {
		return transport.Receipt{}, err
	}
	if err := c.transfer(ctx, image); err != nil {
		return transport.Receipt{}, err
	}
	return transport.Receipt{Level: transport.Received, Bytes: image.head.Size}, nil
}

// A baseImage is an image on its way to BASE, which asks for packages in its own order.
type baseImage struct {
	out      *transport.Outgoing
	packages *chunk.Splitter
	head     BaseHead
	buf      []byte
	sent     []bool
	left     int // how many are not sent
}

// cut prepares the packages. BASE may ask for any of them at any time, so that a body
// that can be read only once is held in memory.
func (c *baseConn) cut(out *transport.Outgoing) (*baseImage, error) {
	p := &chunk.Splitter{Source: out.Body.ReaderAt, Size: out.Body.Size, ChunkSize: c.base.packageSize()}
	most := c.Info().MaxImage
	if p.Source == nil {
		b, err := io.ReadAll(io.LimitReader(out.Body, most+1))
		if err != nil {
			return nil, err
		}
		p.Source, p.Size = bytes.NewReader(b), int64(len(b))
	}
	name := out.Image.Name
	switch {
	case p.Size > most:
		return nil, &transport.TooLargeError{What: "image", Size: p.Size, Max: most}
	case p.Size == 0:
		return nil, &transport.RejectedError{Reason: transport.ReasonMalformed, Text: "the image is empty: BASE takes 1 byte and more"}
	case strings.Contains(name, ";"):
		return nil, &transport.RejectedError{Reason: transport.ReasonName, Text: fmt.Sprintf("the name %.80q has a ';', which ends a name for BASE: choose another", name)}
	}
	return &baseImage{
		out: out, packages: p, head: BaseHead{Name: name, Size: p.Size}, buf: make([]byte, p.ChunkSize),
		sent: make([]bool, p.Count()), left: int(p.Count()),
	}, nil
}

// settle waits for the answers to a transfer that was given up: BASE takes what comes then
// for a part of that, and its answer to begin must not be taken for one to the next.
func (c *baseConn) settle(ctx context.Context) error {
	left := &c.base.left
	over := time.After(time.Until(left.until))
	for left.answers > 0 {
		select {
		case p := <-c.link.in:
			if new(BaseAnswer).Parse(p) == nil { // others are not BASE's
				left.answers--
			}
		case <-over:
			left.answers = 0
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for len(c.link.in) > 0 {
		<-c.link.in
	}
	return nil
}

// transfer runs the state machine.
func (c *baseConn) transfer(ctx context.Context, image *baseImage) error {
	s := c.base.newSender(image.left, time.Now())
	defer func() {
		if !s.ended() {
			c.base.left = baseRest{s.tries, s.sentAt.Add(s.timeout)}
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for send := true; !s.ended(); {
		if send {
			p, err := image.message(s.newest)
			if err != nil {
				return err
			}
			c.link.send(p)
			image.out.Progress(min(int64(s.acked)*int64(image.packages.ChunkSize), image.head.Size))
		}
		timer.Reset(time.Until(s.deadline()))
		select {
		case p := <-c.link.in:
			send = s.receive(p, time.Now())
		case <-timer.C:
			send = s.tick(time.Now())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if why := c.link.why.Load(); why != nil && s.silent {
		return fmt.Errorf("%w: %s", s.err, (*why).Error()) // in words, as no answer of BASE's
	}
	return s.err
}

// message is what a step sends.
func (b *baseImage) message(step baseStep) ([]byte, error) {
	m := BaseMessage{Function: step.function}
	switch m.Function {
	case BaseBegin:
		m.Data = b.head.Append(nil)
	case BaseData:
		piece, err := b.packages.Read(int64(step.index), b.buf)
		if err != nil {
			return nil, err
		}
		m.Number, m.Data = step.index, piece.Data
		b.out.Count(int64(len(m.Data)))
		if !b.sent[m.Number] {
			b.sent[m.Number] = true
			b.left--
		}
		if b.left == 0 { // with this one BASE may have all, and keeps what it has
			if err := b.out.Body.Check(); err != nil {
				return nil, err
			}
			b.out.LastByteSent()
		}
	}
	return m.Append(nil)
}
