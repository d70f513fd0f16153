package mqttx

import (
	"container/heap"
	"time"
)

// timers are the carriers with a deadline, the earliest first.
type timers []*carrier

// set gives a carrier a deadline in place of the one it had; zero: none.
func (t *timers) set(c *carrier, due time.Time) {
	switch {
	case due.IsZero() && c.place > 0:
		heap.Remove(t, c.place-1)
	case due.IsZero():
	case c.place > 0:
		c.due = due
		heap.Fix(t, c.place-1)
	default:
		c.due = due
		heap.Push(t, c)
	}
}

// pop removes a carrier that is due and returns it, or nil.
func (t *timers) pop(now time.Time) *carrier {
	if len(*t) == 0 || (*t)[0].due.After(now) {
		return nil
	}
	return heap.Pop(t).(*carrier)
}

// next returns the earliest deadline, zero for none.
func (t timers) next() time.Time {
	if len(t) == 0 {
		return time.Time{}
	}
	return t[0].due
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due.Before(t[j].due) }

func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].place, t[j].place = i+1, j+1
}

func (t *timers) Push(x any) {
	c := x.(*carrier)
	*t = append(*t, c)
	c.place = len(*t)
}

func (t *timers) Pop() any {
	last := len(*t) - 1
	c := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	c.place = 0
	return c
}
