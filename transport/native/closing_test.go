package native_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// Both ends close at once, so that a session hears of its end from its timer, its reader
// and its owner in any order: Close returns when nothing of it runs any more.
func TestBothEndsClose(t *testing.T) {
	for range 100 {
		near, far := memLinks(reliable, 64)
		links := make(chan native.Link, 1)
		links <- far
		l := mustListen(t, native.Over(nil, native.OneAtATime(plugged(links)), native.Config{}))
		a := mustDial(t, native.Over(func(context.Context) (native.Link, error) { return near, nil }, nil, native.Config{}))
		b, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		both.Go(func() { a.Close() })
		both.Go(func() { b.Close() })
		both.Wait()
		for _, end := range []*memLink{near, far} {
			select {
			case <-end.closed:
			default:
				t.Fatal("a link is open after Close")
			}
		}
		l.Close()
	}
}

// watchedLink says when its first message was read, and when it is closed.
type watchedLink struct {
	native.Link
	read   func()
	closed atomic.Bool
}

func (l *watchedLink) ReadMessage(b []byte) (int, error) {
	n, err := l.Link.ReadMessage(b)
	l.read()
	return n, err
}

func (l *watchedLink) Close() error {
	l.closed.Store(true)
	return l.Link.Close()
}

// Close of a Conn that is just joining its peer again leaves no session behind, of which nobody would know.
func TestCloseWhileRedialling(t *testing.T) {
	m := newMedium(reliable)
	l := mustListen(t, native.Over(nil, m.listen, native.Config{}))
	s := &transport.Server{Store: &transport.MemStore{}}
	served := async(func() error { return s.Serve(t.Context(), l) })
	for round := range 300 {
		var c transport.Conn
		var links []*watchedLink
		closed := make(chan struct{})
		c, err := native.Over(func(ctx context.Context) (native.Link, error) {
			inner, err := m.dial(ctx)
			if err != nil {
				return nil, err
			}
			link := &watchedLink{Link: inner, read: func() {}}
			if links = append(links, link); len(links) == 2 {
				link.read = sync.OnceFunc(func() {
					go func() {
						for range rand.N(3000) { // until the session is established, or a little more or less
							runtime.Gosched()
						}
						c.Close()
						close(closed)
					}()
				})
			}
			return link, nil
		}, nil, native.Config{}).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		links[0].Link.Close()
		sent := async(func() error {
			_, err := c.Send(t.Context(), &transport.Image{Body: transport.Bytes([]byte("x"))}, nil)
			return err
		})
		<-closed
		<-sent
		for i, link := range links {
			if !link.closed.Load() {
				t.Errorf("round %d: link %d of %d is still open after Close", round, i, len(links))
			}
		}
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-served
}
