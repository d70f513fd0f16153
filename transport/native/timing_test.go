package native_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

const idle = 30 * time.Second // of native.Config

func mustListen(t *testing.T, tr transport.Transport) transport.Listener {
	t.Helper()
	l, err := tr.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustDial(t *testing.T, tr transport.Transport) transport.Conn {
	t.Helper()
	c, err := tr.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// async calls f on a goroutine of its own, and returns where its result comes.
func async(f func() error) chan error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	return result
}

// ends are a dialled Conn and the Server at the other end of a medium.
type ends struct {
	*medium
	t    *testing.T
	srv  *transport.Server
	conn transport.Conn
	kept *transport.MemStore
}

// bubble runs f with both ends in a synctest bubble.
func bubble(t *testing.T, set func(*transport.Server, *medium), f func(t *testing.T, e *ends)) {
	synctest.Test(t, func(t *testing.T) {
		e := &ends{medium: newMedium(reliable), t: t, kept: &transport.MemStore{}}
		e.srv = &transport.Server{Store: e.kept}
		if set != nil {
			set(e.srv, e.medium)
		}
		l := mustListen(t, native.Over(nil, e.listen, native.Config{}))
		served := async(func() error { return e.srv.Serve(context.Background(), l) })
		e.conn = mustDial(t, native.Over(e.dial, nil, native.Config{}))
		f(t, e)
		e.conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		e.srv.Shutdown(ctx)
		<-served
	})
}

func image(name string, b []byte) *transport.Image {
	return &transport.Image{Name: name, Body: transport.Bytes(b)}
}

// holds checks that an image was kept as it was sent.
func (e *ends) holds(name string, want []byte) {
	e.t.Helper()
	img, ok := e.kept.Get(name)
	if !ok {
		e.t.Fatalf("%s was not kept", name)
	}
	if got, err := img.Body.ReadAll(context.Background()); err != nil || !bytes.Equal(got, want) {
		e.t.Errorf("%s: %d bytes and %v, want the %d that were sent", name, len(got), err, len(want))
	}
}

func outcome(err error) transport.Outcome {
	e := (*transport.Error)(nil)
	errors.As(err, &e)
	return e.Outcome
}

// hole is a Link into which everything disappears once it is open, the end too.
type hole struct {
	native.Link
	open   *atomic.Bool
	closed chan struct{}
}

func (h hole) WriteMessage(msg []byte) error {
	if h.open.Load() {
		return nil
	}
	return h.Link.WriteMessage(msg)
}

func (h hole) ReadMessage(buf []byte) (int, error) {
	n, err := h.Link.ReadMessage(buf)
	if errors.Is(err, io.EOF) && h.open.Load() {
		<-h.closed
	}
	return n, err
}

func (h hole) Close() error {
	close(h.closed)
	return h.Link.Close()
}

func TestVanishedPeer(t *testing.T) {
	var gone atomic.Bool
	var entered chan struct{}
	var closed chan error
	bubble(t, func(s *transport.Server, m *medium) {
		entered, closed = make(chan struct{}), make(chan error, 1)
		m.wrap = func(l native.Link) native.Link { return hole{l, &gone, make(chan struct{})} }
		s.Handler = func(ctx context.Context, _ *transport.Incoming) error {
			close(entered)
			<-ctx.Done()
			return ctx.Err()
		}
		s.Hooks.ConnClosed = func(_ transport.Info, err error) {
			select {
			case closed <- err:
			default:
			}
		}
	}, func(t *testing.T, e *ends) {
		sent := async(func() error { _, err := e.conn.Send(t.Context(), image("a", make([]byte, 1000)), nil); return err })
		<-entered
		gone.Store(true)
		start := time.Now()
		err := <-sent
		if !errors.Is(err, transport.ErrIdle) || outcome(err) != transport.Unknown {
			t.Errorf("Send to a peer that has vanished after the last byte: %v; want ErrIdle and unknown", err)
		}
		if took := time.Since(start); took > idle+time.Second {
			t.Errorf("it took %v, want the idle time of %v", took, idle)
		}
		if err := <-closed; !errors.Is(err, transport.ErrIdle) {
			t.Errorf("the receiver's Conn ended with %v, want ErrIdle", err)
		}
		if took := time.Since(start); took > idle+2*time.Second {
			t.Errorf("the receiver took %v, want the idle time of %v", took, idle)
		}
		gone.Store(false)
	})
}

func TestSlowHandlerIsKeptAlive(t *testing.T) {
	bubble(t, func(s *transport.Server, _ *medium) {
		s.Handler = func(context.Context, *transport.Incoming) error {
			time.Sleep(10 * idle)
			return nil
		}
	}, func(t *testing.T, e *ends) {
		b := []byte("an image")
		if r, err := e.conn.Send(t.Context(), image("a", b), nil); err != nil || r.Level != transport.Kept {
			t.Fatalf("%+v, %v", r, err)
		}
		e.holds("a", b)
	})
}

func TestIdleConnLives(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		for range 3 {
			time.Sleep(20 * idle)
			if _, err := e.conn.Send(t.Context(), image("a", []byte("b")), nil); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(e.ends); n != 1 {
			t.Errorf("%d links, want the first one only", n)
		}
	})
}

