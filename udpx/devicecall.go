package udpx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/transport"
)

// caller is the side of a device protocol that sends: it says something and waits for
// the answer, one at a time, since an answer does not say what it is about.
type caller struct {
	transport.UnimplementedConn
	device *device
	sender transport.Sender
	life   context.Context
	end    context.CancelCauseFunc
	closed sync.Once
	turn   chan struct{} // holds a token while nobody uses line
	line   *line
}

func newCaller(d *device, l *line) *caller {
	c := &caller{device: d, line: l, turn: make(chan struct{}, 1)}
	c.life, c.end = context.WithCancelCause(context.Background())
	c.turn <- struct{}{}
	return c
}

func (c *caller) Info() transport.Info {
	info := c.device.info
	info.Peer = c.device.addr
	return info
}

// closeTime is how long Close waits for a source that does not heed its context.
const closeTime = 2 * time.Second

func (c *caller) Close() error {
	c.closed.Do(func() {
		c.sender.Close(transport.ErrClosed)
		c.end(transport.ErrClosed)
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			<-c.turn // and never back
			c.line.close()
		}()
		select {
		case <-closed:
		case <-time.After(closeTime):
		}
	})
	return nil
}

// exchange has say send something and judge see the answer. Unless that comes, and is
// an acceptance or a *RejectedError, the next exchange has another local port: what
// comes late to this one could not be told from the next answer.
func (c *caller) exchange(ctx context.Context, say func(context.Context, *line) error, judge func([]byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.life, func() { cancel(context.Cause(c.life)) })()
	select {
	case <-c.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { c.turn <- struct{}{} }()
	l, err := c.fresh(ctx)
	if err == nil {
		err = say(ctx, l)
	}
	if err == nil {
		err = l.await(ctx, c.device.answer, judge)
	}
	if ctx.Err() != nil && err != nil {
		return context.Cause(ctx)
	}
	return err
}

// fresh returns a line that nothing can come from but the next answer.
func (c *caller) fresh(ctx context.Context) (*line, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.line.spent {
		l, err := c.device.open(ctx) // before the other is closed: they differ
		if err != nil {
			return nil, err
		}
		c.line.close()
		c.line = l
	}
	select {
	case err := <-c.line.failed: // of an answered exchange: it concerns nobody
		c.device.log.Debug("a failure between two exchanges", "err", err)
	default:
	}
	return c.line, nil
}

// line is a local port to the peer. It is used by whoever has the caller's turn; a
// goroutine of its own reads.
type line struct {
	pc    net.PacketConn
	peer  net.Addr // nil: pc is connected to it
	spent bool     // something was sent that has not been answered

	awaited atomic.Bool // the next datagram is the answer
	answer  chan []byte
	failed  chan error
	done    chan struct{} // closed when the reader has ended
}

func startLine(pc net.PacketConn, peer net.Addr) *line {
	l := &line{pc: pc, peer: peer, answer: make(chan []byte, 1), failed: make(chan error, 1), done: make(chan struct{})}
	go l.read()
	return l
}

func (l *line) close() {
	l.pc.Close()
	<-l.done
}

// write sends a datagram. What comes after the last one has begun is the answer.
func (l *line) write(b []byte, last bool) (err error) {
	select {
	case err := <-l.failed:
		return err
	default:
	}
	l.spent = true
	if last {
		l.awaited.Store(true)
	}
	if l.peer == nil {
		_, err = l.pc.(io.Writer).Write(b)
	} else {
		_, err = l.pc.WriteTo(b, l.peer)
	}
	return l.explain(err)
}

// await waits for the answer.
func (l *line) await(ctx context.Context, limit time.Duration, judge func([]byte) error) error {
	defer l.awaited.Store(false)
	var late <-chan time.Time
	if limit > 0 {
		late = time.After(limit)
	}
	select {
	case b := <-l.answer:
		err := judge(b)
		refused := (*transport.RejectedError)(nil)
		l.spent = err != nil && !errors.As(err, &refused)
		return err
	case err := <-l.failed:
		return err
	case <-late:
		return fmt.Errorf("no answer from %v for %v after all was sent: nobody receives there, something was lost, or the receiver takes longer (AnswerTimeout)", l.remote(), limit)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// read passes the answer on and drops what was not awaited or comes from elsewhere.
func (l *line) read() {
	defer close(l.done)
	b := make([]byte, udpsock.ReadSize)
	for failures := 0; failures < maxFailures; {
		n, from, err := l.pc.ReadFrom(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			failures++
			select {
			case l.failed <- l.explain(err):
			default:
			}
		case l.peer != nil && keyOf(from) != keyOf(l.peer):
		case l.awaited.CompareAndSwap(true, false):
			failures = 0
			l.answer <- bytes.Clone(b[:n])
		}
	}
}

// remote is the address of the peer.
func (l *line) remote() net.Addr {
	if l.peer != nil {
		return l.peer
	}
	return l.pc.(net.Conn).RemoteAddr()
}

// explain says of an error that the peer's host has sent it, if it has.
func (l *line) explain(err error) error {
	if l.peer == nil && udpsock.Refused(err) {
		return fmt.Errorf("nothing receives at udp %v: %w (%w)", l.remote(), transport.ErrNoReceiver, err)
	}
	return err
}
