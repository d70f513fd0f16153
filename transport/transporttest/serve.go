package transporttest

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// accepted returns the listening side's Conn, which some protocols have only when
// something was sent: here an image. It is nil if that is not enough in a while.
func (r *rig) accepted(img *transport.Image) (transport.Conn, *sending) {
	r.Helper()
	conns := make(chan transport.Conn, 1)
	go func() {
		if c, err := r.listener.Accept(r.Context()); err == nil {
			conns <- c
		}
	}()
	r.conn = r.dial()
	s := r.start(r.Context(), r.conn, img, nil)
	select {
	case c := <-conns:
		r.Cleanup(func() { r.within("Close at the end", func() { c.Close() }) })
		return c, s
	case <-time.After(patience(r.TB) / 4):
		return nil, s
	}
}

// twice is a Conn that calls Serve of another one again when that runs.
type twice struct {
	transport.Conn
	t    testing.TB
	held *gate // of the Handler, which tells that; nil: Serve runs until Close
}

func (c twice) Serve(ctx context.Context, in *transport.Inbox) error {
	ended := make(chan error, 2)
	serve := func() { ended <- c.Conn.Serve(ctx, in) }
	go serve()
	if c.held != nil {
		await(c.t, "the Handler", c.held.entered)
		defer close(c.held.opened)
	}
	go serve()
	if err := await(c.t, "the second Serve", ended); !errors.Is(err, transport.ErrServed) {
		c.t.Errorf("the second Serve of a Conn: %v; want ErrServed", err)
	}
	return nil
}

func checkServeOnce(t testing.TB, k transportKit) {
	g := newGate()
	r := k.listen(t)
	img, _ := r.image()
	c, _ := r.accepted(img)
	if c == nil {
		t.Fatal("no Conn was accepted although an image was sent")
	}
	srv := r.server(g.hold)
	r.within("Serve twice on the listening side", func() { srv.ServeConn(t.Context(), twice{c, t, g}) })
	r.within("Shutdown", func() { srv.Shutdown(t.Context()) })
	if !k.BothWays {
		return
	}
	r = k.rig(t, nil)
	r.within("Serve twice on the dialling side", func() { r.server(nil).ServeConn(t.Context(), twice{Conn: r.conn, t: t}) })
}

// checkServeContext is about the end of Serve with its context, when nothing is
// under way and in the middle of an image.
func checkServeContext(t testing.TB, k transportKit) {
	ends := func(r *rig, c transport.Conn, when string, begun func()) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		served := make(chan error, 1)
		go func() { served <- r.server(nil).ServeConn(ctx, c) }()
		begun()
		cancel()
		err := await(t, "the end of Serve after that of its context "+when, served)
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve after the end of its context %s: %v; want context.Canceled", when, err)
		}
	}
	r := k.listen(t)
	img, b := r.image()
	c, s := r.accepted(img)
	if c == nil {
		t.Fatal("no Conn was accepted although an image was sent")
	}
	ends(r, c, "without a transfer", func() {
		r.expect(b)
		if err := await(t, "the end of Send", s.err); err != nil {
			t.Errorf("Send to a Conn that was accepted: %v", err)
		}
	})
	if b = r.content(k.usual()); len(b) < 2 {
		return
	}
	r = k.listen(t)
	img, reached := r.stuck(b)
	if c, _ = r.accepted(img); c != nil { // else what was sent is not enough
		ends(r, c, "in the middle of an image", func() { await(t, "the source's middle", reached) })
	}
}

// checkOutcome is about a Conn that ends after the last byte and before the answer.
func checkOutcome(t testing.TB, k transportKit) {
	if k.Confirms < transport.Received {
		t.Skip("Received or more is not claimed")
	}
	g := newGate()
	r := k.rig(t, g.hold)
	img, _ := r.image()
	s := r.start(t.Context(), r.conn, img, nil)
	select {
	case <-g.entered:
	case err := <-s.err:
		if err != nil {
			t.Fatalf("Send: %v", err)
		}
		close(g.opened)
		t.Skip("the receiver answers before the Handler")
	}
	r.within("Close", func() { r.conn.Close() })
	r.undecided(r.fails(s, "Close while the Handler ran", net.ErrClosed))
	close(g.opened)
}
