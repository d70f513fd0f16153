package udpx

import (
	"container/list"
	"errors"
	"net"
	"time"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/wire"
)

// maxEarly is how many bytes a session takes before its peer has proven its address:
// SPEC.md's early data with headers and some repetition.
const maxEarly = 96 << 10

// carrier is the place of one session on a socket.
type carrier struct {
	socket *socket
	peer   net.Addr
	key    addrKey
	first  firstID // of a session that the peer began
	over   chan struct{}
	last   bool // set before over is closed: the socket ends with this carrier

	session *session.Session // set by Start

	// The reader's.
	proved bool // the peer has the address that it claims
	early  int  // bytes from it before

	// Guarded by the socket's mutex.
	unproven *list.Element
	remote   wire.ConnID // what the session's messages go to
	queued   bool
	released bool      // the session has ended; it only answers a peer that has not heard
	due      time.Time // while timer >= 0
	timer    int       // index in the heap
}

// newCarrier takes over a reference to the socket. This side begins the session unless
// first is set.
func (s *socket) newCarrier(peer net.Addr, first firstID) *carrier {
	return &carrier{
		socket: s, peer: peer, key: keyOf(peer), first: first, proved: first == firstID{},
		over: make(chan struct{}), timer: -1,
	}
}

// Info implements session.Carrier.
func (c *carrier) Info() session.LinkInfo {
	return session.LinkInfo{
		Protocol: "udp", Peer: c.peer.String(),
		MaxMessage: wire.InitialMessage, Sizes: c.socket.sizes,
	}
}

// Start implements session.Carrier.
func (c *carrier) Start(s *session.Session) {
	if evicted := c.socket.add(c, s); evicted != nil {
		evicted.session.Fail(errEvicted)
	}
}

// Wake implements session.Carrier.
func (c *carrier) Wake() {
	c.socket.mu.Lock()
	c.socket.enqueue(c)
	c.socket.mu.Unlock()
}

// Wait implements session.Carrier.
func (c *carrier) Wait() {
	<-c.over
	if c.last {
		<-c.socket.done
	}
}

var errEvicted = errors.New("udpx: too many peers at once that have not proven their address")
