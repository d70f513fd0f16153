package arq

import (
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

// Engine is one side of one session. Not safe for concurrent use; it never blocks.
// After the Closed event all methods but NextEvent do nothing.
type Engine struct {
	cfg Config
}

// New returns the engine of a new session. A responder's engine is made for a first
// long message, which is then passed to Receive.
func New(cfg Config, now time.Time) *Engine { return &Engine{cfg: cfg} }

// Receive takes one message from the link. Messages that are malformed, changed on
// their way, duplicates, or not for this session are dropped with an error that is
// for counting only; a peer that violates the protocol ends the session by an event.
func (e *Engine) Receive(now time.Time, msg []byte) error { return nil }

// Poll builds the next message to send in buf and returns its length, 0 if there is
// none now. buf holds MaxMessage() bytes or more; messages of data have exactly
// MaxMessage() bytes but the last, and a probe for a larger size is built only if buf
// has room for it. A message that was polled counts as sent.
func (e *Engine) Poll(now time.Time, buf []byte) int { return 0 }

// Advance runs the timers that are due.
func (e *Engine) Advance(now time.Time) {}

// Deadline returns when Advance and then Poll are next to be called though nothing else
// happens, zero for never. It does not cover what Poll has to send at once: after
// every other call Poll comes first, unless the link cannot take more. After Advance
// it is later than now, so a timer never spins while the link is busy.
func (e *Engine) Deadline() time.Time { return time.Time{} }

// NextEvent returns the oldest event not yet returned, and false if there is none.
func (e *Engine) NextEvent() (Event, bool) { return Event{}, false }

// MaxMessage returns the size in bytes of full messages at present.
func (e *Engine) MaxMessage() int { return 0 }

// LimitMessage lowers the message size to max bytes because the link has refused
// or swallowed a larger one, and ends the probing above it.
func (e *Engine) LimitMessage(max int) {}

// Peer returns what the peer's HELLO states, and false before it is known.
func (e *Engine) Peer() (wire.Hello, bool) { return wire.Hello{}, false }

// Quiet reports whether nothing is under way: no transfer in either direction and
// nothing of ours unacknowledged. A clean Close waits for it.
func (e *Engine) Quiet() bool { return true }

// Close tells the peer and ends the session: the Closed event follows when CLOSE has
// been polled, so poll until Deadline is zero, or stop whenever the owner likes.
func (e *Engine) Close(now time.Time, code uint8, text string) {}

// Stats returns counters of the session so far.
func (e *Engine) Stats() Stats { return Stats{} }

// Stats are counters of one session, and estimates of its path.
type Stats struct {
	SentMessages, SentBytes         int64
	ReceivedMessages, ReceivedBytes int64
	LostMessages, SpuriousLosses    int64
	ResentBytes                     int64 // payload sent more than once
	SmoothedRTT, MinRTT             time.Duration
	Window                          int64 // congestion window in bytes; 0: no congestion control
	Rate                            int64 // pacing rate in bytes a second; 0: not paced
	Outstanding                     int64 // bytes sent and neither acknowledged nor lost
}

// What this side sends.

// Offer begins a transfer and returns its handle; o.Meta is all of the metadata and o stays the
// engine's. The handle and the sizes of the metadata are filled in. The transfer waits inside the
// engine while the peer's limit of transfers at once is reached, interactive ones first. ErrTooLarge if
// the peer is known to take no such offer; if that shows later, a Rejected event says so.
func (e *Engine) Offer(o *wire.Offer) (handle uint16, err error) { return 0, nil }

// Want returns how many bytes the transfer takes now: ReadAhead less what was supplied
// and not yet sent; 0 while it waits its turn, after Finish, and for a handle that is over.
// When it has risen from 0 a Wanted event says so.
func (e *Engine) Want(handle uint16) int { return 0 }

// Supply gives the engine the bytes of the image at offset. Offsets ascend; what they leave out
// must have been skipped by Resume. p stays the engine's until Released, except on error.
func (e *Engine) Supply(handle uint16, offset int64, p []byte) error { return nil }

// Resume answers one Accepted event: r.First, Count and Agree say which blocks of its run have the
// same digest here. These count as acknowledged: what was supplied of them and is not on its way
// is not sent, and Supply may leave them out. The rest of r is filled in, and r stays the engine's.
func (e *Engine) Resume(handle uint16, r *wire.Resume) error { return nil }

// Finish ends the data: the image has size bytes and the digest. All of it must have
// been supplied or skipped. Receipted or Rejected follows.
func (e *Engine) Finish(handle uint16, size int64, digest chunk.Digest) error { return nil }

// Cancel gives up a transfer, tells the receiver and releases its slices at once.
func (e *Engine) Cancel(handle uint16, reason uint8) {}

// Acked returns how many bytes of the image the receiver has acknowledged or held before.
func (e *Engine) Acked(handle uint16) int64 { return 0 }

// What this side receives.

// Accept answers an offer with OfferResume: it lists the held blocks in ascending order, or none.
// A Resumed event follows for each run of them.
func (e *Engine) Accept(handle uint16, held []chunk.Block) error { return nil }

// Consumed gives credit back: so many bytes, of so many Received events, wait no longer for
// this side's disk or program.
func (e *Engine) Consumed(bytes, events int) {}

// SetWindow changes how much this side takes, at first Local's, for a pool shared by
// sessions. Less than what is on its way takes effect as that arrives.
func (e *Engine) SetWindow(bytes, messages int) {}

// Receipt confirms a transfer; r.Handle, r.Attempt and r.ID are filled in.
func (e *Engine) Receipt(handle uint16, r *wire.Receipt) error { return nil }

// Reject refuses a transfer; r.Handle, r.Attempt and r.ID are filled in.
func (e *Engine) Reject(handle uint16, r *wire.Reject) error { return nil }
