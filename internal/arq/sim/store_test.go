package sim

import (
	"bytes"
	"slices"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
)

// receiver is a program that takes images, with what it keeps through crashes.
type receiver struct {
	w   *world
	ep  *endpoint
	cfg arq.Config

	committed map[[16]byte]int64    // sizes of what is kept
	partials  map[[16]byte]*partial // of what is not yet
	arrivals  map[*session]map[uint16]*arrival
	leases    map[[16]byte]*arrival
	disk      time.Duration // a write waits up to so long
	handler   time.Duration // a Handler takes up to so long
	rot       float64       // probability that a held block has changed on disk
	up        bool
	lives     int // crashes so far: what is scheduled by an older life is void
}

// partial is a durable part of an image.
type partial struct {
	data   []byte
	blocks map[int64]bool // whole on disk
}

// arrival is an image on its way in over one session.
type arrival struct {
	s       *session
	handle  uint16
	offer   wire.Offer
	part    *partial
	got     chunk.Ranges // on disk
	seen    chunk.Ranges // reported
	answers int          // runs of held blocks the sender has not yet answered
	open    bool         // writing may begin
	queue   []arq.Event  // what is to be written
	fin     *wire.Fin
	over    bool
}

func newReceiver(w *world, ep *endpoint, cfg arq.Config) *receiver {
	r := &receiver{w: w, ep: ep, cfg: cfg, committed: map[[16]byte]int64{}, partials: map[[16]byte]*partial{}}
	r.boot()
	return r
}

// boot starts the program, at first or after a crash.
func (r *receiver) boot() {
	if r.up {
		return
	}
	r.up = true
	r.lives++
	r.arrivals, r.leases = map[*session]map[uint16]*arrival{}, map[[16]byte]*arrival{}
	r.ep.down = false
	for _, p := range r.partials { // what was not durable is gone
		for i := range int64(len(p.data)+chunk.BlockSize-1) / chunk.BlockSize {
			if !p.blocks[i] {
				b := chunk.BlockRange(i, int64(len(p.data)))
				clear(p.data[b.Start:b.End])
			}
		}
	}
	r.ep.listen = func(h *wire.Header) *session {
		cfg := r.cfg
		cfg.LocalCID, cfg.RemoteCID, cfg.FirstCID = r.w.cid(), h.Source, h.Dest
		var s *session
		s = r.ep.add(cfg, func(ev arq.Event) { r.event(s, ev) })
		r.arrivals[s] = map[uint16]*arrival{}
		r.w.log("b: session %x begins", cfg.LocalCID)
		return s
	}
}

func (r *receiver) crash() {
	r.w.log("b: crash")
	r.ep.crash()
	r.up = false
	r.lives++
}

// later runs f in this life, and pumps the session if it is still there.
func (r *receiver) later(d time.Duration, s *session, f func()) {
	life := r.lives
	r.w.clock.After(r.w.upTo(d), func() {
		if r.lives == life {
			f()
			s.pump()
		}
	})
}

func (r *receiver) event(s *session, ev arq.Event) {
	a := r.arrivals[s][ev.Handle]
	if a != nil && a.over && ev.Kind != arq.Offered && ev.Kind != arq.Closed { // queued before it was answered
		if ev.Kind == arq.Received {
			s.Consumed(len(ev.Data), 1)
		}
		return
	}
	switch ev.Kind {
	case arq.Offered:
		a = &arrival{s: s, handle: ev.Handle, offer: *ev.Offer}
		r.arrivals[s][ev.Handle] = a
		r.later(r.disk, s, func() { r.offered(a) })
	case arq.Received:
		if a == nil {
			r.w.fail("b: data for handle %d, which was never offered", ev.Handle)
			return
		}
		if end := ev.Offset + int64(len(ev.Data)); a.seen.Add(ev.Offset, end) != int64(len(ev.Data)) {
			r.w.fail("b: bytes %d to %d were reported before", ev.Offset, end)
		}
		ev.Data = bytes.Clone(ev.Data)
		a.queue = append(a.queue, ev)
		r.later(r.disk, s, func() { r.write(a) })
	case arq.Resumed:
		r.resumed(a, ev.Resume)
	case arq.Finished:
		a.fin = ev.Fin
		r.write(a)
	case arq.Canceled:
		r.drop(a)
	case arq.Closed:
		r.w.log("b: session ends: %v", ev.Err)
		for _, a := range r.sorted(s) {
			r.drop(a)
		}
		delete(r.arrivals, s)
		r.w.clock.After(10*time.Second, s.remove)
	}
}

func (r *receiver) sorted(s *session) (list []*arrival) {
	for h := range 1 << 16 {
		if len(list) == len(r.arrivals[s]) {
			break
		}
		if a := r.arrivals[s][uint16(h)]; a != nil {
			list = append(list, a)
		}
	}
	return list
}

