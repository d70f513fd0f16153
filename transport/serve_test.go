package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/chunk"
)

// fakeListener accepts what the test sends.
type fakeListener struct {
	accept chan any // a Conn or an error
	closed chan struct{}
	once   sync.Once
}

func newListener() *fakeListener {
	return &fakeListener{accept: make(chan any), closed: make(chan struct{})}
}

func (l *fakeListener) Accept(ctx context.Context) (Conn, error) {
	select {
	case v := <-l.accept:
		if err, ok := v.(error); ok {
			return nil, err
		}
		return v.(Conn), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *fakeListener) Addr() net.Addr { return &net.TCPAddr{} }
func (l *fakeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

type temporary struct{}

func (temporary) Error() string   { return "too many open files" }
func (temporary) Temporary() bool { return true }

func serveIn(ctx context.Context, s *Server, l Listener) chan error {
	result := async(func() error { return s.Serve(ctx, l) })
	return result
}

func TestServeAcceptsUntilShutdown(t *testing.T) {
	s := &Server{Store: &MemStore{}}
	synctest.Test(t, func(t *testing.T) {
		l1, l2 := newListener(), newListener()
		r1, r2 := serveIn(t.Context(), s, l1), serveIn(t.Context(), s, l2)
		c1, c2 := newTap("1"), newTap("2")
		l1.accept <- c1
		l2.accept <- c2
		if _, err := deliverTo(t.Context(), <-c1.inbox, Offer{Size: 1}, []byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := deliverTo(t.Context(), <-c2.inbox, Offer{Size: 1}, []byte("x")); err != nil {
			t.Error(err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		for _, r := range []chan error{r1, r2} {
			if err := <-r; err != ErrServerClosed || !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
		if !isClosed(c1.closed) || !isClosed(c2.closed) || !isClosed(l1.closed) || !isClosed(l2.closed) {
			t.Error("left open")
		}
		// It is over for good.
		l3, c3 := newListener(), newTap("3")
		if err := s.Serve(t.Context(), l3); err != ErrServerClosed || !isClosed(l3.closed) {
			t.Error(err)
		}
		if err := s.ServeConn(t.Context(), c3); err != ErrServerClosed || !isClosed(c3.closed) {
			t.Error(err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error("again:", err)
		}
	})
}

// The program hears of its mistake at once, and does not try again.
func TestServerConfigurationMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, store := range map[string]Store{"set Store": nil, "set DirStore.Dir to the one": &DirStore{}, "DirStore.Existing is 9": &DirStore{Dir: t.TempDir(), Existing: 9}, "to a directory": &DirStore{Dir: file}} {
		s := &Server{Store: store}
		l, c := newListener(), newTap("p")
		for _, err := range []error{s.Serve(t.Context(), l), s.ServeConn(t.Context(), c)} {
			if !errors.Is(err, ErrConfig) || Retryable(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v; want %q", err, want)
			}
		}
		if !isClosed(l.closed) || !isClosed(c.closed) {
			t.Error("left open")
		}
	}
}

// A Store is closed when Serve has returned: everything must be over by then.
func TestServeReturnsAfterShutdown(t *testing.T) {
	var answer chan error
	s := &Server{Handler: func(context.Context, *Incoming) error { return <-answer }}
	synctest.Test(t, func(t *testing.T) {
		answer = make(chan error)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		l, late, c := newListener(), newListener(), newTap("p")
		served := serveIn(ctx, s, l)
		l.accept <- c
		a := mustOffer(t, <-c.inbox, Offer{Size: 1})
		mustWrite(t, a, []byte("x"), 0)
		go a.Finish(context.Background(), -1, chunk.Digest{})
		synctest.Wait()
		down := async(func() error { return s.Shutdown(context.Background()) })
		synctest.Wait()
		if !isClosed(l.closed) {
			t.Error("the Listener is open while Shutdown waits")
		}
		servedLate := serveIn(ctx, s, late)
		cancel() // Shutdown's own context bounds it
		synctest.Wait()
		if len(served) > 0 || len(servedLate) > 0 {
			t.Error("Serve returned while Shutdown waited for a Handler")
		}
		answer <- nil
		for _, result := range []chan error{down, served, servedLate} {
			if err := <-result; err != nil && err != ErrServerClosed {
				t.Error(err)
			}
		}
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	s := &Server{Store: &MemStore{}}
	bubble(t, s, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l, c := newListener(), newTap("p")
		result := serveIn(ctx, s, l)
		l.accept <- c
		<-c.inbox
		cancel()
		if err := <-result; err != context.Canceled {
			t.Error(err)
		}
		if !isClosed(l.closed) || !isClosed(c.closed) {
			t.Error("left open")
		}
	})
}

// slowTap takes a second after the end of its context, to hand answers over.
type slowTap struct {
	*tap
	returned bool
	late     bool // closed before that
}

func (c *slowTap) Serve(ctx context.Context, in *Inbox) error {
	c.tap.Serve(ctx, in)
	time.Sleep(time.Second)
	c.late = isClosed(c.closed)
	c.returned = true
	return ctx.Err()
}

func TestLastAnswersAreHandedOver(t *testing.T) {
	for name, end := range map[string]func(s *Server, cancel func(), served chan error) error{
		"Shutdown": func(s *Server, _ func(), _ chan error) error { return s.Shutdown(context.Background()) },
		"context": func(_ *Server, cancel func(), served chan error) error {
			cancel()
			<-served
			return nil
		},
	} {
		s := &Server{Store: &MemStore{}}
		bubble(t, s, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			l, c := newListener(), &slowTap{tap: newTap("p")}
			served := serveIn(ctx, s, l)
			l.accept <- c
			<-c.inbox
			if err := end(s, cancel, served); err != nil || !c.returned || c.late {
				t.Errorf("%s: %v; Serve has returned: %v; closed before: %v", name, err, c.returned, c.late)
			}
		})
	}
}

func TestServeOutlivesTemporaryErrors(t *testing.T) {
	s := &Server{Store: &MemStore{}}
	bubble(t, s, func(t *testing.T) {
		l := newListener()
		result := serveIn(t.Context(), s, l)
		start := time.Now()
		var waits []time.Duration
		want := []error{temporary{}, &net.OpError{Op: "accept", Err: syscall.ENOMEM}, &net.OpError{Op: "accept", Err: syscall.ENOBUFS}}
		for i := range 10 {
			l.accept <- fmt.Errorf("accept: %w", want[i%len(want)])
			waits = append(waits, time.Since(start))
			start = time.Now()
		}
		if last := waits[9]; waits[1] != 5*time.Millisecond || last != time.Second {
			t.Error("waits:", waits)
		}
		c := newTap("p")
		l.accept <- c
		<-c.inbox
		l.accept <- temporary{}
		start = time.Now()
		broken := errors.New("broken")
		l.accept <- broken
		if d := time.Since(start); d != 5*time.Millisecond {
			t.Error("a success does not reset the wait:", d)
		}
		if err := <-result; err != broken || !isClosed(l.closed) {
			t.Error(err)
		}
		if isClosed(c.closed) {
			t.Error("the Conn ended with the Listener")
		}
	})
}

func TestServeConnReturnsTheConnsEnd(t *testing.T) {
	s := &Server{Store: &MemStore{}}
	bubble(t, s, func(t *testing.T) {
		a, b := Pipe()
		result := async(func() error { return s.ServeConn(t.Context(), b) })
		synctest.Wait()
		a.Close()
		if err := <-result; err != nil {
			t.Error("closed by the peer:", err)
		}
		a, b = Pipe()
		go func() { result <- s.ServeConn(t.Context(), b) }()
		synctest.Wait()
		b.Close()
		if err := <-result; !errors.Is(err, ErrClosed) {
			t.Error("closed here:", err)
		}
		a.Close()
	})
}
