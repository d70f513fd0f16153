package udpx

import (
	"container/list"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/timers"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// maxEarly is how many bytes a session takes before its peer has proven its address:
// SPEC.md's early data with headers and some repetition.
const maxEarly = 96 << 10

// After its end a session's last message is repeated to a peer that goes on sending,
// for farewellTime, which is longer than a peer with a transfer is ever silent.
const (
	farewellTime  = 30 * time.Second
	farewellPause = 100 * time.Millisecond
)

// carrier is the place of one session on a socket.
type carrier struct {
	socket *socket
	first  firstID // of a session that the peer began
	over   chan struct{}
	last   bool // set before over is closed: the socket ends with this carrier

	ending bool // the writer's: the session has ended and said its last

	// hindrance is why the system has not sent something since the peer was heard last; nil: it has sent all.
	hindrance atomic.Pointer[error]

	// The reader's.
	key      addrKey // of peer
	proved   bool    // the peer has the address that it claims
	early    int     // bytes from it before
	repeated time.Time

	// Guarded by the socket's mutex.
	peer     net.Addr
	id       wire.ConnID
	remote   wire.ConnID      // what the session's messages go to
	session  *session.Session // from Start until it has ended
	farewell []byte           // its last message, for a peer that has not heard it
	unproven *list.Element    // in the table of those, nil for others
	begun    time.Time        // while unproven
	queued   bool
	timer    timers.Timer[*carrier]
}

// newCarrier takes over a reference to the socket. This side begins the session unless
// first is set.
func (s *socket) newCarrier(peer net.Addr, first firstID) *carrier {
	c := &carrier{
		socket: s, peer: peer, key: keyOf(peer), first: first, proved: first == firstID{},
		over: make(chan struct{}),
	}
	c.timer.Owner = c
	return c
}

// Info implements session.Carrier.
func (c *carrier) Info() session.LinkInfo {
	c.socket.mu.Lock()
	defer c.socket.mu.Unlock()
	return session.LinkInfo{
		Protocol: "udp", Peer: c.peer.String(),
		MaxMessage: wire.InitialMessage, Sizes: c.socket.sizes,
	}
}

// Start implements session.Carrier.
func (c *carrier) Start(s *session.Session) {
	evicted, err := c.socket.add(c, s)
	if evicted != nil {
		evicted.Fail(errEvicted)
	}
	if err != nil {
		s.Fail(err)
	}
	c.socket.signal()
}

// Wake implements session.Carrier.
func (c *carrier) Wake() {
	c.socket.later(c)
	c.socket.writer.help()
}

// Wait implements session.Carrier.
func (c *carrier) Wait() {
	<-c.over
	if c.last {
		<-c.socket.done
	}
}

// Hindrance says why nothing leaves, as session.Carrier has it.
func (c *carrier) Hindrance() error {
	if err := c.hindrance.Load(); err != nil {
		return *err
	}
	return nil
}

// Unproven is how many peers have not proven their addresses, as session.Carrier has it.
func (c *carrier) Unproven() int {
	c.socket.mu.Lock()
	defer c.socket.mu.Unlock()
	return c.socket.sessions.unproven.Len()
}

// provingTime is how long a peer has to prove its address.
const provingTime = 10 * time.Second

var errUnproven = fmt.Errorf("the peer did not prove its address: %w", transport.ErrNoReceiver) // as it hears nothing, or is false

var errEvicted error = &transport.RejectedError{Reason: transport.ReasonBusy, Retryable: true,
	Text: "too many peers begin at the same time: try again"}
