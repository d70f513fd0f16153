package face

import (
	"container/list"
	"sync"
)

// overhead is what a waiting message costs beside its payload, in bytes.
const overhead = 512

// A packet is a message from the broker.
type packet struct {
	payload []byte
	ack     func() // tells the broker that it was dealt with
	lane    *lane
}

// A queue holds the packets that wait, within a number of bytes for all lanes together.
type queue struct {
	max int

	mu    sync.Mutex
	bytes int
	order list.List // of *packet, the oldest first
}

// A lane is the part of a queue that waits for one Conn.
type lane struct {
	q       *queue
	sn      string
	waiting []*list.Element // the oldest first
	sealed  bool
	more    chan struct{} // capacity 1: something has come
}

func newQueue(limit int) *queue { return &queue{max: limit} }

func (q *queue) lane(sn string) *lane { return &lane{q: q, sn: sn, more: make(chan struct{}, 1)} }

// put adds a packet, and returns those that had to go to make room for it, and false if the lane is
// sealed. It does not block.
func (l *lane) put(p packet) (dropped []*packet, ok bool) {
	q := l.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if l.sealed {
		return nil, false
	}
	p.lane = l
	l.waiting = append(l.waiting, q.order.PushBack(&p))
	q.bytes += len(p.payload) + overhead
	for q.bytes > q.max && q.order.Len() > 1 {
		dropped = append(dropped, q.order.Front().Value.(*packet).lane.shift())
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
	return dropped, true
}

// shift removes the oldest packet of the lane, which has one.
func (l *lane) shift() *packet {
	p := l.q.order.Remove(l.waiting[0]).(*packet)
	l.waiting[0] = nil
	l.waiting = l.waiting[1:]
	l.q.bytes -= len(p.payload) + overhead
	return p
}

// take returns the oldest packet of the lane, nil if nothing waits.
func (l *lane) take() *packet {
	l.q.mu.Lock()
	defer l.q.mu.Unlock()
	if len(l.waiting) == 0 {
		return nil
	}
	return l.shift()
}

// seal has the lane take no more packets.
func (l *lane) seal() {
	l.q.mu.Lock()
	defer l.q.mu.Unlock()
	l.sealed = true
}

// close seals the lane and forgets what waits in it.
func (l *lane) close() {
	l.seal()
	for l.take() != nil {
	}
}
