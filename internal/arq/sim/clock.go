package sim

import (
	"container/heap"
	"time"
)

// Clock runs functions in virtual time, in the order of their times and, for equal times, of
// their scheduling. It has one owner.
type Clock struct {
	now   time.Time
	queue events
	count int64
}

// NewClock returns a clock that stands at some time.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

// Now returns the virtual time.
func (c *Clock) Now() time.Time { return c.now }

// At runs f at a time, or now if that has passed.
func (c *Clock) At(at time.Time, f func()) *Timer {
	if at.Before(c.now) {
		at = c.now
	}
	c.count++
	t := &Timer{at: at, order: c.count, f: f}
	heap.Push(&c.queue, t)
	return t
}

// After runs f after a while.
func (c *Clock) After(d time.Duration, f func()) *Timer { return c.At(c.now.Add(d), f) }

// Step runs what is next, and returns false if that would be later than until.
func (c *Clock) Step(until time.Time) bool {
	for len(c.queue) > 0 && c.queue[0].f == nil {
		heap.Pop(&c.queue)
	}
	if len(c.queue) == 0 || c.queue[0].at.After(until) {
		return false
	}
	t := heap.Pop(&c.queue).(*Timer)
	c.now = t.at
	t.f()
	return true
}

// Timer is a function that is to run.
type Timer struct {
	at    time.Time
	order int64
	f     func()
}

// Stop keeps the function from running.
func (t *Timer) Stop() {
	if t != nil {
		t.f = nil
	}
}

type events []*Timer

func (q events) Len() int      { return len(q) }
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q events) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].order < q[j].order
	}
	return q[i].at.Before(q[j].at)
}
func (q *events) Push(t any) { *q = append(*q, t.(*Timer)) }
func (q *events) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return t
}
