package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// Conn is a transport.Conn over the sessions of one peer, one after the other.
type Conn struct {
	transport.UnimplementedConn
	ep   *Endpoint
	dial func(context.Context) (Carrier, error) // nil: the peer has dialled

	ctx    context.Context // ends with the Conn, for good
	cancel context.CancelCauseFunc

	sender  transport.Sender
	serving chan struct{} // closed when Serve is called
	closing atomic.Bool   // the first Close has begun
	closed  chan struct{} // closed when it is over

	mu        sync.Mutex
	s         *Session      // the present one, or nil
	last      *Session      // the present one or the one before
	info      LinkInfo      // of last
	redialing chan struct{} // while that goroutine runs; closed at its end
	episodes  int           // of redialling that came to nothing
	why       error         // why the last of those did
	absent    error         // why there is no session now; nil: nobody has tried
	changed   chan struct{} // closed, and replaced, when s, episodes or ctx have changed
	inbox     *transport.Inbox
	serve     context.Context // that Serve was called with
}

func newConn(e *Endpoint, dial func(context.Context) (Carrier, error)) *Conn {
	c := &Conn{ep: e, dial: dial, serving: make(chan struct{}), closed: make(chan struct{}), changed: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// change tells those who wait. The mutex is held.
func (c *Conn) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// session waits for a session that runs. A link that was lost is dialled again.
func (c *Conn) session(ctx context.Context) (*Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	episode := c.episodes
	for {
		switch {
		case c.ctx.Err() != nil:
			return nil, context.Cause(c.ctx)
		case ctx.Err() != nil && c.s == nil && c.absent != nil:
			return nil, fmt.Errorf("%w, while there is no link to %s: %s", ctx.Err(), cmp.Or(c.info.Peer, "the peer"), c.absent.Error())
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case c.s != nil && c.s.Err() == nil:
			return c.s, nil
		case c.episodes > episode:
			return nil, c.why
		}
		c.redial()
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		c.mu.Lock()
	}
}

// start calls f on a goroutine, of the present session's if there is one.
func (c *Conn) start(f func()) {
	c.mu.Lock()
	s := c.s
	c.mu.Unlock()
	if s == nil {
		go f()
	} else {
		s.crew.run(f)
	}
}

// adopt makes s the present session, unless one of them has ended.
func (c *Conn) adopt(s *Session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil || s.Err() != nil {
		return false
	}
	c.s, c.last, c.info, c.absent = s, s, s.carrier.Info(), nil
	c.change()
	return true
}

// lost is told by a session that it has ended.
func (c *Conn) lost(s *Session, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.s != s {
		return // it never became the present one, or the Conn has ended
	}
	c.s, c.absent = nil, err
	if c.dial == nil && errors.Is(err, errGoingAway) { // the end, where nobody can dial again
		err = transport.ErrPeerClosed
	}
	if c.dial == nil || errors.Is(err, transport.ErrPeerClosed) || errors.Is(err, transport.ErrConfig) {
		c.finish(err)
		return
	}
	c.ep.cfg.Logger.Info("link lost", "peer", c.info.Peer, "err", err)
	c.change()
}

// finish ends the Conn for good. The mutex is held.
func (c *Conn) finish(err error) {
	c.cancel(err)
	c.sender.Close(err)
	c.change()
}

// Info implements transport.Conn.
func (c *Conn) Info() transport.Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	return transport.Info{
		Protocol: c.info.Protocol, Peer: c.info.Peer, Confirms: transport.Kept,
		Concurrency: 8, Messages: true, Resumes: true,
	}
}

// Serve implements transport.Conn.
func (c *Conn) Serve(ctx context.Context, in *transport.Inbox) error {
	c.mu.Lock()
	if c.serve != nil {
		c.mu.Unlock()
		return &transport.Error{Op: "serve", Err: transport.ErrServed}
	}
	c.serve, c.inbox = ctx, in
	c.mu.Unlock()
	close(c.serving)

	err := c.watch(ctx)
	c.mu.Lock()
	c.inbox = nil // what comes now is refused
	last := c.last
	c.mu.Unlock()
	if last != nil {
		last.dismiss()
	}
	if errors.Is(err, transport.ErrPeerClosed) {
		return nil
	}
	return &transport.Error{Op: "serve", Err: err}
}

// watch returns when ctx or the Conn has ended, or the peer cannot be reached again. Who has dialled, and waits
// for what the peer sends, asks now and then whether it is still there: nobody else could join it again.
func (c *Conn) watch(ctx context.Context) error {
	vanished := false // in silence, so that nobody knows for how long it has been away, or will be
	for {
		s, err := c.session(ctx)
		if err != nil && vanished && ctx.Err() == nil && c.ctx.Err() == nil && transport.Retryable(err) {
			continue
		}
		if err != nil {
			if ctx.Err() == nil { // it cannot be served again
				c.mu.Lock()
				c.finish(err)
				c.mu.Unlock()
			}
			return err
		}
		if c.dial != nil {
			s.do(func(e *arq.Engine) { e.Attend(time.Now(), true) })
		}
		select {
		case <-s.Done():
		case <-ctx.Done():
			s.do(func(e *arq.Engine) { e.Attend(time.Now(), false) })
		case <-c.ctx.Done():
		}
		vanished = errors.Is(s.Err(), transport.ErrIdle)
	}
}

// Close implements transport.Conn. After the end of Serve's context it is the program that
// goes away, not the conversation that is over.
func (c *Conn) Close() error {
	c.mu.Lock()
	code := wire.CodeDone
	if c.serve != nil && c.serve.Err() != nil {
		code = wire.CodeGoingAway
	}
	c.mu.Unlock()
	c.end(code)
	return nil
}

// end closes the Conn and tells the peer why.
func (c *Conn) end(code wire.Code) {
	if c.closing.Swap(true) {
		<-c.closed // not a sync.Once: who waits for its mutex stops the time of a synctest bubble
		return
	}
	defer close(c.closed)
	c.mu.Lock()
	s, last, redialing := c.s, c.last, c.redialing
	c.s = nil
	c.finish(transport.ErrClosed)
	c.mu.Unlock()
	if s != nil {
		s.close(code)
	}
	if redialing != nil {
		<-redialing
	}
	if last != nil {
		last.carrier.Wait()
	}
}

// established waits until the first session of an accepted Conn is.
func (c *Conn) established(ctx context.Context) error {
	s, err := c.session(ctx)
	if err != nil {
		return err
	}
	select {
	case <-s.established:
		return nil
	case <-s.Done():
		return s.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
