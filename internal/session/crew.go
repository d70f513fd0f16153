package session

import (
	"slices"
	"sync"
	"time"
)

// rest is how long a goroutine of a crew waits for more work.
const rest = 10 * time.Millisecond

// crew runs the functions of an Endpoint's sessions on goroutines that it uses again, as the stack of a
// fresh one has to grow anew. None is left when the sessions are idle, or over.
type crew struct {
	mu       sync.Mutex
	idle     []*member // the last has worked last: its stack is still in the processor's caches
	sessions int
}

type member struct {
	work chan func() // has room for one; closed when there is no session any more
}

// join notes a session that has begun, and leave that it is over.
func (c *crew) join() {
	c.mu.Lock()
	c.sessions++
	c.mu.Unlock()
}

func (c *crew) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions--; c.sessions == 0 {
		for _, m := range c.idle {
			close(m.work)
		}
		c.idle = nil
	}
}

// run calls f on a goroutine.
func (c *crew) run(f func()) {
	c.mu.Lock()
	last := len(c.idle) - 1
	if last < 0 {
		c.mu.Unlock()
		go c.serve(f)
		return
	}
	m := c.idle[last]
	c.idle[last], c.idle = nil, c.idle[:last]
	c.mu.Unlock()
	m.work <- f
}

func (c *crew) serve(f func()) {
	m := &member{make(chan func(), 1)}
	idle := time.NewTimer(rest)
	defer idle.Stop()
	for f != nil {
		f()
		f = c.next(m, idle)
	}
}

// next waits for work, and returns nil if there is none.
func (c *crew) next(m *member, idle *time.Timer) func() {
	c.mu.Lock()
	if c.sessions == 0 {
		c.mu.Unlock()
		return nil
	}
	c.idle = append(c.idle, m)
	c.mu.Unlock()
	idle.Reset(rest)
	select {
	case f := <-m.work:
		return f
	case <-idle.C:
	}
	c.mu.Lock()
	i := slices.Index(c.idle, m)
	if i >= 0 {
		c.idle = slices.Delete(c.idle, i, i+1)
	}
	c.mu.Unlock()
	if i < 0 {
		return <-m.work // which was given in this moment
	}
	return nil
}
