package session

import (
	"maps"
	"slices"
	"sync"

	"github.com/pixferry/pixferry/internal/arq"
)

// What a session of a pool may have on its way before it has a share, and the least
// share, in bytes and messages.
const (
	firstBytes, firstMessages = 128 << 10, 8
	leastBytes, leastMessages = 32 << 10, 2
)

// A creditPool is credit that the sessions of an Endpoint share because the peers' messages
// wait in one queue, as they do in an MQTT broker. Those to which something is on its
// way have equal shares.
type creditPool struct {
	bytes, messages int

	mu     sync.Mutex
	active map[*Session]bool
}

func (p *creditPool) share() (bytes, messages int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := max(len(p.active), 1)
	return max(p.bytes/n, leastBytes), max(p.messages/n, leastMessages)
}

// set notes whether a session has a share, and changes those of the others.
func (p *creditPool) set(s *Session, active bool) {
	p.mu.Lock()
	if active {
		p.active[s] = true
	} else {
		delete(p.active, s)
	}
	all := slices.Collect(maps.Keys(p.active))
	p.mu.Unlock()
	if !active {
		s.do(func(e *arq.Engine) { e.SetWindow(firstBytes, firstMessages) })
	}
	for _, other := range all {
		other.do(func(e *arq.Engine) { e.SetWindow(p.share()) })
	}
}
