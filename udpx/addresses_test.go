package udpx_test

import (
	"bytes"
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// TestAddressChanges gives the sender a new port every second, as a NAT may do.
func TestAddressChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1, path{Delay: 20 * time.Millisecond, Rate: 2 << 20, Queue: 128 << 10, Loss: 0.01})
		store := &transport.MemStore{}
		addr, _ := serve(t, &udpx.Transport{Conn: n.socket()}, store)
		device := n.socket()
		c := dial(t, &udpx.Transport{Conn: device, Addr: addr.String()})
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-time.After(time.Second):
					n.rebind(device)
				case <-stop:
					return
				}
			}
		}()
		b := noise(1, 10<<20)
		begin := time.Now()
		r, err := c.Send(t.Context(), &transport.Image{Name: "a", Body: transport.Bytes(b)}, nil)
		close(stop)
		if err != nil {
			t.Fatal(err)
		}
		kept(t, store, "a", b)
		if took := time.Since(begin); took > 9*time.Second {
			t.Errorf("it took %v; want little more than 5 s", took)
		}
		if r.Resent > 2<<20 {
			t.Errorf("%d bytes were sent again", r.Resent)
		}
		c.Close()
	})
}

// diverted is a socket whose datagrams leave from the victim's address once there is one.
type diverted struct {
	*node
	victim atomic.Pointer[node]
}

func (d *diverted) WriteTo(p []byte, to net.Addr) (int, error) {
	if v := d.victim.Load(); v != nil {
		return v.WriteTo(p, to)
	}
	return d.node.WriteTo(p, to)
}

// firstOf keeps the first datagram that leaves a socket.
type firstOf struct {
	*node
	first []byte
}

func (f *firstOf) WriteTo(p []byte, to net.Addr) (int, error) {
	if f.first == nil {
		f.first = bytes.Clone(p)
	}
	return f.node.WriteTo(p, to)
}

// TestSessionIsForgotten repeats what began a session long after that is over: nothing is left of it.
func TestSessionIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1, path{Delay: 20 * time.Millisecond})
		l, err := (&udpx.Transport{Conn: n.socket()}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		device := &firstOf{node: n.socket()}
		dial(t, &udpx.Transport{Conn: device, Addr: l.Addr().String()}).Close()
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			c, err := l.Accept(ctx)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			time.Sleep(time.Minute)
			n.socketAt(device.addr).WriteTo(device.first, l.Addr())
		}
	})
}

// notFlooded checks that a node has got no more than three times what came from it.
func notFlooded(t *testing.T, victim *node) {
	t.Helper()
	_, from := victim.sent()
	to := 0
	victim.mu.Lock()
	defer victim.mu.Unlock()
	for _, d := range victim.queue {
		to += len(d.data)
	}
	if to == 0 || to > 3*from {
		t.Errorf("the victim got %d bytes for %d", to, from)
	}
}

// TestVictimOfAHello has somebody begin a session in the name of another host, which is to get an image at once.
func TestVictimOfAHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1, path{Delay: 20 * time.Millisecond})
		l, err := (&udpx.Transport{Conn: n.socket()}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		device, victim := &diverted{node: n.socket()}, n.socket()
		device.victim.Store(victim)
		go (&udpx.Transport{Conn: device, Addr: l.Addr().String()}).Dial(ctx)
		sender, err := l.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sender.Send(ctx, &transport.Image{Body: transport.Bytes(noise(1, 1<<20))}, nil); err == nil {
			t.Error("the image was kept")
		}
		notFlooded(t, victim)
		sender.Close()
		l.Close()
	})
}

// TestVictimOfAMove has somebody on the way give the datagrams of an image's receiver the address of another host,
// which gets no more than three times what came from there.
func TestVictimOfAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1, path{Delay: 20 * time.Millisecond, Rate: 20 << 20, Queue: 512 << 10})
		l, err := (&udpx.Transport{Conn: n.socket()}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		device, victim := &diverted{node: n.socket()}, n.socket()
		c := dial(t, &udpx.Transport{Conn: device, Addr: l.Addr().String()})
		go (&transport.Server{Store: &transport.MemStore{}}).ServeConn(t.Context(), c)
		sender, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(200*time.Millisecond, func() { device.victim.Store(victim) })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := sender.Send(ctx, &transport.Image{Body: transport.Bytes(noise(1, 8<<20))}, nil); err == nil {
			t.Error("the image was kept")
		}
		notFlooded(t, victim)
		sender.Close()
		l.Close()
	})
}

// TestHostChanges has the receiver of an image move to a slower network, with smaller
// datagrams, in mid-transfer.
func TestHostChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1, path{Delay: 5 * time.Millisecond, Rate: 20 << 20, Queue: 512 << 10})
		l, err := (&udpx.Transport{Conn: n.socket()}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		device, store := n.socket(), &transport.MemStore{}
		c := dial(t, &udpx.Transport{Conn: device, Addr: l.Addr().String()})
		s := &transport.Server{Store: store}
		served := make(chan error, 1)
		go func() { served <- s.ServeConn(context.Background(), c) }()
		sender, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slow := path{Delay: 100 * time.Millisecond, Rate: 1 << 20, Queue: 200 << 10, MTU: 1300}
		time.AfterFunc(200*time.Millisecond, func() { n.move(device, slow) })
		b := noise(1, 8<<20)
		begin := time.Now()
		r, err := sender.Send(t.Context(), &transport.Image{Name: "a", Body: transport.Bytes(b)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		kept(t, store, "a", b)
		if took := time.Since(begin); took > 8*time.Second || r.Resent > 2<<20 {
			t.Errorf("it took %v, %d bytes were sent again", took, r.Resent)
		}
		sender.Close()
		<-served
		l.Close()
	})
}
