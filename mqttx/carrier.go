package mqttx

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/timers"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// A carrier is one session's place on a hub. It outlives the client's connection: what
// is lost with that the session repairs.
type carrier struct {
	h     *Hub
	peer  string
	topic string // to the peer

	dialled bool
	opening bool    // the mutex of sessions guards it
	first   firstID // of a session that the peer began
	heard   atomic.Bool
	done    chan struct{}

	session *session.Session

	// These are the pump's goroutine's.
	trial trial
	asked time.Time // when the first message left over the present connection

	// The pump's mutex guards these.
	ending  time.Time // when the session has ended
	queued  bool
	running bool
	timer   timers.Timer[*carrier]
}

func (h *Hub) newCarrier(peer string, first *firstID) *carrier {
	c := &carrier{h: h, peer: peer, topic: inboxTopic(peer, h.name), dialled: first == nil, done: make(chan struct{})}
	c.timer.Owner = c
	if first != nil {
		c.first = *first
	}
	return c
}

// Info implements session.Carrier. What a client or a broker brings out of order in spite
// of the standard costs only that it is sent again.
func (c *carrier) Info() session.LinkInfo {
	first, larger := c.h.sizes.begin(time.Now())
	return session.LinkInfo{Protocol: "mqtt", Peer: c.peer, Ordered: true, MaxMessage: first, Sizes: larger}
}

// Start implements session.Carrier.
func (c *carrier) Start(s *session.Session) {
	c.session = s
	if c.h.own != nil {
		s.Apart()
	}
	c.h.sessions.enter(c)
	c.h.pump.add(c)
	if err := c.h.failure(); err != nil { // the hub did not know of it when it failed
		s.Fail(err)
	}
}

// Wake implements session.Carrier.
func (c *carrier) Wake() { c.h.pump.ready(c) }

// Hindrance says why nothing leaves, as session.Carrier has it.
func (c *carrier) Hindrance() error { return c.h.hindrance() }

// Wait implements session.Carrier.
func (c *carrier) Wait() { <-c.done }

// deliver takes a message from the peer. It does not block.
func (c *carrier) deliver(from *session.Buffer, msg []byte) {
	c.heard.Store(true)
	c.session.Deliver(time.Now(), from, msg)
	c.h.pump.ready(c)
}

// poll puts the session's next message into s. It reports false if there is none.
func (c *carrier) poll(s *slot) bool {
	now := time.Now()
	before := c.session.MaxMessage()
	if most := c.h.sizes.largest(); before > most {
		c.session.LimitMessage(most)
		before = c.session.MaxMessage()
	}
	s.size(c.h.sizes.room(before))
	if c.h.own != nil {
		s.Parts = c.session.PollApart(now, s.buf)
	} else {
		s.Parts = session.Parts{Head: s.buf[:c.session.Poll(now, s.buf)]}
	}
	n := s.Len()
	if n == 0 {
		return false
	}
	s.topic = c.topic
	if c.asked.IsZero() {
		c.asked = now
	}
	c.h.sizes.sent(n, now)
	if tooLarge := c.trial.sent(n, before, c.session.MaxMessage(), now); tooLarge > 0 {
		c.h.sizes.refused(tooLarge)
	}
	return true
}

// advance runs the timers.
func (c *carrier) advance() {
	c.session.Advance(time.Now())
	if !c.waits() {
		return
	}
	switch since := c.h.connectedSince(); {
	case since.IsZero():
		c.asked = time.Now()
	case since.After(c.asked):
		c.asked = since
	case time.Since(c.asked) >= c.h.answer:
		c.session.Fail(fmt.Errorf("%q has not answered for %v: %w; if it does, the broker may not let %q write to %s, or read the answer",
			c.peer, c.h.answer, transport.ErrNoReceiver, c.h.name, c.topic))
	}
}

// waits reports whether the peer has been asked for the first time, and has only so long to answer.
func (c *carrier) waits() bool {
	return c.dialled && !c.asked.IsZero() && !c.heard.Load() && c.h.answer > 0
}

// deadline is when advance is to be called.
func (c *carrier) deadline() time.Time {
	due := c.session.Deadline()
	if answer := c.asked.Add(c.h.answer); c.waits() && (due.IsZero() || answer.Before(due)) {
		due = answer
	}
	return due
}

// over is the end of the session: nothing refers to the carrier any more.
func (c *carrier) over() {
	c.h.sessions.leave(c)
	c.h.release()
	close(c.done)
}

// A firstID is what a peer wrote to before it knew the ID of its session here.
type firstID struct {
	peer string
	id   wire.ConnID
}
