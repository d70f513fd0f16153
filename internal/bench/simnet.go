package main

import (
	"container/heap"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pixferry/pixferry/internal/arq/sim"
)

// simSocket is one of two sockets that are joined by simulated links. In a testing/synctest
// bubble their time is virtual. What is on its way lies in the receiver's inbox, with the time at
// which it may be read.
type simSocket struct {
	addr *net.UDPAddr
	peer *simSocket
	out  *sim.Link

	mu       *sync.Mutex // of both
	inbox    arrivals
	order    int
	deadline time.Time
	closed   bool
	changed  chan struct{} // closed after a change of the above
}

// newSimSockets returns sockets whose first one sends over there and reads what comes back.
func newSimSockets(there, back sim.Config, seed uint64) [2]*simSocket {
	var s [2]*simSocket
	mu := new(sync.Mutex)
	for i, cfg := range []sim.Config{there, back} {
		s[i] = &simSocket{
			addr: &net.UDPAddr{IP: net.IPv4(10, 0, 0, byte(1+i)), Port: 9000},
			out:  sim.NewLink(cfg, rand.New(rand.NewPCG(seed, uint64(i)))),
			mu:   mu, changed: make(chan struct{}),
		}
	}
	s[0].peer, s[1].peer = s[1], s[0]
	return s
}

// arrival is a datagram on its way.
type arrival struct {
	at    time.Time
	order int
	data  []byte
}

type arrivals []arrival

func (a arrivals) Len() int      { return len(a) }
func (a arrivals) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a arrivals) Less(i, j int) bool {
	return a[i].at.Before(a[j].at) || a[i].at.Equal(a[j].at) && a[i].order < a[j].order
}
func (a *arrivals) Push(v any) { *a = append(*a, v.(arrival)) }
func (a *arrivals) Pop() any {
	last := len(*a) - 1
	v := (*a)[last]
	(*a)[last] = arrival{}
	*a = (*a)[:last]
	return v
}

// change wakes whoever reads. The mutex is held.
func (s *simSocket) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *simSocket) WriteTo(p []byte, _ net.Addr) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	var deliveries [2]sim.Delivery
	for _, d := range s.out.Transmit(time.Now(), len(p), deliveries[:0]) {
		s.peer.order++
		heap.Push(&s.peer.inbox, arrival{d.At, s.peer.order, append([]byte(nil), p...)})
		if s.peer.inbox[0].order == s.peer.order {
			s.peer.change()
		}
	}
	return len(p), nil
}

func (s *simSocket) ReadFrom(p []byte) (int, net.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		now := time.Now()
		var wake <-chan time.Time
		switch {
		case s.closed:
			return 0, nil, net.ErrClosed
		case !s.deadline.IsZero() && !now.Before(s.deadline):
			return 0, nil, os.ErrDeadlineExceeded
		case len(s.inbox) > 0 && !s.inbox[0].at.After(now):
			return copy(p, heap.Pop(&s.inbox).(arrival).data), s.peer.addr, nil
		}
		if next := s.next(); !next.IsZero() {
			timer := time.NewTimer(next.Sub(now))
			defer timer.Stop()
			wake = timer.C
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-wake:
		}
		s.mu.Lock()
	}
}

// next is when there will be something to read, or the deadline; zero: not known.
func (s *simSocket) next() time.Time {
	at := s.deadline
	if len(s.inbox) > 0 && (at.IsZero() || s.inbox[0].at.Before(at)) {
		at = s.inbox[0].at
	}
	return at
}

// link changes the link out.
func (s *simSocket) link(f func(*sim.Link)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.out)
}

// sent is how many bytes were written.
func (s *simSocket) sent() (n int64) {
	s.link(func(l *sim.Link) { n = l.Stats.SentBytes })
	return n
}

func (s *simSocket) LocalAddr() net.Addr { return s.addr }

func (s *simSocket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	s.change()
	return nil
}

func (s *simSocket) SetDeadline(t time.Time) error    { return s.SetReadDeadline(t) }
func (s *simSocket) SetWriteDeadline(time.Time) error { return nil }

func (s *simSocket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.change()
	}
	return nil
}
