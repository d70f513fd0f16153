package udpx_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// A sender that has been silent is forgotten, and is welcome again.
func TestForget(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		var open atomic.Int32
		l, err := (&udpx.Header{Socket: n.sockets, Forget: 5 * time.Second}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		srv := &transport.Server{Store: &transport.MemStore{}, Hooks: transport.Hooks{
			ConnOpened: func(transport.Info) { open.Add(1) },
			ConnClosed: func(_ transport.Info, err error) {
				open.Add(-1)
				if err != nil {
					t.Errorf("the Conn of a silent sender ended with %v", err)
				}
			},
		}}
		go srv.Serve(t.Context(), l)
		c := fieldCamera{PacketConn: n.socket(), to: l.Addr()}
		for range 3 {
			for range 3 {
				if answer := c.send(photo[:5000]); answer != "get message!!!" {
					t.Error(answer)
				}
				time.Sleep(4 * time.Second)
				if open.Load() != 1 {
					t.Errorf("%d Conns of one sender", open.Load())
				}
			}
			time.Sleep(2 * time.Second)
			if open.Load() != 0 {
				t.Error("a silent sender is not forgotten")
			}
		}
		srv.Shutdown(t.Context())
	})
}

// Senders without an image on its way make room for others; those with one do not.
func TestMaxPeers(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets, MaxPeers: 3})
		cameras := make([]fieldCamera, 6)
		for i := range cameras {
			cameras[i] = fieldCamera{PacketConn: n.socket(), to: addrs[0]}
			if answer := cameras[i].send(photo[:5000]); answer != "get message!!!" {
				t.Errorf("camera %d: %q", i, answer)
			}
			got.image(t, photo[:5000])
		}
		for _, c := range cameras[:3] {
			c.WriteTo(c.header(3000), c.to)
			c.WriteTo(photo[:1024], c.to)
			time.Sleep(10 * time.Millisecond)
		}
		cameras[5].WriteTo(cameras[5].header(5), cameras[5].to)
		cameras[5].SetReadDeadline(time.Now().Add(time.Second))
		if answer := cameras[5].answer(); answer == "bad image" || answer == "get message!!!" {
			t.Errorf("one more than MaxPeers was heard: %q", answer)
		}
		cameras[5].SetReadDeadline(time.Time{})
		for i, c := range cameras[:3] {
			c.WriteTo(photo[1024:2048], c.to)
			c.WriteTo(photo[2048:3000], c.to)
			if answer := c.answer(); answer != "get message!!!" {
				t.Errorf("camera %d, which was in the middle of an image: %q", i, answer)
			}
			got.image(t, photo[:3000])
		}
		if answer := cameras[5].send(photo[:5000]); answer != "get message!!!" {
			t.Errorf("when there is room again: %q", answer)
		}
	})
}

// Who has been silent for the longest time makes room for another one.
func TestMaxPeersOpen(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		var open, opened atomic.Int32
		l, err := (&udpx.Header{Socket: n.sockets, MaxPeers: 3}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		srv := &transport.Server{Store: &transport.MemStore{}, Hooks: transport.Hooks{
			ConnOpened: func(transport.Info) { open.Add(1); opened.Add(1) },
			ConnClosed: func(transport.Info, error) { open.Add(-1) },
		}}
		go srv.Serve(t.Context(), l)
		busy := fieldCamera{PacketConn: n.socket(), to: l.Addr()}
		for range 5 {
			for _, c := range []fieldCamera{{PacketConn: n.socket(), to: l.Addr()}, busy} {
				if answer := c.send(photo[:5000]); answer != "get message!!!" {
					t.Error(answer)
				}
				time.Sleep(time.Second)
			}
		}
		if open.Load() != 3 || opened.Load() != 6 {
			t.Errorf("%d Conns of %d, want 3 of 6", open.Load(), opened.Load())
		}
		srv.Shutdown(t.Context())
	})
}

// Receivers never answer answers, which would go on for ever.
func TestReceiversAnswerNoAnswers(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		var nodes []*node
		sockets := func(context.Context) (net.PacketConn, error) {
			nodes = append(nodes, n.socket())
			return nodes[len(nodes)-1], nil
		}
		got, addrs := serveDevices(t, &udpx.Datagram{Socket: sockets}, &udpx.Header{Socket: sockets}, &udpx.JSON{Socket: sockets})
		for _, s := range nodes {
			for _, to := range addrs {
				for _, d := range []string{"get message!!!", "bad image", "get the msg", "error: x", "noise"} {
					s.WriteTo([]byte(d), to) // in the name of another receiver
					time.Sleep(5 * time.Second)
				}
			}
		}
		for len(got.images) > 0 {
			if b := <-got.images; string(b) != "noise" {
				t.Errorf("the answer %q is an image", b)
			}
		}
		for _, s := range nodes {
			if sent, _ := s.sent(); sent > 15+9 {
				t.Errorf("%d datagrams from one of three receivers", sent)
			}
		}
	})
}

