package udpx

import (
	"container/heap"
	"time"
)

// timers is a heap of carriers by the time at which their sessions want to be polled.
type timers struct{ list timerHeap }

// set sets the carrier's timer; a zero time stops it.
func (t *timers) set(c *carrier, due time.Time) {
	switch {
	case due.IsZero():
		t.stop(c)
	case c.timer >= 0:
		c.due = due
		heap.Fix(&t.list, c.timer)
	default:
		c.due = due
		heap.Push(&t.list, c)
	}
}

func (t *timers) stop(c *carrier) {
	if c.timer >= 0 {
		heap.Remove(&t.list, c.timer)
	}
}

// next returns the earliest time, zero if there is none.
func (t *timers) next() time.Time {
	if len(t.list) == 0 {
		return time.Time{}
	}
	return t.list[0].due
}

// expired takes out a carrier whose time has come, nil if there is none.
func (t *timers) expired(now time.Time) *carrier {
	if len(t.list) == 0 || t.list[0].due.After(now) {
		return nil
	}
	return heap.Pop(&t.list).(*carrier)
}

type timerHeap []*carrier

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].timer, h[j].timer = i, j
}

func (h *timerHeap) Push(x any) {
	c := x.(*carrier)
	c.timer = len(*h)
	*h = append(*h, c)
}

func (h *timerHeap) Pop() any {
	old := *h
	c := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	c.timer = -1
	return c
}
