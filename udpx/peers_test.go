package udpx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/udpx"
)

// serve runs a Server with the store on what tr listens to, until the test ends, and
// returns its address and a function that ends it before.
func serve(t testing.TB, tr *udpx.Transport, store transport.Store) (addr net.Addr, stop func()) {
	t.Helper()
	l, err := tr.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &transport.Server{Store: store}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(ctx, l)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
		s.Shutdown(context.Background())
	})
	t.Cleanup(stop)
	return l.Addr(), stop
}

func dial(t testing.TB, tr *udpx.Transport) transport.Conn {
	t.Helper()
	c, err := tr.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// noise returns n bytes that do not compress or repeat.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return b
}

// kept fails the test unless the store holds b under the name.
func kept(t testing.TB, store *transport.MemStore, name string, b []byte) {
	t.Helper()
	img, ok := store.Get(name)
	if !ok {
		t.Errorf("%s was not kept", name)
		return
	}
	if got, err := img.Body.ReadAll(t.Context()); err != nil || !bytes.Equal(got, b) {
		t.Errorf("%s is not what was sent: %d bytes, %v; want %d", name, len(got), err, len(b))
	}
}

func TestManyImages(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 100
	}
	store := &transport.MemStore{}
	addr, _ := serve(t, &udpx.Transport{Addr: "127.0.0.1:0"}, store)
	c := dial(t, &udpx.Transport{Addr: addr.String()})
	content := func(i int) []byte { return noise(uint64(i), 100<<10) }
	var g errgroup.Group
	g.SetLimit(8)
	for i := range n {
		g.Go(func() error {
			_, err := c.Send(t.Context(), &transport.Image{Name: fmt.Sprint(i), Body: transport.Bytes(content(i))}, nil)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		kept(t, store, fmt.Sprint(i), content(i))
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	begin := time.Now()
	_, err = (&udpx.Transport{Addr: l.LocalAddr().String()}).Dial(t.Context())
	if !errors.Is(err, transport.ErrNoReceiver) {
		t.Errorf("Dial to a closed port: %v; want ErrNoReceiver", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestSharedSocket has two programs that dial each other from the sockets that they
// listen on, and one of them itself too.
func TestSharedSocket(t *testing.T) {
	var ends [2]struct {
		tr    *udpx.Transport
		store *transport.MemStore
		stop  func()
	}
	for i := range ends {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ends[i].tr = &udpx.Transport{Conn: c}
		ends[i].store = &transport.MemStore{}
	}
	for round := range 2 { // the sockets can be used again
		before := runtime.NumGoroutine()
		for i := range ends {
			_, ends[i].stop = serve(t, ends[i].tr, ends[i].store)
		}
		if _, err := ends[0].tr.Listen(t.Context()); err == nil {
			t.Error("a second Listener on one socket")
		}
		var wg sync.WaitGroup
		for from := range ends {
			for _, to := range []int{0, 1, 1} {
				wg.Go(func() {
					c, err := ends[from].tr.DialAddr(t.Context(), ends[to].tr.Conn.LocalAddr())
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					b := noise(uint64(from), 300<<10)
					name := fmt.Sprintf("round %d from %d", round, from)
					img := &transport.Image{Name: name, Body: transport.Bytes(b)}
					if _, err := c.Send(t.Context(), img, nil); err != nil {
						t.Error(err)
						return
					}
					kept(t, ends[to].store, name, b)
				})
			}
		}
		wg.Wait()
		for i := range ends {
			ends[i].stop()
		}
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
			runtime.Gosched()
		}
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%d goroutines while nothing uses the sockets, %d before", n, before)
		}
	}
}

// TestReceiverRestarted replaces the receiving program in mid-transfer.
func TestReceiverRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1, path{Delay: 20 * time.Millisecond, Rate: 2 << 20, Queue: 128 << 10})
		store := &transport.MemStore{}
		old := n.socket()
		addr, stop := serve(t, &udpx.Transport{Conn: old}, store)
		c := dial(t, &udpx.Transport{Conn: n.socket(), Addr: addr.String()})
		b := noise(1, 16<<20)
		begin := time.Now()
		time.AfterFunc(4*time.Second, func() {
			old.Close() // nothing is said any more
			stop()
			serve(t, &udpx.Transport{Conn: n.socketAt(old.addr)}, store)
		})
		r, err := c.Send(t.Context(), &transport.Image{Name: "a", Body: transport.Bytes(b)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		kept(t, store, "a", b)
		if took := time.Since(begin); took > 12*time.Second {
			t.Errorf("it took %v: the restart was not noticed at once", took)
		}
		if most := int64(2 << 20); r.Resent > most {
			t.Errorf("%d bytes were sent again; want at most %d, the block and the queue on the way", r.Resent, most)
		}
		c.Close()
	})
}

// TestPeerVanishes cuts the network in mid-transfer.
func TestPeerVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = 5 * time.Second
		n := newNetwork(t, 1, path{Delay: 20 * time.Millisecond, Rate: 2 << 20, Queue: 128 << 10})
		cfg := native.Config{IdleTimeout: idle}
		l, err := (&udpx.Transport{Conn: n.socket(), Config: cfg}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := &transport.Server{Store: &transport.MemStore{}}
		ended := make(chan time.Time, 1)
		s.Hooks.ConnClosed = func(transport.Info, error) { ended <- time.Now() }
		var wg sync.WaitGroup
		wg.Go(func() { s.Serve(context.Background(), l) })

		c := dial(t, &udpx.Transport{Conn: n.socket(), Addr: l.Addr().String(), Config: cfg})
		var cut time.Time
		time.AfterFunc(2*time.Second, func() { cut = time.Now(); n.setDown(true) })
		_, err = c.Send(t.Context(), &transport.Image{Body: transport.Bytes(noise(1, 16<<20))}, nil)
		took := time.Since(cut)
		if err == nil || !transport.Retryable(err) || took < idle || took > 2*idle+time.Second {
			t.Errorf("Send ended %v after the network: %v; want a retryable error after the idle time", took, err)
		}
		if at := <-ended; at.Sub(cut) > idle+time.Second {
			t.Errorf("the receiver noticed after %v; want %v", at.Sub(cut), idle)
		}
		c.Close()
		s.Shutdown(context.Background())
		wg.Wait()
	})
}

