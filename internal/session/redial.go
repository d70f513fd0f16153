package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pixferry/pixferry/internal/sleep"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

const (
	firstPause = 50 * time.Millisecond
	mostPause  = 2 * time.Second
)

// join dials once and waits until the session is established.
func (c *Conn) join(ctx context.Context) (*Session, error) {
	carrier, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	s := c.newSession(carrier, nil)
	carrier.Start(s)
	select {
	case <-s.established:
		return s, nil
	case <-s.Done():
	case <-ctx.Done():
		s.Fail(s.hindered(ctx.Err()))
	}
	carrier.Wait()
	return nil, s.Err()
}

// redial begins to dial again if there is no session. The mutex is held.
func (c *Conn) redial() {
	if c.s != nil || c.dial == nil || c.redialing != nil || c.ctx.Err() != nil {
		return
	}
	over := make(chan struct{})
	c.redialing = over
	last := c.last
	go func() {
		defer close(over)
		if last != nil {
			last.carrier.Wait()
		}
		began := time.Now()
		s, err := c.reach()
		switch {
		case err != nil:
		case c.adopt(s):
			c.ep.cfg.Logger.Info("link joined again", "peer", s.info.Peer, "after", time.Since(began))
		default: // it has ended already, or the Conn has
			s.close(wire.CodeDone)
			err = s.Err()
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.redialing = nil
		if err != nil {
			c.episodes, c.why = c.episodes+1, err
		}
		c.change()
		if errors.Is(err, transport.ErrPeerClosed) {
			c.finish(err)
		}
	}()
}

// reach dials until it gets through, the idle time is over, or the Conn has ended.
func (c *Conn) reach() (*Session, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.ep.cfg.IdleTimeout)
	defer cancel()
	cause, first := transport.ErrIdle, true
	for pause := firstPause; ; pause, first = min(2*pause, mostPause), false {
		s, err := c.join(ctx)
		switch {
		case err == nil:
			return s, nil
		case ctx.Err() != nil: // the deadline was not the caller's
			if first { // what it has waited for is in words, therefore
				cause = fmt.Errorf("%w: %s", cause, err.Error())
			}
			return nil, fmt.Errorf("the link was lost and not joined again within %v: %w", c.ep.cfg.IdleTimeout, cause)
		case !transport.Retryable(err):
			return nil, fmt.Errorf("the link was lost and cannot be joined again: %w", err)
		}
		cause = fmt.Errorf("%w: %w", transport.ErrIdle, err)
		c.ep.cfg.Logger.Debug("cannot redial", "peer", c.Info().Peer, "err", err)
		c.mu.Lock()
		c.absent = err
		c.mu.Unlock()
		_ = sleep.For(ctx, pause/2+rand.N(pause/2))
	}
}
