package sim

import "time"

// Clock runs functions in virtual time, in the order of their times and, for equal times, of
// their scheduling. It has one owner.
type Clock struct {
	now   time.Time
	queue []turn // a heap; a turn whose timer has another by now is skipped
	count int64
}

// NewClock returns a clock that stands at some time.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

// Now returns the virtual time.
func (c *Clock) Now() time.Time { return c.now }

// At runs f at a time, or now if that has passed.
func (c *Clock) At(at time.Time, f func()) *Timer {
	t := NewTimer(f)
	c.Set(t, at)
	return t
}

// After runs f after a while.
func (c *Clock) After(d time.Duration, f func()) *Timer { return c.At(c.now.Add(d), f) }

// Set runs the timer's function at a time, or now if that has passed, and not when it was set to before.
func (c *Clock) Set(t *Timer, at time.Time) {
	if at.Before(c.now) {
		at = c.now
	}
	c.count++
	t.order = c.count
	c.queue = append(c.queue, turn{at.UnixNano(), t.order, t})
	c.up(len(c.queue) - 1)
}

// Step runs what is next, and returns false if that would be later than until.
func (c *Clock) Step(until time.Time) bool {
	for len(c.queue) > 0 && c.queue[0].over() {
		c.pop()
	}
	if len(c.queue) == 0 || c.queue[0].at > until.UnixNano() {
		return false
	}
	next := c.pop()
	c.now = time.Unix(0, next.at).UTC()
	next.timer.order = 0
	next.timer.f()
	return true
}

// Timer is a function that is to run.
type Timer struct {
	order int64 // of its turn; 0: none
	f     func()
}

// NewTimer returns a timer that [Clock.Set] sets, any number of times.
func NewTimer(f func()) *Timer { return &Timer{f: f} }

// Stop keeps the function from running.
func (t *Timer) Stop() {
	if t != nil {
		t.order = 0
	}
}

// turn is a place in the queue. It holds what it is compared by, lest each comparison reads two timers.
type turn struct {
	at    int64 // Unix time in nanoseconds
	order int64
	timer *Timer
}

func (t *turn) over() bool { return t.timer.order != t.order }

func (t *turn) before(o *turn) bool { return t.at < o.at || t.at == o.at && t.order < o.order }

func (c *Clock) up(i int) {
	for q := c.queue; i > 0; {
		parent := (i - 1) / 2
		if !q[i].before(&q[parent]) {
			return
		}
		q[i], q[parent] = q[parent], q[i]
		i = parent
	}
}

func (c *Clock) pop() turn {
	q := c.queue
	first, last := q[0], len(q)-1
	q[0], q[last] = q[last], turn{}
	q = q[:last]
	c.queue = q
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if q[child].before(&q[least]) {
				least = child
			}
		}
		if least == i {
			return first
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
}
