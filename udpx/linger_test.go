package udpx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/udpx"
)

// counted serves what l accepts and counts the Conns that are open.
func counted(t *testing.T, tr *udpx.Transport, store transport.Store) (addr string, open func() int) {
	l, err := tr.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	n := 0
	count := func(by int) {
		mu.Lock()
		defer mu.Unlock()
		n += by
	}
	s := &transport.Server{Store: store}
	s.Hooks.ConnOpened = func(transport.Info) { count(1) }
	s.Hooks.ConnClosed = func(transport.Info, error) { count(-1) }
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(context.Background(), l) })
	t.Cleanup(func() {
		s.Shutdown(context.Background())
		wg.Wait()
	})
	return l.Addr().String(), func() int {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// TestForgottenSession has a receiver give up a session whose peer has said nothing for long,
// unheard: the peer's next Send goes on without an error, even of a body that can be read only
// once.
func TestForgottenSession(t *testing.T) {
	for name, body := range map[string]func([]byte) transport.Body{
		"bytes":  transport.Bytes,
		"stream": func(b []byte) transport.Body { return transport.Stream(bytes.NewReader(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, 1, path{Delay: 20 * time.Millisecond})
				store := &transport.MemStore{}
				addr, open := counted(t, &udpx.Transport{Conn: n.socket()}, store)
				c := dial(t, &udpx.Transport{Conn: n.socket(), Addr: addr})
				send := func(name string) {
					b := noise(1, 3<<20)
					if _, err := c.Send(t.Context(), &transport.Image{Name: name, Body: body(b)}, nil); err != nil {
						t.Fatal(err)
					}
					kept(t, store, name, b)
				}
				send("first")
				time.Sleep(time.Second) // for the last acknowledgement
				n.setDown(true)
				time.Sleep(4 * time.Minute)
				if open() != 1 {
					t.Error("the receiver gave the session up before 5 minutes of silence")
				}
				time.Sleep(3 * time.Minute)
				if open() != 0 {
					t.Error("the receiver has the session after 7 minutes of silence")
				}
				n.setDown(false)
				begin := time.Now()
				send("second")
				if took := time.Since(begin); took > 3*time.Second {
					t.Errorf("it took %v", took)
				}
				c.Close()
			})
		})
	}
}

// TestSendCrossesTheEndOfItsSession sends an image every five minutes, which is when the receiver gives the session
// up: some images and the receiver's CLOSE pass each other on the way.
func TestSendCrossesTheEndOfItsSession(t *testing.T) {
	for name, body := range map[string]func([]byte) transport.Body{
		"bytes":  transport.Bytes,
		"stream": func(b []byte) transport.Body { return transport.Stream(bytes.NewReader(b)) },
	} {
		for _, idle := range []time.Duration{0, time.Hour} { // of the sender: the smaller value of both counts
			t.Run(fmt.Sprint(name, " ", idle), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newNetwork(t, 1, path{Delay: 20 * time.Millisecond})
					addr, _ := counted(t, &udpx.Transport{Conn: n.socket()}, &transport.MemStore{})
					c := dial(t, &udpx.Transport{Conn: n.socket(), Addr: addr, Config: native.Config{IdleTimeout: idle}})
					defer c.Close()
					for off := -50 * time.Millisecond; off <= 100*time.Millisecond; off += 5 * time.Millisecond {
						if _, err := c.Send(t.Context(), &transport.Image{Name: "x", Body: body(noise(1, 100_000))}, nil); err != nil {
							t.Errorf("%v before: %v", 5*time.Minute+off, err)
						}
						time.Sleep(5*time.Minute + off)
					}
				})
			})
		}
	}
}

// TestTransportMaxPeers refuses one peer too many, until another has left.
func TestTransportMaxPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1, path{Delay: 20 * time.Millisecond})
		addr, open := counted(t, &udpx.Transport{Conn: n.socket(), MaxPeers: 3}, &transport.MemStore{})
		var conns []transport.Conn
		for range 3 {
			conns = append(conns, dial(t, &udpx.Transport{Conn: n.socket(), Addr: addr}))
		}
		begin := time.Now()
		_, err := (&udpx.Transport{Conn: n.socket(), Addr: addr}).Dial(t.Context())
		busy := (*transport.RejectedError)(nil)
		if !errors.As(err, &busy) || busy.Reason != transport.ReasonBusy || !transport.Retryable(err) || !strings.Contains(err.Error(), "MaxPeers") {
			t.Errorf("a peer too many: %v; want ReasonBusy that says what to do", err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it took %v to be refused", took)
		}
		if open() != 3 {
			t.Errorf("%d Conns are open, want 3", open())
		}
		conns[0].Close()
		time.Sleep(time.Minute) // the last word of it is kept for a while
		dial(t, &udpx.Transport{Conn: n.socket(), Addr: addr}).Close()
		for _, c := range conns {
			c.Close()
		}
	})
}
