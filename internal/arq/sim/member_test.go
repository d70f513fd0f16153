package sim

import (
	"bytes"
	"fmt"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
)

// member is one end of a session in TestChaos.
type member struct {
	*session
	w     *world
	name  string
	count byte // of its transfers
	out   map[uint16]*shipment
	in    map[uint16]*cargo
	open  int // calls that are scheduled
	most  int // bytes of a message, as the link has told; 0: it has not
}

// shipment is a transfer to the peer.
type shipment struct {
	id       byte
	size     int64
	supplied int64
	wait     bool // for ACCEPT
	listed   uint32
	held     chunk.Ranges
}

// cargo is a transfer from the peer.
type cargo struct {
	offer *wire.Offer
	got   chunk.Ranges
}

func (x *member) String() string {
	return fmt.Sprintf("%s: %d calls, quiet %v, out %+v, in %+v, %+v", x.name, x.open, x.session == nil || x.Quiet(), x.out, x.in, x.session)
}

func (x *member) begin(ep *endpoint, cfg arq.Config) {
	x.out, x.in = map[uint16]*shipment{}, map[uint16]*cargo{}
	x.session = ep.add(cfg, x.event)
	if x.most > 0 {
		x.LimitMessage(x.most)
	}
}

// limit says that the link takes no more than most bytes at once.
func (x *member) limit(most int) {
	if x.most == 0 || most < x.most {
		x.most = most
	}
	if x.session != nil {
		x.LimitMessage(most)
		x.pump()
	}
}

// idle reports whether everything has ended.
func (x *member) idle() bool {
	return x.open == 0 && (x.session == nil || len(x.out) == 0 && len(x.in) == 0 && x.Quiet())
}

// later calls f after a while.
func (x *member) later(d time.Duration, f func()) {
	x.open++
	x.w.clock.After(x.w.upTo(d), func() {
		x.open--
		f()
		x.pump()
	})
}

func (x *member) send() {
	if x.session == nil {
		return
	}
	r := x.w.rand
	x.count++
	s := &shipment{id: x.count, size: int64(200_000 * r.Float64() * r.Float64() * r.Float64())}
	f := &wire.Offer{Size: s.size, Algorithm: 2, Attempt: 1, Meta: make([]byte, max(0, r.IntN(6000)-3000))}
	bytesAt(f.Meta, uint64(s.id), 0)
	f.ID[0], f.ID[15] = x.name[0], s.id
	switch r.IntN(6) {
	case 0:
		f.Flags = wire.OfferInteractive
	case 1:
		f.Size = wire.UnknownSize
	case 2, 3:
		s.size += chunk.BlockSize * r.Int64N(30) * r.Int64N(3) / 2
		f.Size, f.Flags = s.size, wire.OfferResume
		s.wait = s.size > 1<<20 || r.IntN(2) == 0
	}
	h, err := x.Offer(f)
	if err != nil {
		x.w.fail("%s: offer: %v", x.name, err)
	}
	x.out[h] = s
	x.w.log("%s: offers %d as handle %d, %d bytes, flags %x, metadata %d", x.name, s.id, h, s.size, f.Flags, len(f.Meta))
	if r.IntN(4) == 0 {
		x.later(5*time.Second, func() {
			if x.out[h] == s {
				x.w.log("%s: cancels %d", x.name, s.id)
				x.Cancel(h, 13)
				delete(x.out, h)
			}
		})
	}
	x.pump()
}

func (x *member) supply(h uint16) {
	s := x.out[h]
	if s == nil || s.wait {
		return
	}
	for x.Want(h) > 0 && s.supplied < s.size {
		g, ok := s.held.NextGap(s.supplied, s.size)
		if !ok {
			s.supplied = s.size
			break
		}
		p := make([]byte, min(g.Len(), 1+x.w.rand.Int64N(64<<10)))
		bytesAt(p, uint64(s.id), g.Start)
		if err := x.Supply(h, g.Start, p); err != nil {
			x.w.fail("%s: supply: %v", x.name, err)
		}
		s.supplied = g.Start + int64(len(p))
	}
	if _, more := s.held.NextGap(s.supplied, s.size); !more {
		x.Finish(h, s.size, digestOf(uint64(s.id), s.size))
	}
}

