package transport

import "sync"

// Hooks are told what a Server does, for metrics and traces. Nil fields are
// skipped.
//
// They run one at a time, in the order of the events, apart from what they tell
// about: a hook may block, close the Conn or call Shutdown without holding a
// transfer up. 1,024 events wait for a slow hook; what happens beyond that is
// not told but counted, and Dropped says so when the hooks go on. Shutdown waits
// for hooks at its end, for a second at most. A panic in one ends the program.
type Hooks struct {
	ConnOpened func(Info)
	ConnClosed func(Info, error) // nil: an orderly end by the peer

	// Offered and Finished come in pairs, for refused images too. The error is
	// nil if and only if the image is kept, and the receipt is valid then. That
	// of a Handler's panic has its value in its text.
	Offered  func(TransferInfo)
	Finished func(TransferInfo, Receipt, error)

	Dropped func(events int)
}

// TransferInfo describes an image on its way in, for hooks.
type TransferInfo struct {
	ID        ID // made by the receiver where the protocol has none
	Conn      Info
	Name      string // as offered
	MediaType string
	Source    string
	Size      int64 // -1: unknown
	Attempt   uint32
	// Stored, in Finished: the Store's name for the image, if it was kept now.
	Stored string
	// Duplicate, in Finished: the image is, or was, kept on behalf of another
	// offer of the same ID; the Handler was not called for this one.
	Duplicate bool
}

const maxEvents = 1024

// hookQueue runs events in order on a goroutine that lives while there are any.
type hookQueue struct {
	mu      sync.Mutex
	events  []func()
	dropped int // after those
	running bool
	telling crew // the goroutine
}

// add queues an event. It never blocks.
func (q *hookQueue) add(h *Hooks, event func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) >= maxEvents {
		q.dropped++
		return
	}
	q.events = append(q.events, event)
	if !q.running {
		q.running = true
		q.telling.add()
		go q.run(h)
	}
}

func (q *hookQueue) run(h *Hooks) {
	defer q.telling.done()
	for {
		q.mu.Lock()
		events, dropped := q.events, q.dropped
		q.events, q.dropped = nil, 0
		q.running = len(events) > 0
		q.mu.Unlock()
		if len(events) == 0 {
			return
		}
		for _, event := range events {
			event()
		}
		if dropped > 0 && h.Dropped != nil {
			h.Dropped(dropped)
		}
	}
}
