package sim

import (
	"crypto/sha256"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
)

func hello() wire.Hello {
	return wire.Hello{MaxMessage: 9000, Window: 32 << 20, Messages: wire.NoMessageLimit, AckRanges: 256, Transfers: 64,
		Metadata: 16 << 10, MessageBytes: 64 << 10, Reorder: 1<<32 - 1, IdleMillis: 30_000, Instance: 1}
}

// bytesAt fills p with the content of image id at an offset: every byte depends on both.
func bytesAt(p []byte, id uint64, offset int64) {
	for i := range p {
		n := uint64(offset) + uint64(i)
		p[i] = byte((n*0x9e3779b1 + id*0x85ebca6b) >> 13)
	}
}

// digestOf stands for the digest of image id of so many bytes.
func digestOf(id uint64, size int64) chunk.Digest {
	sum := sha256.Sum256([]byte{byte(id), byte(id >> 8), byte(size), byte(size >> 8), byte(size >> 16), byte(size >> 24), byte(size >> 32)})
	d, _ := chunk.NewDigest(2, sum[:])
	return d
}

// plain moves images one way over one session that never fails: for measurements.
type plain struct {
	w        *world
	a, b     *session
	sizes    map[uint16]int64
	supplied map[uint16]int64
	done     map[uint16]time.Time
	piece    []byte
	received int64
	stalled  bool // the receiver consumes nothing
}

const pieceSize = 64 << 10

// newPlain starts a session, whose initiator sends.
func newPlain(w *world, there, back Config, change func(*arq.Config)) *plain {
	ea, eb := w.path(there, back)
	p := &plain{w: w, sizes: map[uint16]int64{}, supplied: map[uint16]int64{}, done: map[uint16]time.Time{}, piece: make([]byte, pieceSize)}
	ca := arq.Config{Initiator: true, MaxMessage: 1400, PadHello: 1200, Local: hello(), LocalCID: w.cid(), RemoteCID: w.cid()}
	if change != nil {
		change(&ca)
	}
	p.a = ea.add(ca, p.sender)
	eb.listen = func(h *wire.Header) *session {
		cb := ca
		cb.Initiator, cb.LocalCID, cb.RemoteCID, cb.FirstCID, cb.Unproven = false, w.cid(), h.Source, h.Dest, true
		cb.Controller = nil
		p.b = eb.add(cb, p.receiver)
		return p.b
	}
	return p
}

// connect waits until the session is established.
func (p *plain) connect() {
	p.a.pump()
	for limit := p.w.clock.Now().Add(time.Minute); ; {
		if _, known := p.a.Peer(); known {
			return
		}
		if !p.w.clock.Step(limit) {
			p.w.fail("no session within a minute")
		}
	}
}

// send offers an image at once.
func (p *plain) send(size int64) uint16 {
	h, err := p.a.Offer(&wire.Offer{ID: [16]byte{1, byte(len(p.sizes))}, Size: size, Algorithm: 2})
	if err != nil {
		p.w.fail("offer: %v", err)
	}
	p.sizes[h] = size
	p.a.pump()
	return h
}

func (p *plain) sender(ev arq.Event) {
	switch ev.Kind {
	case arq.Wanted:
		h := ev.Handle
		for p.a.Want(h) > 0 && p.supplied[h] < p.sizes[h] {
			n := min(p.sizes[h]-p.supplied[h], pieceSize)
			if err := p.a.Supply(h, p.supplied[h], p.piece[:n]); err != nil {
				p.w.fail("supply: %v", err)
			}
			p.supplied[h] += n
		}
		if p.supplied[h] == p.sizes[h] {
			p.a.Finish(h, p.sizes[h], digestOf(1, p.sizes[h]))
		}
	case arq.Receipted:
		p.done[ev.Handle] = p.w.clock.Now()
	case arq.Closed:
		p.w.fail("sender closed: %v", ev.Err)
	}
}

func (p *plain) receiver(ev arq.Event) {
	switch ev.Kind {
	case arq.Received:
		p.received += int64(len(ev.Data))
		if !p.stalled {
			p.b.Consumed(len(ev.Data), 1)
		}
	case arq.Finished:
		p.b.Receipt(ev.Handle, &wire.Receipt{Level: wire.LevelKept, Bytes: ev.Fin.Size, Algorithm: 2, Digest: ev.Fin.Digest})
	case arq.Closed:
		p.w.fail("receiver closed: %v", ev.Err)
	}
}

// finish runs until an image has its receipt, and returns how long that took from began.
func (p *plain) finish(h uint16, began time.Time, limit time.Duration) time.Duration {
	for p.done[h].IsZero() {
		if !p.w.clock.Step(began.Add(limit)) {
			p.w.fail("no receipt within %v: %d of %d bytes acknowledged, %+v", limit, p.a.Acked(h), p.sizes[h], p.a.Stats())
			return limit
		}
	}
	return p.done[h].Sub(began)
}