func (x *member) event(ev arq.Event) {
	h := ev.Handle
	switch ev.Kind {
	case arq.Wanted:
		x.later(3*time.Millisecond, func() { x.supply(h) })
	case arq.Accepted:
		x.later(20*time.Millisecond, func() { x.accepted(h, ev.Accept) })
	case arq.Receipted, arq.Rejected:
		if x.out[h] == nil {
			x.w.fail("%s: an answer for handle %d, which is over", x.name, h)
		}
		if ev.Reject != nil && (ev.Reject.Reason != 5 || len(ev.Reject.Text) < 100) {
			x.w.fail("%s: %d rejected with %+v", x.name, x.out[h].id, ev.Reject)
		}
		x.w.log("%s: %d has its answer, rejected %v", x.name, x.out[h].id, ev.Reject != nil)
		delete(x.out, h)
	case arq.Offered:
		x.offered(h, ev.Offer)
	case arq.Received:
		x.received(h, ev)
	case arq.Resumed:
		if in := x.in[h]; in != nil {
			for i := range int(ev.Resume.Count) {
				if ev.Resume.Agrees(i) {
					b := chunk.BlockRange(int64(ev.Resume.First)+int64(i), in.offer.Size)
					in.got.Add(b.Start, b.End)
				}
			}
		}
	case arq.Finished:
		x.finished(h, ev.Fin)
	case arq.Canceled:
		if x.in[h] == nil || ev.Reason != 13 {
			x.w.fail("%s: handle %d canceled for reason %d", x.name, h, ev.Reason)
		}
		delete(x.in, h)
	case arq.Closed:
		x.w.fail("%s: closed: %v", x.name, ev.Err)
	}
}

// accepted answers a run of held blocks, of which some agree.
func (x *member) accepted(h uint16, f *wire.Accept) {
	s := x.out[h]
	if s == nil {
		return
	}
	n := f.Count()
	if n > 0 {
		answer := &wire.Resume{First: f.First, Count: uint16(n), Agree: make([]byte, (n+7)/8)}
		for i := range n {
			b := chunk.BlockRange(int64(f.First)+int64(i), s.size)
			if f.Digests[i*32]&31 > 0 {
				answer.Agree[i/8] |= 1 << (i % 8)
				s.held.Add(b.Start, b.End)
			}
		}
		if err := x.Resume(h, answer); err != nil {
			x.w.fail("%s: resume: %v", x.name, err)
		}
	}
	if s.listed += uint32(n); s.listed >= f.Held {
		s.wait = false
		x.supply(h)
	}
}

func (x *member) offered(h uint16, f *wire.Offer) {
	want := make([]byte, len(f.Meta))
	if bytesAt(want, uint64(f.ID[15]), 0); !bytes.Equal(want, f.Meta) {
		x.w.fail("%s: wrong metadata of %d", x.name, f.ID[15])
	}
	if x.in[h] != nil {
		x.w.fail("%s: handle %d is offered twice", x.name, h)
	}
	in := &cargo{offer: f}
	x.in[h] = in
	var held []chunk.Block
	for i := range chunk.BlockCount(f.Size) {
		if x.w.rand.IntN(20) > 0 {
			held = append(held, chunk.Block{Index: i, Digest: digestOf(uint64(f.ID[15]), i)})
		}
	}
	x.later(20*time.Millisecond, func() {
		switch {
		case x.in[h] != in:
		case x.w.rand.IntN(8) == 0:
			x.Reject(h, &wire.Reject{Reason: 5, Text: string(bytes.Repeat([]byte("no"), 500))})
			delete(x.in, h)
		case f.Flags&wire.OfferResume != 0:
			if err := x.Accept(h, held); err != nil {
				x.w.fail("%s: accept: %v", x.name, err)
			}
		}
	})
}

func (x *member) received(h uint16, ev arq.Event) {
	if in := x.in[h]; in != nil {
		want := make([]byte, len(ev.Data))
		if bytesAt(want, uint64(in.offer.ID[15]), ev.Offset); !bytes.Equal(want, ev.Data) {
			x.w.fail("%s: wrong bytes of %d at %d", x.name, in.offer.ID[15], ev.Offset)
		}
		in.got.Add(ev.Offset, ev.Offset+int64(len(ev.Data)))
	}
	n := len(ev.Data)
	x.later(10*time.Millisecond, func() { x.Consumed(n, 1) })
}

func (x *member) finished(h uint16, fin *wire.Fin) {
	in := x.in[h]
	if in == nil {
		return
	}
	id := uint64(in.offer.ID[15])
	if in.got.Covered() != fin.Size || !bytes.Equal(fin.Digest, digestOf(id, fin.Size).Append(nil)) {
		x.w.fail("%s: %d finished with %d of %d bytes", x.name, id, in.got.Covered(), fin.Size)
	}
	x.later(300*time.Millisecond, func() {
		if x.in[h] == in {
			x.Receipt(h, &wire.Receipt{Level: wire.LevelKept, Bytes: fin.Size, Algorithm: 2, Digest: fin.Digest})
			delete(x.in, h)
		}
	})
}
