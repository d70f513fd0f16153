package transport

import "sync"

// A group lets concurrent callers share one costly call, such as the sync of a
// file: while a call runs, those who come gather for the next one.
type group[T any] struct {
	run func(items []T) error // calls are serial

	running sync.Mutex
	mu      sync.Mutex
	next    *batch[T] // gathers; nil: nobody waits
}

type batch[T any] struct {
	items []T
	done  chan struct{}
	err   error
}

// do returns the result of the call of run that included item.
func (g *group[T]) do(item T) error {
	g.mu.Lock()
	b := g.next
	first := b == nil
	if first {
		b = &batch[T]{done: make(chan struct{})}
		g.next = b
	}
	b.items = append(b.items, item)
	g.mu.Unlock()
	if !first {
		<-b.done
		return b.err
	}
	g.running.Lock()
	defer g.running.Unlock()
	g.mu.Lock()
	g.next = nil
	g.mu.Unlock()
	b.err = g.run(b.items)
	close(b.done)
	return b.err
}
