package arq

// quantum is how many bytes of one transfer are sent before it is another's turn.
const quantum = 16 << 10

// runQueue holds the transfers of one priority that have something to send, in turn.
type runQueue struct {
	head, tail *outgoing
	used       int // bytes of head sent in this turn
}

func (q *runQueue) push(o *outgoing) {
	o.ready, o.following = true, nil
	if q.tail == nil {
		q.head = o
	} else {
		q.tail.following = o
	}
	q.tail = o
}

func (q *runQueue) pop() {
	o := q.head
	q.head = o.following
	if q.head == nil {
		q.tail = nil
	}
	o.ready, o.following = false, nil
	q.used = 0
}

// scheduler decides whose data is sent next: that of interactive transfers first, and
// transfers of one priority in turn.
type scheduler struct {
	interactive, bulk runQueue
}

func (s *scheduler) queue(o *outgoing) *runQueue {
	if o.interactive {
		return &s.interactive
	}
	return &s.bulk
}

// add queues a transfer that may have something to send.
func (s *scheduler) add(o *outgoing) {
	if !o.ready && o.hasData() {
		s.queue(o).push(o)
	}
}

// next returns the transfer whose turn it is, nil if none has data.
func (s *scheduler) next() *outgoing {
	for _, q := range [...]*runQueue{&s.interactive, &s.bulk} {
		for q.head != nil {
			if q.head.hasData() {
				return q.head
			}
			q.pop()
		}
	}
	return nil
}

// sent notes that n bytes of the transfer that next returned were sent.
func (s *scheduler) sent(o *outgoing, n int) {
	q := s.queue(o)
	if q.used += n; q.used >= quantum {
		q.pop()
		s.add(o)
	}
}
