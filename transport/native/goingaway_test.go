package native_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// serveMedium serves m and returns what shuts that down within patience.
func serveMedium(t *testing.T, m *medium, store transport.Store) (shutdown func(patience time.Duration)) {
	srv := &transport.Server{Store: store}
	l := mustListen(t, native.Over(nil, m.listen, native.Config{}))
	served := async(func() error { return srv.Serve(context.Background(), l) })
	return func(patience time.Duration) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		srv.Shutdown(ctx)
		<-served
	}
}

// A receiver that is shut down in good order and started again, as in a deployment, is
// waited for as one that was killed is: the image that was on its way arrives once.
func TestReceiverShutDownAndStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var present atomic.Pointer[medium]
		present.Store(newMedium(reliable))
		dial := func(ctx context.Context) (native.Link, error) { return present.Load().dial(ctx) }
		store := &transport.MemStore{}
		shutdown := serveMedium(t, present.Load(), store)
		conn := mustDial(t, native.Over(dial, nil, native.Config{}))
		defer conn.Close()

		r, w := io.Pipe() // a body in mid-transfer, which may be read once
		sent := make(chan error, 1)
		send := func(img *transport.Image, o *transport.SendOptions) {
			go func() {
				_, err := conn.Send(t.Context(), img, o)
				sent <- err
			}()
		}
		send(&transport.Image{Name: "once", Body: transport.Stream(r)}, &transport.SendOptions{Retry: &transport.RetryPolicy{}})
		w.Write(make([]byte, 1000))
		synctest.Wait()
		send(image("more", make([]byte, 5<<20)), &transport.SendOptions{Retry: &transport.RetryPolicy{}})
		if err := <-sent; err != nil {
			t.Error("before the shutdown:", err)
		}
		shutdown(time.Second) // which gives the pipe up
		w.CloseWithError(io.ErrClosedPipe)
		if err := <-sent; err == nil || errors.Is(err, transport.ErrPeerClosed) {
			t.Errorf("what could be read once: %v", err)
		}

		for _, away := range []time.Duration{0, idle - 5*time.Second} {
			send(image("later", []byte{byte(away)}), &transport.SendOptions{Retry: &transport.RetryPolicy{}})
			time.Sleep(away)
			present.Store(newMedium(reliable))
			shutdown = serveMedium(t, present.Load(), store)
			if err := <-sent; err != nil {
				t.Errorf("the receiver came back after %v: %v", away, err)
			}
			shutdown(time.Second)
		}

		began := time.Now()
		send(image("never", make([]byte, 10)), nil)
		if err := <-sent; err == nil || !transport.Retryable(err) || time.Since(began) > idle+time.Second {
			t.Errorf("a receiver that stays away: %v after %v", err, time.Since(began))
		}
	})
}

