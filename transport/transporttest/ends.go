package transporttest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// A gate holds Handlers until it is opened.
type gate struct {
	entered chan struct{}
	opened  chan struct{}
}

func newGate() *gate { return &gate{make(chan struct{}, 64), make(chan struct{})} }

func (g *gate) pass(ctx context.Context) error {
	g.entered <- struct{}{}
	select {
	case <-g.opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) hold(s *transport.Server) {
	s.Handler = func(ctx context.Context, _ *transport.Incoming) error { return g.pass(ctx) }
}

// stuck is an image whose source stops half-way and waits for the end of its
// context. It is closed when that point is reached.
func (r *rig) stuck(b []byte) (*transport.Image, <-chan struct{}) {
	reached := make(chan struct{})
	var once sync.Once
	img := r.imageOf(nil)
	img.Body = transport.OpenFunc(func(ctx context.Context) (io.ReadCloser, int64, error) {
		wait := readerFunc(func([]byte) (int, error) {
			once.Do(func() { close(reached) })
			<-ctx.Done()
			return 0, ctx.Err()
		})
		return io.NopCloser(io.MultiReader(&fitful{b[:len(b)/2]}, wait)), int64(len(b)), nil
	})
	return img, reached
}

// sending is a Send that runs.
type sending struct {
	receipt transport.Receipt
	err     chan error
}

func (r *rig) start(ctx context.Context, c transport.Conn, img *transport.Image, o *transport.SendOptions) *sending {
	s := &sending{err: make(chan error, 1)}
	go func() {
		var err error
		s.receipt, err = c.Send(ctx, img, o)
		s.err <- err
	}()
	return s
}

// fails waits for the end of a Send that must fail, with an error that matches
// want, if there is one.
func (r *rig) fails(s *sending, after string, want error) error {
	r.Helper()
	err := await(r.TB, "the end of Send after "+after, s.err)
	switch {
	case err == nil:
		r.Errorf("Send succeeded after %s", after)
	case want != nil && !errors.Is(err, want):
		r.Errorf("Send after %s: %v; want an error that matches %q", after, err, want)
	default:
		r.sound(err)
	}
	return err
}

// undecided checks the error of a Send that ended while the Handler ran.
func (r *rig) undecided(err error) {
	r.Helper()
	if e := (*transport.Error)(nil); errors.As(err, &e) && e.Outcome != transport.Unknown {
		r.Errorf("Outcome is %q when the Handler may still agree; want %q", e.Outcome, transport.Unknown)
	}
}

// blocked begins a Send for each way in which one can be waiting: for its source
// and, if the protocol waits for the Handler, for the receipt.
func (k transportKit) blocked(t testing.TB, check func(r *rig, s *sending, waitsFor string)) {
	r := k.rig(t, nil)
	b := r.content(k.usual())
	if len(b) >= 2 {
		img, reached := r.stuck(b)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := r.start(ctx, r.conn, img, nil)
		await(t, "the source's middle", reached)
		check(r, s, "its source")
		r.nothing(b)
	}
	if k.Confirms < transport.Kept {
		return
	}
	g := newGate()
	r = k.rig(t, g.hold)
	img, _ := r.image()
	s := r.start(t.Context(), r.conn, img, nil)
	await(t, "the Handler", g.entered)
	check(r, s, "the Handler")
	close(g.opened)
}

func checkCancel(t testing.TB, k transportKit) {
	r := k.rig(t, nil)
	if b := r.content(k.usual()); len(b) >= 2 {
		ctx, cancel := context.WithCancel(t.Context())
		img, reached := r.stuck(b)
		s := r.start(ctx, r.conn, img, nil)
		await(t, "the source's middle", reached)
		cancel()
		r.fails(s, "its context was cancelled half-way", context.Canceled)
		r.works(true, "a cancelled one")
		r.nothing(b)
	}
	if k.Confirms < transport.Kept {
		return
	}
	g := newGate()
	r = k.rig(t, g.hold)
	img, _ := r.image()
	ctx, cancel := context.WithTimeout(t.Context(), k.transferTime())
	defer cancel()
	s := r.start(ctx, r.conn, img, nil)
	await(t, "the Handler", g.entered)
	r.undecided(r.fails(s, "its time was up while the Handler ran", context.DeadlineExceeded))
	close(g.opened)
	r.works(true, "one whose time was up")
}

// dropped closes a Conn that nobody needs.
func dropped(c transport.Conn, err error) error {
	if err == nil {
		c.Close()
	}
	return err
}

// ended checks a call that was made with a context that has ended.
func (r *rig) ended(what string, f func(ctx context.Context) error) {
	r.Helper()
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	r.within(what+" with an ended context", func() {
		if err := f(ctx); !errors.Is(err, context.Canceled) {
			r.Errorf("%s with an ended context: %v; want context.Canceled", what, err)
		}
	})
}

func checkEndedContext(t testing.TB, k transportKit) {
	r := k.rig(t, nil)
	b := make([]byte, k.usual())
	r.ended("Send", func(ctx context.Context) error {
		_, err := r.conn.Send(ctx, r.imageOf(b), nil)
		return err
	})
	if k.Messages > 0 {
		r.ended("SendMessage", func(ctx context.Context) error { return r.conn.SendMessage(ctx, transport.Message{}) })
	}
	r.works(false, "a call with an ended context")
	r.nothing(b)
	r.ended("Dial", func(ctx context.Context) error { return dropped(r.dialer.Dial(ctx)) })
	r.ended("Accept", func(ctx context.Context) error { return dropped(r.listener.Accept(ctx)) })
}

// checkContextEnds is about calls that wait when their context ends.
func checkContextEnds(t testing.TB, k transportKit) {
	ends := func(r *rig, what string, f func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		r.within(what+" beyond the end of its context", func() {
			if err := f(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s whose context ends: %v; want context.DeadlineExceeded", what, err)
			}
		})
	}
	r := k.listen(t)
	ends(r, "Accept", func(ctx context.Context) error { return dropped(r.listener.Accept(ctx)) })
	g := newGate()
	r = k.rig(t, func(s *transport.Server) {
		s.Message = func(ctx context.Context, _ transport.Conn, _ transport.Message) error { return g.pass(ctx) }
	})
	if k.Messages > 0 && k.Confirms == transport.Kept {
		ends(r, "SendMessage", func(ctx context.Context) error { return r.conn.SendMessage(ctx, transport.Message{}) })
	}
	if k.BothWays {
		ends(r, "ServeConn", func(ctx context.Context) error { return r.server(nil).ServeConn(ctx, r.conn) })
	}
}

func checkClose(t testing.TB, k transportKit) {
	k.blocked(t, func(r *rig, s *sending, waitsFor string) {
		serve := make(chan error, 1)
		if k.BothWays {
			go func() { serve <- r.server(nil).ServeConn(t.Context(), r.conn) }()
		}
		r.within("Close while Send waits for "+waitsFor, func() { r.conn.Close() })
		err := r.fails(s, "Close while it waited for "+waitsFor, net.ErrClosed)
		if transport.Retryable(err) {
			t.Errorf("after Close the error of Send is retryable: %v", err)
		}
		if k.BothWays {
			if err := await(t, "the end of Serve after Close", serve); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Serve after Close: %v; want an error that matches net.ErrClosed", err)
			}
		}
		r.within("calls after Close", func() {
			r.conn.Close()
			r.conn.Info()
			_, err := r.conn.Send(t.Context(), r.imageOf(make([]byte, k.usual())), nil)
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("Send on a closed Conn: %v; want an error that matches net.ErrClosed", err)
			}
			if k.Messages > 0 {
				if err := r.conn.SendMessage(t.Context(), transport.Message{}); !errors.Is(err, net.ErrClosed) {
					t.Errorf("SendMessage on a closed Conn: %v; want an error that matches net.ErrClosed", err)
				}
			}
		})
		if waitsFor == "its source" {
			r.conn = r.dial()
			r.works(false, "another Conn's Close half-way")
		}
	})
}

