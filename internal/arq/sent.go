package arq

import (
	"sync"
	"time"

	"github.com/pixferry/pixferry/chunk"
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

	done int64 // once it is resolved, the end of what is known to be so behind it
	flight
}

// flight is the connection as a message left it, for the delivery rate.
type flight struct {
	delivered   int64
	deliveredAt time.Duration
	firstSentAt time.Duration
	appLimited  bool
}

// forget lets go of what a message points to, and keeps the memory for a few facts.
func (m *sentMessage) forget() {
	m.from = nil
	if clear(m.facts); cap(m.facts) > fewFacts {
		m.facts = nil
	}
	m.facts = m.facts[:0]
}

const fewFacts = 8

// sentRing holds the messages with numbers from base to next, in a ring that grows. Those outside of it are
// forgotten ones.
type sentRing struct {
	buf        []sentMessage // length is a power of two
	base, next int64
	oldest     int64 // no message before it is outstanding
}

// The first sizes are shared by sessions, as an image needs one for a moment: what many sessions use in
// turn stays in the processor's caches.
const (
	smallRing  = 16
	sharedRing = 128
)

var (
	smallRings  = sync.Pool{New: func() any { return new([smallRing]sentMessage) }}
	sharedRings = sync.Pool{New: func() any { return new([sharedRing]sentMessage) }}
)

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
	return m
}

func (r *sentRing) grow() {
	old := *r
	switch n := len(old.buf); n {
	case 0:
		r.buf = smallRings.Get().(*[smallRing]sentMessage)[:]
	case smallRing:
		r.buf = sharedRings.Get().(*[sharedRing]sentMessage)[:]
	default:
		r.buf = make([]sentMessage, 2*n)
	}
	for n := r.base; n < r.next; n++ {
		m := old.at(n)
		*r.at(n) = *m
		m.from, m.facts = nil, nil
	}
	old.free()
}

// free gives back memory in which all is forgotten.
func (r *sentRing) free() {
	switch len(r.buf) {
	case smallRing:
		smallRings.Put((*[smallRing]sentMessage)(r.buf))
	case sharedRing:
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

// oldestGap returns the oldest transfer with outstanding data, and the first bytes of it that are not acknowledged.
func (r *sentRing) oldestGap() (*outgoing, chunk.Range) {
	for n := r.firstOutstanding(); n < r.next; n++ {
		if m := r.at(n); m.state == outstanding && m.from != nil && !m.from.over {
			if g, ok := m.from.acked.NextGap(0, m.from.next); ok {
				return m.from, g
			}
		}
	}
	return nil, chunk.Range{}
}

// trim forgets messages from the old end: resolved ones, and lost ones sent before a time.
func (r *sentRing) trim(before time.Duration) {
	for r.base < r.next {
		m := r.at(r.base)
		if m.state == outstanding || m.state == lost && m.at > before {
			break
		}
		m.forget()
		r.base++
	}
	r.oldest = max(r.oldest, r.base)
}

// shrink gives the memory back if nothing has to be remembered.
func (r *sentRing) shrink(before time.Duration) {
	if r.trim(before); r.base == r.next {
		r.free()
	}
}

// clear forgets every message; next is the number of the next.
func (r *sentRing) clear(next int64) { *r = sentRing{base: next, next: next, oldest: next} }