// A message whose function goes on although the patience of Shutdown is over may be taken yet.
func TestMessageThatOutlivesAShutdown(t *testing.T) {
	taken := false
	bubble(t, func(s *transport.Server, _ *medium) {
		s.Message = func(context.Context, transport.Conn, transport.Message) error {
			time.Sleep(time.Minute)
			taken = true
			return nil
		}
	}, func(t *testing.T, e *ends) {
		sent := async(func() error { return e.conn.SendMessage(t.Context(), transport.Message{}) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		e.srv.Shutdown(ctx)
		err := <-sent
		time.Sleep(time.Minute)
		synctest.Wait()
		if failure := (*transport.Error)(nil); !errors.As(err, &failure) || failure.Outcome != transport.Unknown || !taken {
			t.Errorf("taken %v, but: %v", taken, err)
		}
	})
}

// A refusal that may pass, by a program that was started after the message had gone to another one, says nothing of that one.
func TestMessageToTwoRuns(t *testing.T) {
	for reason, outcome := range map[error]transport.Outcome{errors.New("not yet"): transport.Unknown, transport.Reject("never"): transport.Rejected} {
		synctest.Test(t, func(t *testing.T) {
			var present atomic.Pointer[medium]
			run := func(take func() error) *transport.Server {
				m := newMedium(reliable)
				present.Store(m)
				l := mustListen(t, native.Over(nil, m.listen, native.Config{}))
				srv := &transport.Server{Message: func(context.Context, transport.Conn, transport.Message) error { return take() }}
				go srv.Serve(context.Background(), l)
				return srv
			}
			var first, second *transport.Server
			first = run(func() error {
				old := present.Load()
				second = run(func() error { return reason })
				old.cut(io.EOF)
				return nil
			})
			conn := mustDial(t, native.Over(func(ctx context.Context) (native.Link, error) { return present.Load().dial(ctx) }, nil, native.Config{}))
			failure := (*transport.Error)(nil)
			if err := conn.SendMessage(t.Context(), transport.Message{}); !errors.As(err, &failure) || failure.Outcome != outcome {
				t.Errorf("%v; want the outcome %q", err, outcome)
			}
			conn.Close()
			if err := errors.Join(first.Shutdown(t.Context()), second.Shutdown(t.Context())); err != nil {
				t.Error(err)
			}
		})
	}
}

// A Conn that is accepted just as its Server shuts down, and never gets as far as to be served, ends as the others do.
func TestShutDownBeforeAConnIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var present atomic.Pointer[medium]
		present.Store(newMedium(reliable))
		l := mustListen(t, native.Over(nil, present.Load().listen, native.Config{}))
		conn := mustDial(t, native.Over(func(ctx context.Context) (native.Link, error) { return present.Load().dial(ctx) }, nil, native.Config{}))
		defer conn.Close()
		accepted, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		store := &transport.MemStore{}
		srv := &transport.Server{Store: store}
		if err := errors.Join(srv.Shutdown(t.Context()), l.Close()); err != nil {
			t.Fatal(err)
		}
		if err := srv.ServeConn(t.Context(), accepted); !errors.Is(err, transport.ErrServerClosed) {
			t.Error("ServeConn after Shutdown:", err)
		}
		present.Store(newMedium(reliable))
		shutdown := serveMedium(t, present.Load(), store)
		if _, err := conn.Send(t.Context(), image("later", []byte("x")), nil); err != nil {
			t.Error("to the program that is started next:", err)
		}
		shutdown(time.Second)
	})
}

// hungStore never finds a receipt, as one on a disk that is away.
type hungStore struct{ transport.Store }

func (s hungStore) Receipt(ctx context.Context, id transport.ID) (transport.Receipt, bool, error) {
	if !id.IsZero() {
		<-ctx.Done()
	}
	return transport.Receipt{}, false, ctx.Err()
}

// An offer that waits for the Store when its receiver shuts down is refused as all others are, and not for good.
func TestShutDownWhileTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMedium(reliable)
		shutdown := serveMedium(t, m, hungStore{&transport.MemStore{}})
		conn := mustDial(t, native.Over(m.dial, nil, native.Config{}))
		defer conn.Close()
		sent := async(func() error { _, err := conn.Send(t.Context(), image("early", []byte("x")), nil); return err })
		synctest.Wait()
		shutdown(time.Second)
		err := <-sent
		if refused := (*transport.RejectedError)(nil); !errors.As(err, &refused) || refused.Reason != transport.ReasonGoingAway || !transport.Retryable(err) {
			t.Errorf("%v; want a refusal as going away that may be retried", err)
		}
	})
}

// The end of a Conn by Close is not a shutdown: nobody dials again.
func TestCloseIsNoShutdown(t *testing.T) {
	bubble(t, func(s *transport.Server, _ *medium) {
		s.Message = func(_ context.Context, from transport.Conn, _ transport.Message) error { return from.Close() }
	}, func(t *testing.T, e *ends) {
		e.conn.SendMessage(t.Context(), transport.Message{})
		synctest.Wait()
		if _, err := e.conn.Send(t.Context(), image("late", nil), nil); !errors.Is(err, transport.ErrPeerClosed) {
			t.Errorf("after the peer's Close: %v", err)
		}
	})
}