// Peers that nobody serves take a bounded amount of memory, each and together, and another one is served. Later they are
// served again.
func TestFlood(t *testing.T) {
	const size, mostPeer, most = 60_000, 8 << 20, 64 << 20
	deviceBubble(t, func(t *testing.T, n *network) {
		hold := make(chan struct{})
		l, err := (&udpx.Datagram{Socket: n.sockets}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		images := make(map[string]int)
		srv := &transport.Server{Handler: func(_ context.Context, in *transport.Incoming) error {
			if in.Size > 1 {
				mu.Lock()
				images[in.Peer]++
				mu.Unlock()
				<-hold
			}
			return nil
		}}
		go srv.Serve(t.Context(), l)
		floods := make([]*node, 9)
		for i := range floods {
			floods[i] = n.socket()
			for range 200 {
				floods[i].WriteTo(photo[:size], l.Addr())
			}
			time.Sleep(10 * time.Second)
		}
		other := fieldCamera{PacketConn: n.socket()}
		other.WriteTo([]byte{1}, l.Addr())
		if answer := other.answer(); answer != "get message!!!" {
			t.Errorf("beside a flood: %q", answer)
		}
		close(hold)
		time.Sleep(time.Second)
		mu.Lock()
		all := 0
		for peer, n := range images {
			if all += n; n > mostPeer/size+1 {
				t.Errorf("%d images of %d bytes from %s were held in memory; 8 MiB are allowed", n, size, peer)
			}
		}
		if all < 1000 || all > most/size+len(floods) {
			t.Errorf("%d images of %d bytes were held in memory; 64 MiB are allowed", all, size)
		}
		clear(images)
		mu.Unlock()
		for _, s := range floods {
			s.WriteTo(photo[:size], l.Addr())
		}
		time.Sleep(time.Second)
		srv.Shutdown(t.Context())
		if len(images) != len(floods) {
			t.Errorf("%d of %d are served after the flood", len(images), len(floods))
		}
	})
}

// A Conn that was accepted lives on after the Listener, and the socket goes with it.
func TestSocketLifetime(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		var s *node
		l, err := (&udpx.Datagram{Socket: func(context.Context) (net.PacketConn, error) {
			s = n.socket()
			return s, nil
		}}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		camera, late := n.socket(), n.socket()
		camera.WriteTo([]byte{1}, l.Addr())
		c, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info := c.Info(); info.Peer != camera.LocalAddr().String() || info.Protocol != "udp+datagram" {
			t.Errorf("%+v", info)
		}
		l.Close()
		late.WriteTo([]byte{1}, s.LocalAddr())
		time.Sleep(time.Second)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := s.WriteTo(nil, camera.LocalAddr()); err != nil {
			t.Errorf("the socket is closed before the Conn: %v", err)
		}
		c.Close()
		c.Close()
		if _, err := s.WriteTo(nil, camera.LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the socket outlives the Conn: %v", err)
		}
	})
}

// When the socket fails, everything ends with its error.
func TestSocketFails(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		s := n.socket()
		l, err := (&udpx.Header{Socket: func(context.Context) (net.PacketConn, error) { return s, nil }}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		srv := &transport.Server{Store: &transport.MemStore{}}
		ended := make(chan error, 2)
		srv.Hooks.ConnClosed = func(_ transport.Info, err error) { ended <- err }
		go func() { ended <- srv.Serve(t.Context(), l) }()
		camera := fieldCamera{PacketConn: n.socket(), to: s.LocalAddr()}
		camera.send(photo[:100])
		s.Close()
		for range 2 {
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
		srv.Shutdown(t.Context())
	})
}

// broken is a socket that cannot be read.
type broken struct{ *node }

var errBroken = errors.New("broken")

func (broken) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, errBroken }

// A socket whose reads all fail is not read for ever, and whoever has it hears of that: at once, or later.
func TestSocketIsBroken(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		s := broken{n.socket()}
		listen := func(tr transport.Transport) error {
			l, err := tr.Listen(t.Context())
			if err == nil {
				_, err = l.Accept(t.Context())
				l.Close()
			}
			return err
		}
		if err := listen(&udpx.Header{Socket: func(context.Context) (net.PacketConn, error) { return s, nil }}); !errors.Is(err, errBroken) {
			t.Errorf("Header: %v", err)
		}
		for range 20 { // its reader and its user begin together
			if err := listen(&udpx.Transport{Conn: s}); !errors.Is(err, errBroken) {
				t.Fatalf("Listen and Accept: %v", err)
			}
			if _, err := (&udpx.Transport{Conn: s, Addr: "10.9.9.9:9"}).Dial(t.Context()); !errors.Is(err, errBroken) {
				t.Fatalf("Dial: %v", err)
			}
		}
	})
}
