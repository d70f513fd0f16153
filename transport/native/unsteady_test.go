package native_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// unsteady is a receiver's Store, which fails, is slow, and ends with the receiver.
type unsteady struct {
	transport.Store
	r *receiver
}

func (s *unsteady) trouble(ctx context.Context) (err error) {
	switch {
	case s.r.m.chance(0.02):
		err = errors.New("the store of TestModel fails")
	case s.r.m.chance(0.04):
		err = s.r.m.pause(ctx, 30*time.Second)
	}
	if s.r.killed.Load() {
		err = net.ErrClosed
	}
	return err
}

func (s *unsteady) Receipt(ctx context.Context, id transport.ID) (transport.Receipt, bool, error) {
	if !id.IsZero() { // for which Serve asks
		if err := s.trouble(ctx); err != nil {
			return transport.Receipt{}, false, err
		}
	}
	return s.Store.Receipt(ctx, id)
}

func (s *unsteady) Open(ctx context.Context, o transport.PartialOffer) (transport.Partial, error) {
	err := s.trouble(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.Store.Open(ctx, o)
	if err == nil {
		s.r.leases.Add(1)
		p = &lease{p, s, sync.OnceFunc(func() { s.r.leases.Add(-1) })}
	}
	return p, err
}

type lease struct {
	transport.Partial
	s   *unsteady
	end func()
}

func (l *lease) WriteAt(b []byte, off int64) (int, error) {
	if err := l.s.trouble(context.Background()); err != nil {
		return 0, err
	}
	return l.Partial.WriteAt(b, off)
}

func (l *lease) Commit(ctx context.Context, img *transport.Image, r transport.Receipt) (string, error) {
	if err := l.s.trouble(ctx); err != nil {
		return "", err
	}
	name, err := l.Partial.Commit(ctx, img, r)
	if err == nil {
		l.end()
	}
	return name, err
}

func (l *lease) Keep() error    { l.end(); return l.Partial.Keep() }
func (l *lease) Discard() error { l.end(); return l.Partial.Discard() }
