// Package timers is a heap of timers, for one goroutine that serves many sessions.
package timers

import (
	"container/heap"
	"time"
)

// A Timer tells when its owner wants to be served. With an owner it is ready, and not set.
type Timer[T any] struct {
	Owner T
	due   time.Time
	place int // in the heap, from 1; 0: not set
}

// A Heap has the timers that are set. The zero value is empty.
type Heap[T any] struct{ list list[T] }

// Set sets a timer; a zero time stops it.
func (h *Heap[T]) Set(t *Timer[T], due time.Time) {
	t.due = due
	switch {
	case due.IsZero() && t.place > 0:
		heap.Remove(&h.list, t.place-1)
	case due.IsZero():
	case t.place > 0:
		heap.Fix(&h.list, t.place-1)
	default:
		heap.Push(&h.list, t)
	}
}

// Next returns the earliest time, zero if there is none.
func (h *Heap[T]) Next() time.Time {
	if len(h.list) == 0 {
		return time.Time{}
	}
	return h.list[0].due
}

// Expired stops a timer whose time has come, and returns its owner, or T's zero value if there is none.
func (h *Heap[T]) Expired(now time.Time) (owner T) {
	if len(h.list) == 0 || h.list[0].due.After(now) {
		return owner
	}
	return heap.Pop(&h.list).(*Timer[T]).Owner
}

// A list is ordered by package heap.
type list[T any] []*Timer[T]

func (l list[T]) Len() int           { return len(l) }
func (l list[T]) Less(i, j int) bool { return l[i].due.Before(l[j].due) }

func (l list[T]) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].place, l[j].place = i+1, j+1
}

func (l *list[T]) Push(x any) {
	t := x.(*Timer[T])
	*l = append(*l, t)
	t.place = len(*l)
}

func (l *list[T]) Pop() any {
	last := len(*l) - 1
	t := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	t.place = 0
	return t
}
