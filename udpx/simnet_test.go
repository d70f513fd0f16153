package udpx_test

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// path is what happens to datagrams between two nodes, in either direction.
type path struct {
	Delay     time.Duration // one way
	Jitter    time.Duration // at most so much more: datagrams overtake each other
	Rate      int           // bytes a second; 0: no limit
	Queue     int           // bytes that wait for the rate; more are lost
	MTU       int           // larger datagrams are lost; 0: 65,507
	Loss      float64
	Duplicate float64
	Corrupt   float64
}

// network is a simulated network of nodes. It may be used inside a testing/synctest
// bubble, and should be.
type network struct {
	mu    sync.Mutex
	path  path
	rand  *rand.Rand
	nodes map[netip.AddrPort]*node
	ports uint16
	down  bool // nothing arrives
}

func newNetwork(t testing.TB, seed uint64, p path) *network {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d, path %+v", seed, p)
		}
	})
	return &network{path: p, rand: rand.New(rand.NewPCG(seed, 1)), nodes: make(map[netip.AddrPort]*node)}
}

// node is one socket of the network.
type node struct {
	net  *network
	addr netip.AddrPort

	mu       sync.Mutex
	queue    []datagram
	free     time.Time // when the link out is free
	deadline time.Time
	changed  chan struct{} // closed when something above has
	closed   bool
	writes   int // datagrams
	bytes    int // written
}

type datagram struct {
	data []byte
	from netip.AddrPort
}

// socket returns a new node with an address of its own.
func (n *network) socket() *node {
	n.mu.Lock()
	n.ports++
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n.ports >> 8), byte(n.ports)}), 9000)
	n.mu.Unlock()
	return n.socketAt(addr)
}

// socketAt returns a new node with an address.
func (n *network) socketAt(addr netip.AddrPort) *node {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := &node{net: n, addr: addr, changed: make(chan struct{})}
	n.nodes[addr] = s
	return s
}

// rebind gives the node a new port; what goes to the old one is lost.
func (n *network) rebind(s *node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(n.nodes, s.addr)
	s.addr = netip.AddrPortFrom(s.addr.Addr(), s.addr.Port()+1)
	n.nodes[s.addr] = s
}

// move gives the node a new host, reached over another path.
func (n *network) move(s *node, p path) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(n.nodes, s.addr)
	s.addr = netip.AddrPortFrom(s.addr.Addr().Next(), s.addr.Port())
	n.nodes[s.addr] = s
	n.path = p
}

// setDown makes the network lose all, or not.
func (n *network) setDown(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}

func (s *node) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *node) ReadFrom(p []byte) (int, net.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var late <-chan time.Time
		if !s.deadline.IsZero() {
			t := time.NewTimer(time.Until(s.deadline))
			defer t.Stop()
			late = t.C
		}
		switch {
		case s.closed:
			return 0, nil, net.ErrClosed
		case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
			return 0, nil, os.ErrDeadlineExceeded
		case len(s.queue) > 0:
			d := s.queue[0]
			s.queue = s.queue[1:]
			return copy(p, d.data), net.UDPAddrFromAddrPort(d.from), nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-late:
		}
		s.mu.Lock()
	}
}

func (s *node) WriteTo(p []byte, to net.Addr) (int, error) {
	n := s.net
	n.mu.Lock()
	defer n.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	s.writes++
	s.bytes += len(p)
	w := &n.path
	lost, twice, corrupt := n.rand.Float64() < w.Loss, n.rand.Float64() < w.Duplicate, n.rand.Float64() < w.Corrupt
	delay := w.Delay
	if w.Rate > 0 {
		now := time.Now()
		start := now
		if s.free.After(now) {
			start = s.free
		}
		if w.Queue > 0 && int(start.Sub(now).Seconds()*float64(w.Rate)) > w.Queue {
			return len(p), nil
		}
		s.free = start.Add(time.Duration(len(p)) * time.Second / time.Duration(w.Rate))
		delay += s.free.Sub(now)
	}
	if lost || n.down || w.MTU > 0 && len(p) > w.MTU {
		return len(p), nil
	}
	data := slices.Clone(p)
	if corrupt {
		data[n.rand.IntN(len(data))] ^= 1 << n.rand.IntN(8)
	}
	n.deliver(s.addr, to, data, delay)
	if twice {
		n.deliver(s.addr, to, data, delay)
	}
	return len(p), nil
}

func (n *network) deliver(from netip.AddrPort, to net.Addr, data []byte, delay time.Duration) {
	if j := n.path.Jitter; j > 0 {
		delay += time.Duration(n.rand.Int64N(int64(j)))
	}
	addr := to.(*net.UDPAddr).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	time.AfterFunc(delay, func() {
		n.mu.Lock()
		s := n.nodes[addr]
		n.mu.Unlock()
		if s == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.queue = append(s.queue, datagram{data, from})
		s.change()
	})
}

func (s *node) LocalAddr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return net.UDPAddrFromAddrPort(s.addr)
}

func (s *node) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	s.change()
	return nil
}

func (s *node) SetDeadline(t time.Time) error    { return s.SetReadDeadline(t) }
func (s *node) SetWriteDeadline(time.Time) error { return nil }

func (s *node) Close() error {
	s.net.mu.Lock()
	if s.net.nodes[s.addr] == s {
		delete(s.net.nodes, s.addr)
	}
	s.net.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.change()
	}
	return nil
}

// sent returns how many datagrams and bytes were written.
func (s *node) sent() (datagrams, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes, s.bytes
}
