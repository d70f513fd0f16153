package arq

import (
	"bytes"
	"errors"
	"math"
	"slices"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

const (
	earlyTransfers = 16        // at once before the peer's HELLO
	restedHandles  = 1<<15 - 1 // that lie between two uses of one
	offerCopies    = 2         // messages of DATA that repeat an offer not yet acknowledged,
	moreCopies     = 8         // of one too large for its repetition to count
	finCopies      = 2
	spareBytes     = 8 << 10 // of an image that may go twice at its end,
	spareParts     = 32      // and this part of it
)

// waitingOffers are transfers that wait because the peer takes no more at once.
type waitingOffers struct {
	interactive, bulk []*outgoing
	over              int32           // of those, about: they were given up
	handle            uint16          // of the next offer
	number            uint16          // of the next that starts, on the wire
	rest              map[uint16]bool // numbers that are left out when their turn comes
}

// rests reports whether a number, whose turn has come, is left out this time.
func (w *waitingOffers) rests(number uint16) bool {
	rests := w.rest[number]
	delete(w.rest, number)
	return rests
}

// pop takes out the offer whose turn it is, nil for none.
func (w *waitingOffers) pop() *outgoing {
	for _, q := range [...]*[]*outgoing{&w.interactive, &w.bulk} {
		for len(*q) > 0 {
			o := (*q)[0]
			if (*q)[0] = nil; len(*q) == 1 {
				*q = (*q)[:0] // and so from the beginning of its memory
			} else {
				*q = (*q)[1:]
			}
			if !o.over {
				return o
			}
			w.over--
		}
	}
	return nil
}

// giveUp notes that one of them was given up, and forgets those when they are most.
func (w *waitingOffers) giveUp() {
	if w.over++; 2*int(w.over) <= len(w.interactive)+len(w.bulk) {
		return
	}
	w.over = 0
	for _, q := range [...]*[]*outgoing{&w.interactive, &w.bulk} {
		*q = slices.DeleteFunc(*q, func(o *outgoing) bool { return o.over })
	}
}

var errHandles = errors.New("65,536 transfers run or wait on this session already: wait for some to end")

// Offer begins a transfer and returns its handle; o.Meta is all of the metadata and o stays the
// engine's. The handle on the wire and the sizes of the metadata are filled in. The transfer waits inside the
// engine while the peer's limit of transfers at once is reached, interactive ones first. ErrTooLarge if
// the peer is known to take no such offer; if that shows later, a Rejected event says so.
func (e *Engine) Offer(f *wire.Offer) (handle uint16, err error) {
	if e.ending.over() {
		return 0, e.ending.err
	}
	if p := &e.handshake.peer; e.handshake.known && (len(f.Meta) > int(p.Metadata) ||
		f.Kind == wire.KindMessage && f.Size > int64(p.MessageBytes)) || len(f.Meta) > 1<<16-1 {
		return 0, ErrTooLarge
	}
	if e.outs.len() > math.MaxUint16 {
		return 0, errHandles
	}
	for e.outs.get(e.waiting.handle) != nil {
		e.waiting.handle++
	}
	f.MetaSize, f.MetaOffset = uint16(len(f.Meta)), 0
	o := newOutgoing(f, e.waiting.handle)
	e.waiting.handle++
	e.outs.add(o.handle, o)
	if q := &e.waiting.bulk; o.interactive {
		e.waiting.interactive = append(e.waiting.interactive, o)
	} else {
		*q = add(*q, o)
	}
	e.checkWaiting()
	return o.handle, nil
}

// checkWaiting starts transfers as long as the peer takes more.
func (e *Engine) checkWaiting() {
	most := earlyTransfers
	if e.handshake.known {
		most = int(e.handshake.peer.Transfers)
	}
	for most == 0 || e.running < most {
		o := e.waiting.pop()
		switch {
		case o == nil:
			return
		case most == 0:
			e.events.push(Event{Kind: Rejected, Handle: o.handle, Reject: &wire.Reject{ID: o.offer.ID,
				Reason: reasonNotServing, Text: "the peer takes no transfers"}})
			e.drop(o)
		default:
			e.start(o)
		}
	}
}

// start queues the OFFER. Only now it has a handle on the wire, so that the peer, which remembers those that are over,
// sees no gaps by what was given up or overtaken while it waited.
func (e *Engine) start(o *outgoing) {
	w := &e.waiting
	for e.numbered(w.number) != nil || w.rests(w.number) {
		w.number++
	}
	o.started, o.number, o.offer.Handle = true, w.number, w.number
	w.number++
	e.running++
	o.usual.offer.frame = o.offer
	o.controls = add(o.controls, e.controls.add(&o.usual.offer))
	if e.recovery != nil && o.offer.Len() <= e.frameRoom() {
		if o.copies = offerCopies; uint64(o.offer.Size) > maxRepaired {
			o.copies = moreCopies
		}
	}
	e.ensure(o)
	e.wanted(o)
}

// numbered returns the transfer that has a handle on the wire, nil for none. Those that have started are mostly the first.
func (e *Engine) numbered(number uint16) *outgoing {
	left := e.running
	for i := 0; left > 0; i++ {
		switch o := e.outs.list[i].value; {
		case !o.started:
		case o.number == number:
			return o
		default:
			left--
		}
	}
	return nil
}

// wanted reports that a transfer takes more bytes, when at least half of the read-ahead is due.
func (e *Engine) wanted(o *outgoing) {
	if !o.asked && e.want(o) > e.cfg.ReadAhead/2 {
		o.asked = true
		e.events.push(Event{Kind: Wanted, Handle: o.handle})
	}
}

// drop ends a transfer on this side and releases its slices.
func (e *Engine) drop(o *outgoing) {
	for _, c := range o.controls {
		e.controls.drop(c)
	}
	for i := range o.pieces.list {
		e.events.push(Event{Kind: Released, Handle: o.handle, Data: o.pieces.list[i].data})
	}
	clear(o.pieces.list)
	o.parity = nil
	o.over, o.pieces, o.acked, o.lost, o.twice, o.controls = true, pieces{}, chunk.Ranges{}, chunk.Ranges{}, chunk.Ranges{}, nil
	e.outs.remove(o.handle)
	if !o.started {
		e.waiting.giveUp()
		return
	}
	e.running--
	if w := &e.waiting; o.number-w.number < restedHandles { // so soon that what is late for it would be for the next
		if w.rest == nil {
			w.rest = make(map[uint16]bool)
		}
		w.rest[o.number] = true
	}
	e.checkWaiting()
}

// Want returns how many bytes the transfer takes now: ReadAhead less what was supplied
// and not yet sent; 0 while the transfer holds the largest window of the peer so far and
// ReadAhead, while it waits its turn, after Finish, and for a handle that is over.
// A Wanted event says when it has risen from 0, or to more than half of ReadAhead.
func (e *Engine) Want(handle uint16) int {
	if o := e.outs.get(handle); o != nil {
		return e.want(o)
	}
	return 0
}

// want limits what one transfer holds to the largest window that the peer has told of and the read-ahead.
func (e *Engine) want(o *outgoing) int {
	return o.want(e.cfg.ReadAhead, e.credit.most+int64(e.cfg.ReadAhead))
}

// Supply gives the engine the bytes of the image at offset. Offsets ascend; what they leave out
// must have been skipped by Resume. p stays the engine's until Released, except on error.
func (e *Engine) Supply(handle uint16, offset int64, p []byte) error {
	o := e.outs.get(handle)
	switch {
	case o == nil || !o.started:
		return ErrHandle
	case offset < o.end || offset+int64(len(p)) > wire.MaxSize || o.size >= 0 || !o.acked.Contains(o.end, offset):
		return ErrOrder
	}
	o.asked = false
	var done scratch
	e.release(o, o.supply(offset, p, done[:0]))
	e.schedule.add(o)
	e.wanted(o)
	return nil
}

// Resume answers one Accepted event: r.First, Count and Agree say which blocks of its run have the
// same digest here. These count as acknowledged: what was supplied of them and is not on its way
// is not sent, and Supply may leave them out. The rest of r is filled in, and r stays the engine's.
func (e *Engine) Resume(handle uint16, r *wire.Resume) error {
	o := e.outs.get(handle)
	if o == nil {
		return ErrHandle
	}
	r.Handle, r.Attempt = o.number, o.offer.Attempt
	for i := range int(r.Count) {
		if r.Agrees(i) {
			b := chunk.BlockRange(int64(r.First)+int64(i), o.offer.Size)
			var done scratch
			e.release(o, o.skip(b.Start, b.End, done[:0]))
		}
	}
	o.controls = add(o.controls, e.controls.add(&control{frame: r}))
	if !o.progress {
		o.progress = true
		e.events.push(Event{Kind: Progress, Handle: handle})
	}
	e.wanted(o)
	return nil
}

// Finish ends the data: the image has size bytes and the digest. All of it must have
// been supplied or skipped. Receipted or Rejected follows.
func (e *Engine) Finish(handle uint16, size int64, digest chunk.Digest) error {
	o := e.outs.get(handle)
	switch {
	case o == nil || !o.started:
		return ErrHandle
	case o.size >= 0 || size < o.end || !o.acked.Contains(o.end, size):
		return ErrOrder
	}
	o.size = size
	u := &o.usual
	u.fin = wire.Fin{Handle: o.number, Attempt: o.offer.Attempt, Size: size, Algorithm: digest.Algorithm(), Digest: digest.Append(u.digest[:0])}
	u.end.frame = &u.fin
	o.controls = add(o.controls, e.controls.add(&u.end))
	if e.recovery != nil && e.recovery.cc != nil {
		o.spare = spareBytes + size/spareParts
	}
	e.encode(o)
	e.schedule.add(o)
	return nil
}

// Cancel gives up a transfer, tells the receiver and releases its slices at once.
func (e *Engine) Cancel(handle uint16, reason uint8) {
	o := e.outs.get(handle)
	if o == nil {
		return
	}
	if o.started {
		e.controls.add(&control{frame: &wire.Cancel{Handle: o.number, Attempt: o.offer.Attempt, Reason: reason}})
	}
	e.drop(o)
}

// Acked returns how many bytes of the image the receiver has acknowledged or held before.
func (e *Engine) Acked(handle uint16) int64 {
	if o := e.outs.get(handle); o != nil {
		return o.acked.Covered()
	}
	return 0
}

func (e *Engine) onAccept(body []byte) error {
	var f wire.Accept
	if err := f.Parse(body); err != nil {
		return err
	}
	e.batch.urgent = true
	o := e.numbered(f.Handle)
	if o == nil || f.Attempt != o.offer.Attempt {
		return nil
	}
	f.Digests = bytes.Clone(f.Digests)
	e.events.push(Event{Kind: Accepted, Handle: o.handle, Accept: &f})
	return nil
}

func (e *Engine) onReceipt(body []byte) error {
	var f wire.Receipt
	if err := f.Parse(body); err != nil {
		return err
	}
	e.batch.soon = true
	o := e.numbered(f.Handle)
	if o == nil || f.Attempt != o.offer.Attempt || f.ID != o.offer.ID {
		return nil
	}
	kept := &struct {
		wire.Receipt
		digest [32]byte
	}{Receipt: f}
	kept.Digest = append(kept.digest[:0], f.Digest...)
	e.drop(o)
	e.events.push(Event{Kind: Receipted, Handle: o.handle, Receipt: &kept.Receipt, Offset: o.resent})
	return nil
}

func (e *Engine) onReject(body []byte) error {
	var f wire.Reject
	if err := f.Parse(body); err != nil {
		return err
	}
	e.batch.urgent = true
	o := e.numbered(f.Handle)
	if o == nil || f.Attempt != o.offer.Attempt || f.ID != o.offer.ID {
		return nil
	}
	e.drop(o)
	e.events.push(Event{Kind: Rejected, Handle: o.handle, Reject: &f})
	return nil
}
