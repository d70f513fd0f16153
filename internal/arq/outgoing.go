package arq

import (
	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

// outgoing is a transfer to the peer.
type outgoing struct {
	handle      uint16 // the owner's
	number      uint16 // the handle on the wire, once it has started
	interactive bool
	started     bool // not waiting for its turn
	over        bool // no longer in the table; messages in flight may still point here
	ready       bool // in a runQueue
	asked       bool // a Wanted event stands unanswered
	progress    bool // a Progress event waits
	offer       *wire.Offer
	controls    []*control
	usual       usual

	size   int64 // known at Finish; -1 before
	pieces pieces
	end    int64 // of what was supplied or skipped
	next   int64 // the first byte never sent
	unsent int64 // supplied bytes never sent
	acked  chunk.Ranges
	lost   chunk.Ranges // sent, believed lost, not sent again; never overlaps acked
	twice  chunk.Ranges // sent again at the end of the image, to be sent once more; never overlaps acked
	spare  int64        // bytes that may yet go twice
	resent int64        // bytes sent more than once

	symbol   int      // DATA does not cross its multiples; 0: no parity
	parities int      // symbols of parity
	parity   [][]byte // those not yet sent

	following *outgoing // in the runQueue
	copies    int       // messages of DATA that repeat the offer
}

// usual is the memory for what most transfers have, one piece, an OFFER and a FIN, so that it is taken at once.
type usual struct {
	piece      [1]piece
	acked      [1]chunk.Range
	controls   [2]*control
	offer, end control // end is without a frame before Finish
	fin        wire.Fin
	digest     [32]byte
}

// newOutgoing returns the record of a transfer that waits.
func newOutgoing(f *wire.Offer, handle uint16) *outgoing {
	o := &outgoing{handle: handle, offer: f, size: -1, interactive: f.Flags&wire.OfferInteractive != 0}
	u := &o.usual
	o.controls, o.pieces.list, o.acked = u.controls[:0], u.piece[:0], chunk.NewRanges(u.acked[:0])
	return o
}

// hasData reports whether there is data that could be sent.
func (o *outgoing) hasData() bool {
	return !o.over && (o.unsent > 0 || o.lost.Count() > 0 || o.twice.Count() > 0 || len(o.parity) > 0)
}

// slice returns the next range to send, at most max bytes: what was lost first.
func (o *outgoing) slice(max int64) (r chunk.Range, again bool) {
	switch {
	case o.lost.Count() > 0:
		r, again = o.lost.At(0), true
	case o.unsent > 0:
		r, _ = o.acked.NextGap(o.next, o.end)
	default:
		r, again = o.twice.At(0), true
	}
	if o.symbol > 0 {
		max = min(max, int64(o.symbol)-r.Start%int64(o.symbol))
	}
	r.End = min(r.End, r.Start+max)
	return r, again
}

// sent notes that a range that slice returned is on its way. What was lost of the end of an image goes twice:
// the image would wait a whole round trip for each further loss. It is a small part of the image.
func (o *outgoing) sent(r chunk.Range, again bool) {
	switch {
	case again && o.lost.Count() > 0:
		o.lost.Remove(r.Start, r.End)
		if o.spare > 0 && o.next == o.size {
			o.spare -= r.Len()
			o.twice.Add(r.Start, r.End)
		}
		return
	case again:
		o.twice.Remove(r.Start, r.End)
		return
	}
	o.next = r.End
	o.unsent -= r.Len()
}

// ack notes that a range has arrived. It appends the slices that are done with to done,
// and reports whether anything was new.
func (o *outgoing) ack(start, end int64, done [][]byte) ([][]byte, bool) {
	fresh := false
	for g := range o.acked.Gaps(start, end) {
		fresh = true
		done = o.pieces.acked(g.Start, g.End, done)
	}
	if fresh {
		o.acked.Add(start, end)
		if o.lost.Count() > 0 {
			o.lost.Remove(start, end)
		}
		if o.twice.Count() > 0 {
			o.twice.Remove(start, end)
		}
	}
	return done, fresh
}

// lose notes that a range is believed lost.
func (o *outgoing) lose(start, end int64) {
	for g := range o.acked.Gaps(start, end) {
		o.lost.Add(g.Start, g.End)
	}
}

// supply takes bytes. What Resume has skipped is not counted as unsent.
func (o *outgoing) supply(offset int64, p []byte, done [][]byte) [][]byte {
	missing := 0
	end := offset + int64(len(p))
	for g := range o.acked.Gaps(offset, end) {
		missing += int(g.Len())
	}
	o.end = end
	if missing == 0 {
		return append(done, p)
	}
	o.pieces.add(offset, p, missing)
	o.unsent += int64(missing)
	return done
}

// skip notes that the receiver holds a range already.
func (o *outgoing) skip(start, end int64, done [][]byte) [][]byte {
	for g := range o.acked.Gaps(max(start, o.next), min(end, o.end)) {
		o.unsent -= g.Len()
	}
	done, _ = o.ack(start, end, done)
	return done
}

// want returns how many bytes the transfer takes with so much read-ahead, if it may hold
// most bytes: a lost message keeps all of its piece in memory.
func (o *outgoing) want(readAhead int, most int64) int {
	if !o.started || o.over || o.size >= 0 || o.pieces.size >= most {
		return 0
	}
	return max(readAhead-int(o.unsent), 0)
}
