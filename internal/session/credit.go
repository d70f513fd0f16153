package session

import (
	"math"
	"math/bits"
	"sync"

	"github.com/pixferry/pixferry/internal/arq"
)

// The least share of a session in bytes and messages.
const leastBytes, leastMessages = 32 << 10, 2

// A creditPool is credit that the sessions of an Endpoint share: those to which
// something is on its way have equal parts of it. It bounds the memory of a receiver
// with many sessions, and what waits in an MQTT broker's queue.
type creditPool struct {
	bytes, messages int // of all together; no messages: they do not count
	most            int // bytes of one session

	// What a session may have on its way before it has a share: no less than the piece that may come
	// with an offer.
	firstBytes, firstMessages int

	mu     sync.Mutex
	active map[*Session]bool
	parts  int // that the pool is cut into: a power of 2, so that this changes seldom
}

func newCreditPool(c *Config) *creditPool {
	p := &creditPool{most: c.largest, active: make(map[*Session]bool), parts: 1}
	if c.Messages > 0 {
		p.bytes, p.messages = c.Window, c.Messages
		p.firstBytes, p.firstMessages = min(c.Window, largePiece), min(c.Messages, 8)
	} else {
		p.bytes = int(min(32*int64(c.Window), math.MaxInt))
		p.firstBytes, p.firstMessages = c.Window/2, math.MaxUint16
	}
	return p
}

// needed reports whether a session needs a share for what is coming, of so many bytes. A small
// image does not, and is spared the messages that would tell of more and of less.
func (p *creditPool) needed(coming int64) bool {
	if p.messages > 0 {
		return coming > 0
	}
	return coming > int64(p.firstBytes)
}

// share is what an active session may have on its way. The mutex is held.
func (p *creditPool) share() (bytes, messages int) {
	bytes, messages = min(p.most, max(p.bytes/p.parts, leastBytes)), math.MaxUint16
	if p.messages > 0 {
		messages = max(p.messages/p.parts, leastMessages)
	}
	return bytes, messages
}

// set notes whether a session has a share, as of now, and changes those of the others if need be. Whoever
// changes that calls it later, without the session's mutex, and so maybe after others who did.
func (p *creditPool) set(s *Session) {
	p.mu.Lock()
	changed := []*Session{s}
	if s.pooled.Load() {
		p.active[s] = true
	} else {
		delete(p.active, s)
	}
	if parts := 1 << bits.Len(uint(max(len(p.active), 1)-1)); parts != p.parts {
		before, _ := p.share()
		p.parts = parts
		if now, _ := p.share(); now != before || p.messages > 0 {
			for other := range p.active {
				changed = append(changed, other)
			}
		}
	}
	p.mu.Unlock()
	for _, s := range changed {
		s.do(func(e *arq.Engine) { e.SetWindow(p.window(s)) })
	}
}

// window is what a session may have on its way.
func (p *creditPool) window(s *Session) (bytes, messages int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.active[s] {
		return p.share()
	}
	return p.firstBytes, p.firstMessages
}
