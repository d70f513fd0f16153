package tcpx

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
)

// framePiece is the size of a write of an image's bytes.
const framePiece = 32 << 10

type framesConn struct {
	deviceConn
	f      *Frames
	source string      // FORMAT|DIR
	link   *framesLink // nil: not connected
}

// framesLink is a connection whose server has accepted FORMAT|DIR.
type framesLink struct {
	*deviceLink
	*frameAnswers
	images    int
	continued bool // continue was said, and no LENGTH|NAME yet
}

// Send implements transport.Conn.
func (c *framesConn) Send(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
	return c.sender.Send(ctx, c.info, img, o, func(ctx context.Context, out *transport.Outgoing) (transport.Receipt, error) {
		header, err := c.header(out)
		if err != nil {
			return transport.Receipt{}, err
		}
		if err := c.take(ctx); err != nil {
			return transport.Receipt{}, err
		}
		defer c.release()
		if err := c.connect(ctx); err != nil {
			return transport.Receipt{}, err
		}
		if err := c.link.next(ctx, c.f.pause()); err != nil {
			c.drop()
			return transport.Receipt{}, err
		}
		if err := c.link.settleOr(ctx, c.drop); err != nil {
			return transport.Receipt{}, err
		}
		if err := c.link.send(ctx, out, header); err != nil {
			c.drop()
			return transport.Receipt{}, err
		}
		return transport.Receipt{Level: transport.Received, Bytes: out.Body.Size}, nil
	})
}

// header makes LENGTH|NAME, or refuses what cannot be sent.
func (c *framesConn) header(out *transport.Outgoing) (string, error) {
	h := FrameHeader{Size: out.Body.Size, Name: out.Image.Name}
	switch {
	case h.Size < 0:
		return "", fmt.Errorf("the length is announced before the image: use a body of known size: %w", errors.ErrUnsupported)
	case h.Size <= 1 && !c.f.Tiny:
		return "", fmt.Errorf("an image of %d bytes hangs servers in the field: set Tiny if this one can take it: %w", h.Size, errors.ErrUnsupported)
	}
	text, err := h.Append(nil)
	if err != nil {
		return "", fmt.Errorf("%w: %w", err, errors.ErrUnsupported)
	}
	return string(text), nil
}

// connect makes a connection, unless one is there that the server has not closed.
func (c *framesConn) connect(ctx context.Context) error {
	if c.link != nil {
		if c.link.failed() == nil {
			return nil
		}
		c.drop()
	}
	l, err := joinDevice(ctx, c.f.DialContext, c.f.Addr, limit(c.f.Timeout, deviceTimeout))
	if err != nil {
		return err
	}
	c.link = &framesLink{deviceLink: l, frameAnswers: awaitAnswers(l)}
	if err = c.link.say(ctx, c.source, 0); err == nil {
		err = c.link.answered(ctx, 1, c.source)
	}
	if err != nil {
		c.drop()
	}
	return err
}

// next tells the server that another image follows, unless it knows already.
func (l *framesLink) next(ctx context.Context, pause time.Duration) error {
	if l.images == 0 || l.continued {
		return nil
	}
	l.continued = true
	return l.say(ctx, frameNext, pause)
}

// send sends an image. After an error the connection is of no use.
func (l *framesLink) send(ctx context.Context, out *transport.Outgoing, header string) error {
	size := out.Body.Size
	before := l.seen() // surplus answers to what came before are none to this
	if size == 0 {
		out.LastByteSent()
	}
	if err := l.say(ctx, header, 0); err != nil {
		return err
	}
	if err := l.answered(ctx, before+1, header); err != nil {
		return err
	}
	due := before + 2 // for an empty image, whose answers come together
	for piece, err := range chunk.Split(out.Body, size, framePiece) {
		if err == nil && piece.Last {
			err = out.Body.Check()
		}
		if err != nil {
			return err
		}
		if piece.Last {
			out.LastByteSent()
			due = l.seen() + 1
		}
		if err := l.write(ctx, piece.Data); err != nil {
			return err
		}
		out.Count(int64(len(piece.Data)))
	}
	if err := l.arrive(ctx); err != nil && l.failed() == nil { // the server has nothing to answer before
		return err
	}
	if err := l.answered(ctx, due, "the image "+header); err != nil {
		return err
	}
	l.images++
	l.continued = false
	return nil
}

// drop ends the connection in the middle of something.
func (c *framesConn) drop() {
	c.link.reset()
	<-c.link.ended
	c.link = nil
}

// hangUp says over and ends the connection. A server in the field dies of over
// without an image.
func (c *framesConn) hangUp() {
	if c.link == nil {
		return
	}
	if c.link.images > 0 && c.link.failed() == nil {
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		_ = c.link.say(ctx, frameOver, 0)
	}
	_ = c.link.endStream()
	_ = c.link.Close()
	<-c.link.ended
	c.link = nil
}
