package arq

import (
	"sync"

	"github.com/pixferry/pixferry/internal/wire"
)

// Kind says what an [Event] reports.
type Kind uint8

const (
	// Established: the peer's HELLO is known; Peer returns it.
	Established Kind = iota + 1
	// Closed: the session is over, Err says why (ErrClosed after Close). It is the last event;
	// all supplied slices belong to the owner again.
	Closed

	// Events about what this side sends; Handle is that of Offer.

	// Wanted: Want has risen from zero, the transfer takes more bytes.
	Wanted
	// Released: Data, a slice given to Supply, belongs to the owner again.
	Released
	// Progress: more bytes were acknowledged; Offset is how many so far, skipped ones included.
	Progress
	// Accepted: one ACCEPT frame, the answer to an offer with OfferResume: Accept lists a run of the
	// blocks that the receiver holds, or none. Compare the digests and answer each run with Resume.
	Accepted
	// Receipted: the receiver keeps the whole image: Receipt. Offset is how many of its bytes were
	// sent more than once. The handle is over.
	Receipted
	// Rejected: the receiver refuses: Reject. The handle is over.
	Rejected

	// Events about what the peer sends; Handle is one of the peer's.

	// Offered: the peer offers Offer, its metadata whole. Data may follow at once. Answer OfferResume
	// with Accept, and everything in the end with Receipt or Reject.
	Offered
	// Received: Data holds bytes of the image at Offset that were never reported before. Each byte is
	// to be given back by Consumed, also after the transfer has ended: events that were queued when the
	// owner answered still come.
	Received
	// Resumed: the sender's answer to one run of Accept: Resume says which of its blocks agree. These
	// count as received from now on, though bytes of them may have been reported before; those that
	// do not agree are to be forgotten.
	Resumed
	// Finished: every byte of [0, Fin.Size) was reported by Received or Resumed, and Fin.Digest is the
	// image's digest. Answer with Receipt or Reject.
	Finished
	// Canceled: the sender gave the transfer up for Reason, or the engine has refused it because
	// of what the sender did. The handle is over.
	Canceled
)

// Event is one thing that happened. The fields that a Kind names are set. Pointers are
// to memory that the owner may keep.
type Event struct {
	Kind    Kind
	Handle  uint16
	Reason  uint8
	Offset  int64
	Data    []byte
	Offer   *wire.Offer
	Accept  *wire.Accept
	Resume  *wire.Resume
	Fin     *wire.Fin
	Receipt *wire.Receipt
	Reject  *wire.Reject
	Err     error
}

// eventQueue borrows memory for a few events while there are some: what sessions use in turn stays in the
// processor's caches. More is its own, and kept until it is dropped.
type eventQueue struct {
	list []Event
	head int
}

const fewEvents = 16

var sharedEvents = sync.Pool{New: func() any { return new([fewEvents]Event) }}

func (q *eventQueue) push(ev Event) {
	if q.list == nil {
		q.list = sharedEvents.Get().(*[fewEvents]Event)[:0]
	}
	q.list = append(q.list, ev)
}

// pop returns the oldest event, which stays where it is until the next call.
func (q *eventQueue) pop() *Event {
	if q.head < len(q.list) {
		q.head++
		return &q.list[q.head-1]
	}
	if q.list != nil {
		clear(q.list)
		if q.list, q.head = q.list[:0], 0; cap(q.list) == fewEvents {
			sharedEvents.Put((*[fewEvents]Event)(q.list[:fewEvents]))
			q.list = nil
		}
	}
	return nil
}

// rest gives up memory that has grown, if the queue is empty.
func (q *eventQueue) rest() {
	if q.head == len(q.list) && cap(q.list) > fewEvents {
		*q = eventQueue{}
	}
}