// checkCloseServing is about the Close of a Conn whose Serve waits for a Handler.
func checkCloseServing(t testing.TB, k transportKit) {
	g, peers, ended := newGate(), make(chan transport.Conn, 1), make(chan error, 1)
	r := k.rig(t, func(s *transport.Server) {
		s.Handler = func(ctx context.Context, in *transport.Incoming) error { peers <- in.Conn; return g.pass(ctx) }
		s.Hooks.ConnClosed = func(_ transport.Info, err error) {
			select {
			case ended <- err:
			default:
			}
		}
	})
	defer close(g.opened)
	img, _ := r.image()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.start(ctx, r.conn, img, nil)
	peer := await(t, "the Handler", peers)
	await(t, "the Handler", g.entered)
	r.within("Close while the Handler runs", func() { peer.Close() })
	if err := await(t, "the end of Serve after Close while the Handler runs", ended); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve after Close: %v; want an error that matches net.ErrClosed", err)
	}
}

func checkListenerClose(t testing.TB, k transportKit) {
	r := k.listen(t)
	accept := make(chan error, 1)
	go func() { accept <- dropped(r.listener.Accept(t.Context())) }()
	time.Sleep(20 * time.Millisecond) // so that it waits, mostly
	r.within("Listener.Close", func() { r.listener.Close() })
	if err := await(t, "Accept after Listener.Close", accept); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v; want an error that matches net.ErrClosed", err)
	}
	r.within("calls after Listener.Close", func() {
		r.listener.Close()
		r.listener.Addr()
		if c, err := r.listener.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept on a closed Listener: %v, %v; want an error that matches net.ErrClosed", c, err)
		}
	})
	if k.SingleUse {
		return
	}
	r = k.rig(t, nil)
	r.works(false, "Dial")
	r.within("Listener.Close", func() { r.listener.Close() })
	r.works(false, "Listener.Close; accepted Conns live on")
}

func checkPeerClose(t testing.TB, k transportKit) {
	if !k.TellsClose {
		t.Skip("TellsClose is not claimed")
	}
	g, peers := newGate(), make(chan transport.Conn, 1)
	r := k.rig(t, func(s *transport.Server) {
		s.Handler = func(ctx context.Context, in *transport.Incoming) error { peers <- in.Conn; return g.pass(ctx) }
	})
	img, _ := r.image()
	s := r.start(t.Context(), r.conn, img, nil)
	peer := await(t, "the Handler", peers)
	r.within("Close on the other side", func() { peer.Close() })
	if k.Confirms == transport.Kept {
		r.undecided(r.fails(s, "the peer's Close while the Handler ran", nil))
	}
	close(g.opened)
	if !k.BothWays {
		return
	}
	r = k.rig(t, func(s *transport.Server) {
		s.Handler = func(_ context.Context, in *transport.Incoming) error { peers <- in.Conn; return nil }
	})
	serve := make(chan error, 1)
	go func() { serve <- r.server(nil).ServeConn(t.Context(), r.conn) }()
	r.works(false, "ServeConn")
	await(t, "the Handler", peers).Close()
	if err := await(t, "the end of Serve after the peer's Close", serve); err != nil {
		t.Errorf("Serve after the peer's Close: %v; an orderly end is nil", err)
	}
}
