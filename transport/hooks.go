package transport

import "sync"

// Hooks are functions that a Server calls when something happens, for metrics and traces. Nil
// fields are skipped.
//
// They run one at a time, in the order of the events, on a goroutine of their own: a hook may
// block, close the Conn or call Shutdown without delaying a transfer. At most 1,024 events wait
// for a slow hook; further ones are lost, and Dropped gets their number afterwards. Shutdown
// waits for hooks at its end, at most a second. A panic in a hook ends the program.
type Hooks struct {
	ConnOpened func(Info)
	ConnClosed func(Info, error) // nil: an orderly end by the peer

	// Offered and Finished come in pairs, for refused images too. The error is nil if and only if
	// the image is kept; only then is the receipt valid. After a panic in the Handler the error's
	// text has the panic's value.
	Offered  func(TransferInfo)
	Finished func(TransferInfo, Receipt, error)

	Dropped func(events int)
}

// TransferInfo describes an image on its way in, for Hooks.
type TransferInfo struct {
	ID        ID // made here if the protocol has none
	Conn      Info
	Name      string // as offered; may be empty
	MediaType string
	Source    string
	Size      int64 // -1: unknown
	Attempt   uint32
	// Stored is the Store's name for the image, a DirStore's the slash-separated path below Dir. It
	// is set in Finished, if the image was kept by this transfer.
	Stored string
	// Duplicate is set in Finished, if the image is, or was, kept by another offer of the same
	// ID. The Handler was not called for this one.
	Duplicate bool
}

const maxEvents = 1024

// hookQueue runs events in order on a goroutine that lives while there are any.
type hookQueue struct {
	mu      sync.Mutex
	events  []func()
	dropped int // after those
	running bool
	telling crew            // the goroutine
	lost    func(count int) // Hooks.Dropped
}

// add queues an event. It never blocks.
func (q *hookQueue) add(event func()) {
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
		go q.run()
	}
}

func (q *hookQueue) run() {
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
		if dropped > 0 && q.lost != nil {
			q.lost(dropped)
		}
	}
}
