package transport

import (
	"context"
	"sync"
)

// A crew counts what runs, so that others can wait for the end of it. Unlike a
// sync.WaitGroup's its waits end with a context, and it may grow meanwhile.
type crew struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n gets 0; nil: nobody waits
}

func (c *crew) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
}

func (c *crew) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// wait returns nil when nothing runs, or the context's error.
func (c *crew) wait(ctx context.Context) error {
	for {
		c.mu.Lock()
		if c.n == 0 {
			c.mu.Unlock()
			return nil
		}
		if c.idle == nil {
			c.idle = make(chan struct{})
		}
		idle := c.idle
		c.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
