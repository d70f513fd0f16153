package transport

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/pixferry/pixferry/chunk"
)

// An Arrival is one offer of an image. One goroutine at a time may feed it (Use, WriteAt, Finish,
// Abort); the other methods are safe for concurrent use. It is over after the first error of Use,
// WriteAt or Finish, and after Finish or Abort.
type Arrival struct {
	in        *Inbox
	offer     Offer
	asm       *assembly // nil: the receipt was known already
	duplicate bool
	held      []chunk.Block
	received  atomic.Int64
	told      atomic.Bool // hooks and log have been

	// Guarded by the turn of asm.
	over    bool
	receipt Receipt
	err     error
}

// ID returns the transfer's ID, which the Inbox has made if the offer had none.
func (a *Arrival) ID() ID { return a.offer.ID }

// Done returns the receipt if the image was kept under this ID before. Then nothing needs to be
// sent, and the Arrival is over.
func (a *Arrival) Done() (Receipt, bool) { return a.receipt, a.asm == nil }

// Held returns the complete blocks found for a resume, with their digests, in ascending order.
// Compare them with the sender's and call Use.
func (a *Arrival) Held() []chunk.Block { return a.held }

// Use says which blocks of Held the sender has with the same digest; the others are forgotten.
// Call it before the first WriteAt: otherwise all of Held is forgotten, because nobody has proven
// that it belongs to this image.
func (a *Arrival) Use(indices []int64) error {
	return a.feed(func(m *assembly) error { return m.settle(indices) })
}

// WriteAt takes bytes at an offset, in any order, and keeps no reference to p. Bytes that are
// held already are ignored. It returns len(p), or 0 and a *RejectedError for the sender, after
// which the Arrival is over. It is as slow as the Store.
func (a *Arrival) WriteAt(p []byte, off int64) (int, error) {
	if err := a.feed(func(m *assembly) error { return m.write(p, off) }); err != nil {
		return 0, err
	}
	return len(p), nil
}

// feed runs fn on the assembly if a is its owner. An error ends the assembly.
func (a *Arrival) feed(fn func(*assembly) error) error {
	m := a.asm
	if m == nil {
		return nil // kept already: whatever comes changes nothing
	}
	<-m.turn
	defer m.release()
	switch {
	case a.over && a.err == nil, m.phase == finishing:
		return nil // whole already
	case a.over:
		return a.err
	}
	err := fn(m)
	if err != nil {
		r := asRejected(err, ReasonDisk)
		m.fail(r, r.Retryable)
		return r
	}
	return nil
}

// Joined reports whether the image has come by an earlier offer of the ID, and is kept or being
// finished. Bytes are then ignored, and Finish returns that offer's receipt.
func (a *Arrival) Joined() bool {
	m := a.asm
	if m == nil {
		return true
	}
	<-m.turn
	defer m.release()
	if a.over {
		return a.err == nil
	}
	return m.phase == finishing
}

// Missing returns the first n ranges of missing bytes, in ascending order. While the size is
// unknown these are below the highest byte that has come.
func (a *Arrival) Missing(n int) []chunk.Range {
	m := a.asm
	if m == nil || n <= 0 {
		return nil
	}
	<-m.turn
	defer m.release()
	if a.over || m.phase != receiving {
		return nil
	}
	var gaps []chunk.Range
	for g := range m.bytes.Missing() {
		if gaps = append(gaps, g); len(gaps) == n {
			break
		}
	}
	return gaps
}

// Received returns how many bytes of the image are held.
func (a *Arrival) Received() int64 { return a.received.Load() }

// Finish says that all was sent. It verifies that the image is whole and matches digest, runs the
// Handler, commits, and returns the receipt, of level Kept. Any error but the context's is a
// *RejectedError for the sender.
//
// A size of -1 means the offered one or, if that is unknown, as much as has arrived. A zero
// digest means that the protocol has none. Missing bytes are ReasonIncomplete; a protocol that
// can ask for them calls Missing before.
//
// The context bounds only the wait. After its end the Handler goes on, the image is committed and
// the receipt remembered: the next offer of the ID is Done, or waits in Finish. With a context
// that cannot end Finish runs on the caller's goroutine.
func (a *Arrival) Finish(ctx context.Context, size int64, digest chunk.Digest) (Receipt, error) {
	m := a.asm
	if m == nil {
		return a.receipt, nil
	}
	if err := m.take(ctx); err != nil {
		return Receipt{}, err
	}
	if a.over {
		m.release()
		return a.receipt, a.err
	}
	if m.phase == receiving {
		m.phase = finishing
		if ctx.Done() == nil {
			m.release()
			m.finish(size, digest)
			return a.receipt, a.err
		}
		go m.finish(size, digest)
	}
	m.release()
	select {
	case <-m.done:
		return a.receipt, a.err
	case <-ctx.Done():
		return Receipt{}, ctx.Err()
	}
}

// Abort gives the image up: it is kept for a resume if the offer allows that, else discarded. A
// streaming Handler gets err. Abort does nothing after Finish or a first Abort.
func (a *Arrival) Abort(err error) {
	m := a.asm
	if m == nil {
		return
	}
	<-m.turn
	defer m.release()
	if err == nil {
		err = context.Canceled
	}
	r := asRejected(err, ReasonCanceled)
	switch {
	case a.over:
	case m.phase == receiving:
		m.fail(r, true)
	case m.owner != a:
		m.joined = slices.DeleteFunc(m.joined, func(j *Arrival) bool { return j == a })
		a.end(Receipt{}, r)
	}
}

// end makes the Arrival over.
func (a *Arrival) end(r Receipt, err error) {
	a.over, a.receipt, a.err = true, r, err
	if err == nil {
		a.received.Store(r.Bytes)
	}
	a.in.dismiss(a)
	a.complete(r, err)
}

// asRejected is err as a refusal: its own one, or else one that may be retried.
func asRejected(err error, reason Reason) *RejectedError {
	if r := (*RejectedError)(nil); errors.As(err, &r) {
		return r
	}
	if t := (*TooLargeError)(nil); errors.As(err, &t) {
		return reject(ReasonTooLarge, "%v", err)
	}
	if reason == ReasonDisk {
		return storeFailure(err)
	}
	return later(reason, "%v", err)
}

// storeFailure is what a sender hears of a Store's error: the system's own word at most, as the rest may have paths
// or addresses that are none of its business.
func storeFailure(err error) *RejectedError {
	r := later(ReasonDisk, "the receiver's store has failed, and its log says why")
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		r.Text = errno.Error()
	}
	r.cause = err
	return r
}
