package arq

import (
	"time"

	"github.com/pixferry/pixferry/chunk"
)

// ackTracker remembers which of the peer's messages have arrived and decides when to
// say so.
type ackTracker struct {
	got   chunk.Ranges // numbers that have arrived, not below floor
	floor int64        // below it everything counts as seen

	largest   int64 // the newest message, -1: none
	largestAt time.Duration

	maxRanges int32         // how many ranges the peer takes in an ACK
	pending   int32         // messages that ask for an acknowledgement since the last ACK
	unasked   int32         // ACKs since the last message that asks for one itself
	gap       bool          // one of them revealed or filled a gap
	now       bool          // acknowledge with the next Poll
	due       time.Duration // acknowledge by then; 0: nothing pending
	sentAt    time.Duration // of the last ACK
	again     time.Duration // send the last ACK once more then, should nothing arrive; 0: no more
	pause     time.Duration // between repetitions, doubling
}

func newAckTracker(memory []chunk.Range) ackTracker {
	return ackTracker{got: chunk.NewRanges(memory), largest: -1, maxRanges: 32}
}

// seen reports whether the message has been received before, or is so old that it
// cannot be told.
func (a *ackTracker) seen(number int64) bool {
	return number < a.floor || a.got.Contains(number, number+1)
}

// add notes a message that arrived now. eliciting: it asks for an acknowledgement.
func (a *ackTracker) add(number int64, now time.Duration, eliciting bool) {
	if eliciting {
		a.pending++
		a.gap = a.gap || number != a.largest+1
	}
	a.got.Add(number, number+1)
	if number > a.largest {
		a.largest, a.largestAt = number, now
	}
	if a.got.Count() > int(a.maxRanges) {
		a.got.KeepHighest(int(a.maxRanges))
		a.floor = max(a.floor, a.got.Min())
	}
}

const (
	// ackInterval is the longest pause between ACKs while messages arrive.
	ackInterval = 10 * time.Millisecond
	// answerTime is how long an ACK waits for an answer to take it along.
	answerTime = 250 * time.Microsecond
)

// ackWait is how long an ACK for what has just come may wait for more to acknowledge: an eighth
// of a round trip, or until an answer may take it along. On a reliable link nobody looks for
// losses, and what else an ACK tells has time.
func (e *Engine) ackWait() time.Duration {
	switch {
	case e.recovery == nil:
		return ackInterval
	case e.batch.soon:
		return answerTime
	}
	return min(e.rtt.estimate()/8, ackInterval)
}

// settle decides at the end of a batch whether and when to acknowledge: at once for urgent
// news, soon after a gap, otherwise after wait.
func (a *ackTracker) settle(now, wait time.Duration, urgent bool) {
	if a.pending == 0 {
		return
	}
	due := now + wait
	if a.gap {
		due = max(now, min(due, a.sentAt+wait/2))
		a.gap = false
	}
	if a.due == 0 || due < a.due {
		a.due = due
	}
	if urgent || a.due <= now {
		a.now = true
	}
}

// sent notes that an ACK went out. It is repeated a few times, ever more rarely, while nothing new
// arrives, as a sender whose window is full waits for it.
func (a *ackTracker) sent(now, rtt time.Duration) {
	longest := 4 * max(rtt, granularity)
	switch {
	case a.pending > 0:
		a.pause = max(rtt/4, granularity)
	case a.pause <= longest: // no more than that: it would overflow in the end, and repeat without a pause
		a.pause = max(2*a.pause, granularity)
	}
	a.pending, a.gap, a.now, a.due, a.again = 0, false, false, 0, 0
	if a.pause <= longest {
		a.again = now + a.pause
	}
	a.sentAt = now
}

// confirmed notes that the peer has an ACK whose newest number was largest: what is
// below need not be reported again (RFC 9000, section 13.2.4).
func (a *ackTracker) confirmed(largest int64) {
	if largest <= a.floor {
		return
	}
	a.got.Remove(0, largest)
	a.floor = largest
}