// TestSocketCloses closes the socket under everything.
func TestSocketCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1, path{Delay: time.Millisecond})
		node := n.socket()
		tr := &udpx.Transport{Conn: node}
		l, err := tr.Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		node.Close()
		if _, err := l.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept on a closed socket: %v; want net.ErrClosed", err)
		}
		if _, err := tr.DialAddr(t.Context(), n.socket().LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Dial on a closed socket: %v; want net.ErrClosed", err)
		}
		l.Close()
	})
}

// TestFleet has many peers on one socket of each side.
func TestFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const peers = 300
		n := newNetwork(t, 1, path{Delay: 20 * time.Millisecond, Loss: 0.01})
		store := &transport.MemStore{}
		addr, _ := serve(t, &udpx.Transport{Conn: n.socket()}, store)
		device := &udpx.Transport{Conn: n.socket()}
		before := runtime.NumGoroutine()
		conns := make([]transport.Conn, peers)
		var wg sync.WaitGroup
		for i := range conns {
			wg.Go(func() {
				var err error
				if conns[i], err = device.DialAddr(t.Context(), addr); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		time.Sleep(time.Minute)
		// Three for each: the accepting Server's, and none of the sockets'.
		if grown := runtime.NumGoroutine() - before; grown > 4*peers {
			t.Errorf("%d goroutines for %d idle peers", grown, peers)
		}
		for i, c := range conns {
			wg.Go(func() {
				name := fmt.Sprint(i)
				b := noise(uint64(i), 10<<10)
				if _, err := c.Send(t.Context(), &transport.Image{Name: name, Body: transport.Bytes(b)}, nil); err != nil {
					t.Error(err)
				}
				kept(t, store, name, b)
			})
		}
		wg.Wait()
		for _, c := range conns {
			wg.Go(func() { c.Close() })
		}
		wg.Wait()
	})
}

// TestCloseIsRepeated loses all that the receiver says when it closes the Conn.
func TestCloseIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1, path{Delay: 10 * time.Millisecond})
		l, err := (&udpx.Transport{Conn: n.socket()}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		peers := make(chan transport.Conn, 1)
		opened := make(chan struct{})
		s := &transport.Server{Handler: func(_ context.Context, in *transport.Incoming) error {
			peers <- in.Conn
			<-opened
			return nil
		}}
		var wg sync.WaitGroup
		wg.Go(func() { s.Serve(context.Background(), l) })
		c := dial(t, &udpx.Transport{Conn: n.socket(), Addr: l.Addr().String()})
		wg.Go(func() {
			peer := <-peers
			n.setDown(true)
			peer.Close()
			time.Sleep(5 * time.Second)
			n.setDown(false)
		})
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = c.Send(ctx, &transport.Image{Body: transport.Bytes(noise(1, 1000))}, nil)
		if !errors.Is(err, transport.ErrPeerClosed) || time.Since(begin) > 15*time.Second {
			t.Errorf("Send ended after %v: %v; want ErrPeerClosed within the time of a keep-alive", time.Since(begin), err)
		}
		close(opened)
		c.Close()
		s.Shutdown(context.Background())
		wg.Wait()
	})
}