func TestLostLinkIsDialledForTheIdleTime(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		unreachable := errors.New("no route to the peer")
		e.cut(unreachable)
		synctest.Wait()
		start := time.Now()
		_, err := e.conn.Send(t.Context(), image("a", []byte("b")), nil)
		if !errors.Is(err, unreachable) || outcome(err) != transport.NotKept || !transport.Retryable(err) {
			t.Errorf("%v; want the reason of the dialling, not kept, retryable", err)
		}
		if took := time.Since(start); took < idle-3*time.Second || took > idle {
			t.Errorf("it was tried for %v, want about %v", took, idle)
		}

		// The next call tries again, and finds the peer when it is back.
		time.AfterFunc(10*time.Second, func() { e.cut(nil) })
		start = time.Now()
		if _, err := e.conn.Send(t.Context(), image("a", []byte("b")), nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 13*time.Second {
			t.Errorf("it took %v to find a peer that was back after 10 s", took)
		}
		e.holds("a", []byte("b"))
	})
}

func TestSendEndsWithItsContextWhileDialling(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		e.cut(io.ErrClosedPipe)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := e.conn.Send(ctx, image("a", []byte("b")), nil); !errors.Is(err, context.DeadlineExceeded) || outcome(err) != transport.NotKept {
			t.Errorf("%v; want the context's end, not kept", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// cutInHandler is a bubble whose Handler takes its time, in which the link is cut.
func cutInHandler(t *testing.T, takes time.Duration, cause error, f func(t *testing.T, e *ends, calls *int)) {
	calls := 0
	var entered chan struct{}
	bubble(t, func(s *transport.Server, m *medium) {
		entered = make(chan struct{}, 1)
		s.Handler = func(context.Context, *transport.Incoming) error {
			calls++
			entered <- struct{}{}
			time.Sleep(takes)
			return nil
		}
	}, func(t *testing.T, e *ends) {
		go func() {
			<-entered
			e.cut(cause)
		}()
		f(t, e, &calls)
	})
}

// A link that dies while the Handler decides: the image is offered again, the
// Handler is not called twice, no byte is sent twice.
func TestLinkLostBeforeTheReceipt(t *testing.T) {
	cutInHandler(t, time.Minute, nil, func(t *testing.T, e *ends, calls *int) {
		b := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
		r, err := e.conn.Send(t.Context(), image("a", b), nil)
		if err != nil || r.Resent != 0 || *calls != 1 {
			t.Errorf("%+v, %v and %d calls of the Handler; want nothing resent and one", r, err, *calls)
		}
		e.holds("a", b)
	})
}

// The same, but the peer cannot be joined: nobody knows, until asked again under
// the same ID.
func TestUnknownOutcomeResolves(t *testing.T) {
	cutInHandler(t, time.Second, io.ErrClosedPipe, func(t *testing.T, e *ends, calls *int) {
		b, id := []byte("an image"), transport.NewID()
		_, err := e.conn.Send(t.Context(), image("a", b), &transport.SendOptions{ID: id})
		if outcome(err) != transport.Unknown {
			t.Fatalf("%v; want an unknown outcome", err)
		}
		e.cut(nil)
		r, err := e.conn.Send(t.Context(), image("a", b), &transport.SendOptions{ID: id})
		if err != nil || r.Level != transport.Kept || *calls != 1 {
			t.Errorf("%+v, %v and %d calls of the Handler; want it kept by one call", r, err, *calls)
		}
		_, err = e.conn.Send(t.Context(), image("a", []byte("another")), &transport.SendOptions{ID: id})
		if !errors.Is(err, transport.ErrIDUsed) {
			t.Errorf("other content under the same ID: %v; want ErrIDUsed", err)
		}
		e.holds("a", b)
	})
}

func TestLostLinksBesideServe(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		store := &transport.MemStore{}
		camera := &transport.Server{Store: store} // at the dialling end
		served := async(func() error { return camera.ServeConn(context.Background(), e.conn) })
		for i := range 5 {
			b := fmt.Append(nil, "image ", i)
			if _, err := e.conn.Send(t.Context(), image("a", b), nil); err != nil {
				t.Fatal(err)
			}
			e.cut(nil)
		}
		e.cut(io.ErrClosedPipe)
		start := time.Now()
		if err := <-served; err == nil || time.Since(start) > idle {
			t.Errorf("ServeConn returned %v after %v; want an error within %v", err, time.Since(start), idle)
		}
		if _, err := e.conn.Send(t.Context(), image("a", nil), nil); err == nil {
			t.Error("Send works on a Conn that has ended")
		}
	})
}

func TestMessageIsTakenOnce(t *testing.T) {
	var mu sync.Mutex
	var taken []string
	var entered chan struct{}
	bubble(t, func(s *transport.Server, m *medium) {
		entered = make(chan struct{}, 1)
		s.Message = func(_ context.Context, _ transport.Conn, m transport.Message) error {
			mu.Lock()
			taken = append(taken, string(m.Data))
			mu.Unlock()
			entered <- struct{}{}
			time.Sleep(time.Second)
			return nil
		}
	}, func(t *testing.T, e *ends) {
		go func() {
			<-entered
			e.cut(nil)
		}()
		if err := e.conn.SendMessage(t.Context(), transport.Message{Type: "text", Data: []byte("hello")}); err != nil {
			t.Fatal(err)
		}
		if len(taken) != 1 || taken[0] != "hello" {
			t.Errorf("taken: %q", taken)
		}
	})
}

// Close frees every call at once, though the peer's program is still busy.
func TestCloseFreesCalls(t *testing.T) {
	var entered chan struct{}
	wait := func(ctx context.Context) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	bubble(t, func(s *transport.Server, m *medium) {
		entered = make(chan struct{}, 2)
		s.Handler = func(ctx context.Context, _ *transport.Incoming) error { return wait(ctx) }
		s.Message = func(ctx context.Context, _ transport.Conn, _ transport.Message) error { return wait(ctx) }
	}, func(t *testing.T, e *ends) {
		ended := make(chan error, 3)
		go func() {
			_, err := e.conn.Send(t.Context(), image("a", []byte("b")), nil)
			ended <- err
		}()
		go func() { ended <- e.conn.SendMessage(t.Context(), transport.Message{}) }()
		go func() { ended <- (&transport.Server{Store: &transport.MemStore{}}).ServeConn(t.Context(), e.conn) }()
		<-entered
		<-entered
		synctest.Wait()
		start := time.Now()
		go e.conn.Close()
		for range 3 {
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("a call ended with %v, want net.ErrClosed", err)
			}
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("Close freed the calls after %v", took)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A body that can be opened again survives the loss of the link half-way.
func TestLostLinkOpensAgain(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		content := bytes.Repeat([]byte("0123456789"), 300_000)
		opened := 0
		cut := readerFunc(func([]byte) (int, error) {
			if opened == 1 {
				e.cut(nil)
			}
			return 0, io.EOF
		})
		img := &transport.Image{Name: "x", Body: transport.OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
			opened++
			half := len(content) / 2
			r := io.MultiReader(bytes.NewReader(content[:half]), cut, bytes.NewReader(content[half:]))
			return io.NopCloser(r), int64(len(content)), nil
		})}
		_, err := e.conn.Send(t.Context(), img, &transport.SendOptions{Retry: &transport.RetryPolicy{}})
		if err != nil || opened != 2 {
			t.Errorf("%v; opened %d times", err, opened)
		}
		e.holds("x", content)
	})
}

