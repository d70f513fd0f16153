package arq

import (
	"slices"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

// maxFragments bounds the ranges of one transfer that a hostile peer can leave open.
const maxFragments = 1 << 14

// incoming is a transfer from the peer.
type incoming struct {
	handle  uint16
	counter int64 // the handle, expanded
	id      [16]byte
	attempt uint32
	told    *told        // until the transfer is answered
	offer   *wire.Offer  // in told
	meta    chunk.Ranges // parts of the metadata that are there
	offered bool         // the metadata is whole and Offered was reported

	size int64 // from OFFER or FIN; -1: unknown
	got  chunk.Ranges
	fin  *wire.Fin // in told
	held []heldRun // reported by ACCEPT and not yet answered

	repair repairable

	finished bool // reported
	answered bool // RECEIPT or REJECT was given
	open     int  // controls that the peer has not acknowledged
	answer   control
	run      [1]chunk.Range // memory for got
}

// told is what events point to, and their owner may keep.
type told struct {
	offer  wire.Offer
	fin    wire.Fin
	digest [32]byte
}

// heldRun is a run of blocks in one ACCEPT.
type heldRun struct {
	first uint32
	count int
}

func (r heldRun) overlaps(o heldRun) bool {
	return int64(r.first) < int64(o.first)+int64(o.count) && int64(o.first) < int64(r.first)+int64(r.count)
}

// apart reports whether bytes touch none that are there, and so make one range more.
func (in *incoming) apart(start, end int64) bool {
	around := chunk.Range{Start: max(start-1, 0), End: end + 1}
	gap, _ := in.got.NextGap(around.Start, around.End)
	return gap == around
}

// complete reports whether every byte is there and FIN was seen.
func (in *incoming) complete() bool {
	return in.fin != nil && in.got.Covered() == in.fin.Size
}

// resume takes a RESUME for a run and marks the blocks that agree; false if no such run
// stands open, because it was answered before or never reported. With it go the runs that it was cut from, and into.
func (in *incoming) resume(f *wire.Resume) bool {
	this := heldRun{f.First, int(f.Count)}
	if !slices.Contains(in.held, this) {
		return false
	}
	in.held = slices.DeleteFunc(in.held, this.overlaps)
	for i := range this.count {
		if f.Agrees(i) {
			r := chunk.BlockRange(int64(f.First)+int64(i), in.size)
			in.got.Add(r.Start, r.End)
		}
	}
	return true
}

// handles remembers which of the peer's transfers are over, so that what comes late for
// them is acknowledged and otherwise ignored. Handles are used cyclically; expanded they
// count up.
type handles struct {
	highest int64
	over    chunk.Ranges
}

func newHandles(memory []chunk.Range) handles {
	return handles{highest: 1<<16 - 1, over: chunk.NewRanges(memory)}
}

// expand returns the counter whose low 16 bits are handle and that is closest to the highest.
func (h *handles) expand(handle uint16) int64 {
	n := h.highest + 1
	return n + int64(int16(handle-uint16(n)))
}

func (h *handles) isOver(counter int64) bool { return h.over.Contains(counter, counter+1) }

// end notes that a transfer is over. It reports false if the peer leaves more holes than
// transfers at once can explain.
func (h *handles) end(counter int64) bool {
	h.over.Add(counter, counter+1)
	h.highest = max(h.highest, counter)
	h.over.Remove(0, h.highest-1<<15)
	return h.over.Count() <= 1<<10
}
