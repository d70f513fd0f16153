package arq

import (
	"sync"
	"time"
)

type state uint8

const (
	resolved    state = iota // acknowledged, or needs no acknowledgement
	outstanding              // sent and neither acknowledged nor believed lost
	lost                     // believed lost; remembered for a while in case it was late
)

// sentMessage is what is remembered of a message.
type sentMessage struct {
	at     time.Duration
	state  state
	probe  bool  // of a larger size
	padded bool  // its padding is decided
	size   int32 // of the whole message

	// DATA, if from is not nil.
	from   *outgoing
	offset int64
	length int32

	ackLargest int64 // the newest number that the ACK aboard acknowledges; -1: none
	facts      []*control

	// The connection as the message left it, for the delivery rate.
	prior       int64 // bytes in flight before it
	delivered   int64
	deliveredAt time.Duration
	firstSentAt time.Duration
	appLimited  bool
}

// sentRing holds the messages with numbers from base to next, in a ring that grows.
type sentRing struct {
	buf        []sentMessage // length is a power of two
	base, next int64
	oldest     int64 // no message before it is outstanding
}

// Rings begin small, for sessions that say little. The next size is shared by sessions: an image
// needs it for a moment.
const (
	minRing    = 8
	sharedRing = 128
)

var sharedRings = sync.Pool{New: func() any { return new([sharedRing]sentMessage) }}

// push adds the message with number next. Its facts are empty, the rest is what an
// older message left.
func (r *sentRing) push() *sentMessage {
	if r.next-r.base == int64(len(r.buf)) {
		r.trim(0) // one's own ACKs, for which no ACK comes
	}
	if r.next-r.base == int64(len(r.buf)) {
		r.grow()
	}
	m := r.at(r.next)
	r.next++
	m.facts = m.facts[:0]
	return m
}

func (r *sentRing) grow() {
	old := *r
	switch n := len(old.buf); n {
	case 0:
		r.buf = make([]sentMessage, minRing)
	case minRing:
		r.buf = sharedRings.Get().(*[sharedRing]sentMessage)[:]
	default:
		r.buf = make([]sentMessage, 2*n)
	}
	for n := r.base; n < r.next; n++ {
		*r.at(n) = *old.at(n)
	}
	old.free()
}

func (r *sentRing) free() {
	if len(r.buf) == sharedRing {
		clear(r.buf)
		sharedRings.Put((*[sharedRing]sentMessage)(r.buf))
	}
	r.buf = nil
}

// at returns a message that is in the ring.
func (r *sentRing) at(number int64) *sentMessage { return &r.buf[number&int64(len(r.buf)-1)] }

// firstOutstanding returns the number of the oldest outstanding message, next if there is none.
func (r *sentRing) firstOutstanding() int64 {
	for r.oldest < r.next && r.at(r.oldest).state != outstanding {
		r.oldest++
	}
	return r.oldest
}

// trim forgets messages from the old end: resolved ones, and lost ones sent before a time.
func (r *sentRing) trim(before time.Duration) {
	for r.base < r.next {
		m := r.at(r.base)
		if m.state == outstanding || m.state == lost && m.at > before {
			break
		}
		m.from = nil
		r.base++
	}
	r.oldest = max(r.oldest, r.base)
}

// shrink gives memory back when the ring is empty.
func (r *sentRing) shrink() {
	if r.base == r.next && len(r.buf) > minRing {
		r.free()
	}
}

// clear forgets every message; next is the number of the next.
func (r *sentRing) clear(next int64) { *r = sentRing{base: next, next: next, oldest: next} }