// offered decides about an offer.
func (r *receiver) offered(a *arrival) {
	if a.over {
		return
	}
	id := a.offer.ID
	if size, ok := r.committed[id]; ok {
		r.receipt(a, size, wire.ReceiptDuplicate)
		return
	}
	if older := r.leases[id]; older != nil && !older.over {
		if older.offer.Attempt >= a.offer.Attempt {
			r.reject(a, 11)
			return
		}
		r.reject(older, 11)
	}
	r.leases[id] = a
	a.part = r.partials[id]
	if a.part == nil || a.offer.Flags&wire.OfferResume == 0 {
		a.part = &partial{data: make([]byte, max(a.offer.Size, 0)), blocks: map[int64]bool{}}
		r.partials[id] = a.part
	}
	if a.offer.Flags&wire.OfferResume == 0 {
		a.open = true
		r.write(a)
		return
	}
	var held []chunk.Block
	for i := range chunk.BlockCount(a.offer.Size) {
		if a.part.blocks[i] {
			b := chunk.BlockRange(i, a.offer.Size)
			if r.w.rand.Float64() < r.rot {
				a.part.data[b.Start+r.w.rand.Int64N(b.Len())] ^= 0x55
			}
			held = append(held, chunk.Block{Index: i, Digest: contentDigest(a.part.data[b.Start:b.End])})
		}
	}
	r.w.log("b: offer %x attempt %d: %d blocks held", id[15], a.offer.Attempt, len(held))
	a.answers = len(held)
	a.open = len(held) == 0
	if err := a.s.Accept(a.handle, held); err != nil {
		r.w.fail("accept: %v", err)
	}
	r.write(a)
}

func (r *receiver) resumed(a *arrival, f *wire.Resume) {
	if a.over {
		return
	}
	for i := range int(f.Count) {
		block := int64(f.First) + int64(i)
		a.answers--
		if f.Agrees(i) {
			b := chunk.BlockRange(block, a.offer.Size)
			a.got.Add(b.Start, b.End)
		} else {
			delete(a.part.blocks, block)
		}
	}
	if a.answers == 0 {
		a.open = true
		r.write(a)
	}
}

// write puts on disk what has arrived, and ends the image once it is whole.
func (r *receiver) write(a *arrival) {
	if a == nil || !a.open && !a.over {
		return
	}
	for _, ev := range a.queue {
		a.s.Consumed(len(ev.Data), 1)
		if a.over {
			continue
		}
		end := ev.Offset + int64(len(ev.Data))
		a.got.Add(ev.Offset, end)
		if grow := end - int64(len(a.part.data)); grow > 0 {
			a.part.data = append(a.part.data, make([]byte, grow)...)
		}
		copy(a.part.data[ev.Offset:], ev.Data)
		for i := ev.Offset / chunk.BlockSize; i*chunk.BlockSize < end && a.offer.Size >= 0; i++ {
			if b := chunk.BlockRange(i, a.offer.Size); a.got.Contains(b.Start, b.End) {
				a.part.blocks[i] = true
			}
		}
	}
	a.queue = nil
	if a.fin == nil || a.over {
		return
	}
	if !a.got.Contains(0, a.fin.Size) {
		r.w.fail("b: finished with %d of %d bytes", a.got.Covered(), a.fin.Size)
	}
	fin := a.fin
	a.fin = nil
	r.later(r.handler, a.s, func() { r.commit(a, fin) })
}

// commit verifies an image and keeps it: the one place where an image becomes visible.
func (r *receiver) commit(a *arrival, fin *wire.Fin) {
	id := a.offer.ID
	if a.over && r.leases[id] != a {
		return
	}
	want := make([]byte, fin.Size)
	bytesAt(want, uint64(id[15]), 0)
	if !bytes.Equal(a.part.data[:fin.Size], want) || !bytes.Equal(fin.Digest, digestOf(uint64(id[15]), fin.Size).Append(nil)) {
		r.w.fail("b: image %x arrived wrong", id[15])
	}
	if _, twice := r.committed[id]; twice {
		r.w.fail("b: image %x committed twice", id[15])
	}
	r.committed[id] = fin.Size
	delete(r.partials, id)
	delete(r.leases, id)
	r.w.log("b: image %x committed", id[15])
	if r.w.rand.IntN(20) == 0 && r.rot > 0 { // between commit and receipt
		r.crash()
		r.w.clock.After(r.w.upTo(2*time.Second), r.boot)
		return
	}
	r.receipt(a, fin.Size, 0)
}

func (r *receiver) receipt(a *arrival, size int64, flags uint8) {
	d := digestOf(uint64(a.offer.ID[15]), size).Append(nil)
	a.s.Receipt(a.handle, &wire.Receipt{Level: wire.LevelKept, Flags: flags, Bytes: size, Algorithm: 2, Digest: d})
	r.drop(a)
}

func (r *receiver) reject(a *arrival, reason uint8) {
	a.s.Reject(a.handle, &wire.Reject{Reason: reason, Flags: wire.RejectRetryable})
	r.drop(a)
	a.s.pump()
}

// drop ends an arrival on this side; credit comes back. Its record stays as long as the session.
func (r *receiver) drop(a *arrival) {
	if a == nil {
		return
	}
	a.over = true
	r.write(a)
}

// idle reports whether nothing is on its way in.
func (r *receiver) idle() bool {
	return !slices.ContainsFunc(r.ep.order, func(s *session) bool {
		return slices.ContainsFunc(r.sorted(s), func(a *arrival) bool { return !a.over })
	})
}