// Who has dialled and only serves finds its peer again when that was killed, though nothing tells of it: neither a
// transfer nor the link.
func TestServedConnFindsItsPeerAgain(t *testing.T) {
	for _, info := range []native.LinkInfo{reliable, {Protocol: "mem", Peer: "peer", MaxMessage: 1200}} {
		killed := new(atomic.Bool)
		var opened atomic.Int32
		bubble(t, func(s *transport.Server, m *medium) {
			m.info = info
			m.wrap = func(l native.Link) native.Link { return hole{l, killed, make(chan struct{})} }
			s.Hooks.ConnOpened = func(transport.Info) { opened.Add(1) }
		}, func(t *testing.T, e *ends) {
			ctx, stop := context.WithCancel(t.Context())
			served := async(func() error { return (&transport.Server{Store: &transport.MemStore{}}).ServeConn(ctx, e.conn) })
			time.Sleep(20 * idle)
			if n := opened.Load(); n != 1 {
				t.Errorf("reliable %v: %d Conns while the peer lived, want the first one only", info.Reliable, n)
			}
			before := killed
			killed = new(atomic.Bool) // of the links that follow
			before.Store(true)
			time.Sleep(idle + 3*time.Second)
			if n := opened.Load(); n != 2 {
				t.Errorf("reliable %v: %d Conns, want a second one %v after the peer was killed", info.Reliable, n, idle)
			}
			killed.Store(true) // and away for a while
			e.away(io.ErrClosedPipe)
			time.Sleep(10 * idle)
			killed = new(atomic.Bool)
			e.away(nil)
			time.Sleep(3 * time.Second)
			if n := opened.Load(); n != 3 {
				t.Errorf("reliable %v: %d Conns, want a third one when the peer is back", info.Reliable, n)
			}
			stop()
			<-served
			before.Store(false)
		})
	}
}
