package arq

import (
	"slices"
	"time"
)

// frame is any control frame of package wire.
type frame interface {
	Len() int
	Append(b []byte) []byte
}

// control is a frame that the peer must get: a fact and what to send for it.
type control struct {
	fact
	frame frame
	in    *incoming // waits for this to be acknowledged; nil: nobody does
	twice bool      // send a second copy a little later, on a link that loses
}

// controls are the frames to be sent, in order, and those to be sent once more.
type controls struct {
	due    []*control
	head   int // of due: those before it have left
	again  []*control
	repeat time.Duration // when again is due
}

// add queues a new frame and returns its control.
func (q *controls) add(c *control) *control {
	c.fact = unsent
	q.push(c)
	return c
}

// push puts a frame at the end. Before that takes more memory, those make room that need not be sent any more: behind
// one for which there is no room yet they would wait, as many as the peer cares to cause.
func (q *controls) push(c *control) {
	if len(q.due) == cap(q.due) {
		q.due, q.head = slices.DeleteFunc(q.due, func(c *control) bool { return c == nil || c.fact != unsent }), 0
		if old := q.due; 2*len(old) > cap(old) {
			q.due = append(make([]*control, 0, 2*cap(old)), old...)
			clear(old)
		}
	}
	q.due = append(q.due, c)
}

// follow queues a new frame behind the next one and returns its control.
func (q *controls) follow(c *control) *control {
	c.fact = unsent
	q.due = slices.Insert(add(q.due, nil)[:len(q.due)], q.head+1, c)
	return c
}

// lose notes that a message with the control was lost.
func (q *controls) lose(c *control, number int64) {
	if c.lost(number) {
		q.push(c)
	}
}

// resend queues a control that is on its way once more, for a probe.
func (q *controls) resend(c *control) {
	if c.fact >= 0 {
		c.fact = unsent
		q.push(c)
	}
}

// drop takes a control back: if it was not sent it will not be, and its loss does not matter.
func (q *controls) drop(c *control) {
	if c != nil && c.open() {
		c.fact = received
	}
}

// wanting reports whether something is to be sent.
func (q *controls) wanting() bool {
	for q.head < len(q.due) && q.next().fact != unsent { // dropped or acknowledged meanwhile
		q.pop()
	}
	return q.head < len(q.due)
}

// next returns the frame to be sent next, when wanting says that there is one.
func (q *controls) next() *control { return q.due[q.head] }

// pop takes out the next frame. The others move when they are no more than those that have left, as there may be thousands.
func (q *controls) pop() {
	q.due[q.head] = nil
	if q.head++; 2*q.head >= len(q.due) {
		q.due, q.head = slices.Delete(q.due, 0, q.head), 0
	}
}

// later schedules the second copies.
func (q *controls) later(c *control, at time.Duration) {
	q.again = add(q.again, c)
	if len(q.again) == 1 {
		q.repeat = at
	}
}

// repeatAt returns when second copies are due, 0 for never.
func (q *controls) repeatAt() time.Duration {
	q.again = slices.DeleteFunc(q.again, func(c *control) bool { return !c.open() })
	if len(q.again) == 0 {
		return 0
	}
	return q.repeat
}

// advance queues the second copies that are due, and reports whether there are any.
func (q *controls) advance(now time.Duration) bool {
	if len(q.again) == 0 || now < q.repeat {
		return false
	}
	for i, c := range q.again {
		q.resend(c)
		q.again[i] = nil
	}
	q.again = q.again[:0]
	return true
}
