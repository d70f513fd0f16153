package session

import "time"

// rest is how long a goroutine of a crew waits for more work.
const rest = 10 * time.Millisecond

// crew runs the functions of one session on goroutines that it uses again, as the stack
// of a fresh one has to grow anew. None is left when the session is idle, or over.
type crew struct {
	work chan func()
	over <-chan struct{}
}

// run calls f on a goroutine.
func (c *crew) run(f func()) {
	select {
	case c.work <- f:
	default:
		go c.serve(f)
	}
}

func (c *crew) serve(f func()) {
	idle := time.NewTimer(rest)
	defer idle.Stop()
	for {
		f()
		idle.Reset(rest)
		select {
		case f = <-c.work:
		case <-idle.C:
			return
		case <-c.over:
			return
		}
	}
}
