package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
)

// party is one end of a session over which both ends send.
type party struct {
	*session
	w        *world
	sizes    map[uint16]int64
	supplied map[uint16]int64
	ids      map[uint16]byte
	got      map[uint16]*wire.Offer
	sums     map[uint16]int64 // bytes that arrived
	receipts int
	kept     int
}

func (p *party) event(ev arq.Event) {
	switch ev.Kind {
	case arq.Wanted:
		h := ev.Handle
		for p.Want(h) > 0 && p.supplied[h] < p.sizes[h] {
			b := make([]byte, min(p.sizes[h]-p.supplied[h], 30_000))
			bytesAt(b, uint64(p.ids[h]), p.supplied[h])
			if err := p.Supply(h, p.supplied[h], b); err != nil {
				p.w.fail("supply: %v", err)
			}
			p.supplied[h] += int64(len(b))
		}
		if p.supplied[h] == p.sizes[h] {
			p.Finish(h, p.sizes[h], digestOf(uint64(p.ids[h]), p.sizes[h]))
		}
	case arq.Receipted:
		p.receipts++
	case arq.Offered:
		p.got[ev.Handle] = ev.Offer
	case arq.Received:
		id, want := p.got[ev.Handle].ID[15], make([]byte, len(ev.Data))
		if bytesAt(want, uint64(id), ev.Offset); string(want) != string(ev.Data) {
			p.w.fail("image %d: wrong bytes at %d", id, ev.Offset)
		}
		p.sums[ev.Handle] += int64(len(ev.Data))
		p.w.clock.After(p.w.upTo(10*time.Millisecond), func() {
			p.Consumed(len(ev.Data), 1)
			p.pump()
		})
	case arq.Finished:
		if p.sums[ev.Handle] != ev.Fin.Size {
			p.w.fail("finished with %d of %d bytes", p.sums[ev.Handle], ev.Fin.Size)
		}
		p.kept++
		p.Receipt(ev.Handle, &wire.Receipt{Level: wire.LevelKept, Bytes: ev.Fin.Size, Algorithm: 2, Digest: ev.Fin.Digest})
	case arq.Rejected, arq.Canceled, arq.Closed:
		p.w.fail("event %d: %v %+v", ev.Kind, ev.Err, ev.Reject)
	}
}

func (p *party) send(n int, rate int64) {
	for i := range n {
		o := &wire.Offer{Size: p.w.rand.Int64N(rate), Algorithm: 2, Meta: make([]byte, p.w.rand.IntN(600))}
		o.ID[0], o.ID[15] = 1, byte(i+1)
		if p.w.rand.IntN(3) == 0 {
			o.Flags = wire.OfferInteractive
		}
		h, err := p.Offer(o)
		if err != nil {
			p.w.fail("offer: %v", err)
		}
		p.sizes[h], p.ids[h] = o.Size, byte(i+1)
	}
	p.pump()
}

func newParty(w *world) *party {
	return &party{w: w, sizes: map[uint16]int64{}, supplied: map[uint16]int64{}, ids: map[uint16]byte{},
		got: map[uint16]*wire.Offer{}, sums: map[uint16]int64{}}
}

// TestBothEndsSend lets both ends of a session send at once, over every kind of link. On a reliable one the medium
// takes only so much and is asked again when it has drained, as a socket does: neither end may wait for
// the other for ever.
func TestBothEndsSend(t *testing.T) {
	t.Parallel()
	const images = 6
	for seed := uint64(1); seed <= 15; seed++ {
		w := newWorld(seed)
		w.fail = func(f string, a ...any) { t.Fatalf("seed %d: %s", seed, fmt.Sprintf(f, a...)) }
		kind := seed % 3 // datagrams, broker, stream
		cfg := Config{Rate: int64(mbit * (2 + 20*w.rand.Float64())), Delay: time.Millisecond + w.upTo(100*time.Millisecond)}
		if kind == 2 {
			cfg.Queue = 1 << 30
		} else {
			cfg.Loss = Bernoulli(0.1 * w.rand.Float64())
		}
		ea, eb := w.path(cfg, cfg)
		if kind == 2 {
			ea.room, eb.room = 20_000, 20_000
		}
		local := hello()
		local.Window, local.Transfers = uint32(20_000+w.rand.IntN(1<<20)), uint16(1+w.rand.IntN(5))
		ca := arq.Config{Initiator: true, Ordered: kind > 0, Reliable: kind == 2, MaxMessage: 1400, Local: local, LocalCID: w.cid(), RemoteCID: w.cid()}
		if kind == 2 {
			ca.MaxMessage = 8000
		}
		a, b := newParty(w), newParty(w)
		a.session = ea.add(ca, a.event)
		eb.listen = func(h *wire.Header) *session {
			cb := ca
			cb.Initiator, cb.LocalCID, cb.RemoteCID, cb.FirstCID = false, w.cid(), h.Source, h.Dest
			b.session = eb.add(cb, b.event)
			w.clock.After(0, func() { b.send(images, cfg.Rate/5) })
			return b.session
		}
		a.send(images, cfg.Rate/5)
		limit := w.clock.Now().Add(10 * time.Minute)
		for a.receipts < images || b.receipts < images {
			if !w.clock.Step(limit) {
				w.fail("kind %d: %d and %d receipts; %+v %+v", kind, a.receipts, b.receipts, a.Stats(), b.Stats())
			}
		}
		if a.kept != images || b.kept != images {
			w.fail("%d and %d kept", a.kept, b.kept)
		}
		if s := a.Stats(); kind == 2 && (s.LostMessages > 0 || s.ResentBytes > 0) {
			w.fail("something was sent twice on a reliable link: %+v", s)
		}
	}
}
