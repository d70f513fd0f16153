package udpx

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

const (
	// maxRead is how many packets are read at once while there are many, and maxMemory how
	// much memory they may have.
	maxRead   = 64
	maxMemory = 1 << 19
	// lightReads is after how many reads that give few packets fewer are read at once.
	lightReads = 64
	// maxFailures is how many reads in a row may fail before the socket counts as
	// broken: single failures are answers to what was sent.
	maxFailures = 100
)

// reader is the goroutine that reads packets and delivers their messages.
type reader struct {
	*socket
	packets  []udpsock.Packet
	memory   []*session.Buffer // of packets; none while the reader waits
	size     int               // of a packet
	most     int               // packets
	light    int               // reads that gave few packets, in a row
	failures int
	refusals session.Refusals

	// The messages to deliver to one session at once.
	to      *carrier
	session *session.Session
	run     [][]byte
}

func (s *socket) runReader() {
	defer close(s.read)
	r := &reader{socket: s, size: max(s.largest(), wire.InitialMessage)}
	if s.conn.Joins() {
		r.size = udpsock.ReadSize
	}
	r.most = min(maxRead, maxMemory/r.size)
	r.grow(1)
	for {
		n, err := r.next()
		if err != nil {
			if r.failed(err) {
				return
			}
			continue
		}
		r.failures = 0
		r.dispatch(r.packets[:n], time.Now())
		r.writer.help()
		r.adapt(n)
	}
}

// next reads packets. It waits for them without memory: of many sockets most are idle.
func (r *reader) next() (int, error) {
	if err := r.conn.Await(r.letGo); err != nil {
		return 0, err
	}
	var free []byte
	used := 0
	for i := range r.packets {
		if len(free) < r.size {
			if used == len(r.memory) {
				r.memory = append(r.memory, session.NewBuffer(min(r.size*(len(r.packets)-i), udpsock.ReadSize)))
			}
			free, used = r.memory[used].Bytes(), used+1
		}
		r.packets[i] = udpsock.Packet{Data: free[:r.size]}
		free = free[r.size:]
	}
	return r.conn.Read(r.packets)
}

func (r *reader) letGo() {
	for _, b := range r.memory {
		b.Release()
	}
	clear(r.memory)
	r.memory = r.memory[:0]
	clear(r.packets[:cap(r.packets)]) // they hold it too
}

// adapt follows the traffic: a socket with little reads few packets at once.
func (r *reader) adapt(n int) {
	size := len(r.packets)
	if n > size/4 {
		r.light = 0
	}
	switch r.light++; {
	case n == size:
		r.grow(min(2*size, r.most))
	case r.light == lightReads:
		r.light = 0
		r.grow((size + 1) / 2)
	}
}

// grow changes how many packets are read at once.
func (r *reader) grow(n int) { r.packets = slices.Grow(r.packets[:0], n)[:n] }

// failed handles an error of a read and reports whether the reader is to end.
func (r *reader) failed(err error) bool {
	if r.ending() {
		return true
	}
	r.failures++
	switch {
	case errors.Is(err, net.ErrClosed) || r.failures > maxFailures:
		r.fail(fmt.Errorf("the UDP socket at %v has failed: %w", r.conn.LocalAddr(), err))
		return true
	case udpsock.Refused(err) && r.conn.Connected():
		r.failSessions(refusedError(err))
	case r.conn.Connected():
		r.hinder(err)
	}
	return false
}

// hinder notes for the session of a connected socket what the system says about what was sent, such as that there
// is no way to the peer.
func (s *socket) hinder(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sessions.byID {
		c.hindrance.Store(&err)
	}
}

// refusedError is the end of a session whose peer's host says that its port is closed.
func refusedError(err error) error { return fmt.Errorf("%w (%w)", transport.ErrNoReceiver, err) }

// dispatch delivers the messages of packets that arrived together, in as few calls as
// can be.
func (r *reader) dispatch(packets []udpsock.Packet, now time.Time) {
	var from addrKey
	var lastID wire.ConnID
	for i := range packets {
		p := &packets[i]
		if p.Addr == nil {
			continue // nobody to answer
		}
		if key := keyOf(p.Addr); key != from {
			r.deliver(now)
			from = key
		}
		for msg := range p.Segments {
			id, long, ok := wire.PeekDest(msg)
			if !ok {
				continue
			}
			if r.to == nil || id != lastID {
				r.deliver(now)
				r.to, r.session = r.find(id, long, from)
				lastID = id
			}
			switch {
			case r.to == nil:
				r.stranger(p.Addr, from, msg, now)
			case r.session == nil:
				r.farewell(r.to, now)
			case !r.takes(r.to, long, from, len(msg)):
			case from != r.to.key && !r.conn.Connected():
				r.moved(p.Addr, from, msg, now)
			default:
				r.run = append(r.run, msg)
			}
		}
	}
	r.deliver(now)
}

// deliver gives the collected messages to their session.
func (r *reader) deliver(now time.Time) {
	if len(r.run) > 0 {
		if r.to.hindrance.Load() != nil {
			r.to.hindrance.Store(nil)
		}
		r.session.Deliver(now, nil, r.run...)
		r.later(r.to)
	}
	clear(r.run)
	r.to, r.session, r.run = nil, nil, r.run[:0]
}

// moved delivers a message from another address than the session's. If the session
// believes it, that is its address from now on.
func (r *reader) moved(to net.Addr, key addrKey, msg []byte, now time.Time) {
	if r.session.DeliverMoved(now, msg, !key.sameHost(r.to.key)) {
		r.mu.Lock()
		r.to.peer = to
		r.mu.Unlock()
		r.to.key = key
	}
	r.later(r.to)
}

// farewell tells a peer again that the session is over.
func (r *reader) farewell(c *carrier, now time.Time) {
	if now.Sub(c.repeated) >= farewellPause {
		c.repeated = now
		r.mu.Lock()
		peer := c.peer
		r.mu.Unlock()
		r.answer(c.farewell, peer)
	}
}

// takes reports whether a session takes a message. From a peer that has not proven its
// address, by using the ID that was sent there, it takes little.
func (r *reader) takes(c *carrier, long bool, from addrKey, size int) bool {
	if c.proved {
		return true
	}
	if !long && from == c.key {
		c.proved = true
		r.mu.Lock()
		r.proven(c)
		r.mu.Unlock()
		return true
	}
	c.early += size
	return c.early <= maxEarly
}
