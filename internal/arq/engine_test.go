package arq

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

// start is any time: engines know only differences.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func hello() wire.Hello {
	return wire.Hello{MaxMessage: 1 << 20, Window: 1 << 20, Messages: wire.NoMessageLimit, AckRanges: 256, Transfers: 64,
		Metadata: 16 << 10, MessageBytes: 64 << 10, Reorder: 1 << 20, IdleMillis: 30_000, Instance: 1}
}

// end is one engine with what its owner would do: supply images, take those of the peer.
type end struct {
	*Engine
	t      testing.TB
	events []Event

	images   map[uint16][]byte // to be sent
	supplied map[uint16]int
	receipts map[uint16]bool
	rejects  map[uint16]*wire.Reject
	released int

	taken  map[uint16][]byte // on their way in
	kept   [][]byte
	hold   bool // do not consume
	held   int  // bytes not consumed
	count  int
	answer bool // give receipts
	most   int  // larger messages to it are swallowed; 0: none are
	closed error
}

// couple joins two engines. Messages are handed over at once and in order.
func couple(t testing.TB, change func(a, b *Config)) (a, b *end) {
	ca := Config{Initiator: true, Ordered: true, Reliable: true, MaxMessage: 1400, Local: hello(), LocalCID: 11, RemoteCID: 99}
	cb := Config{Ordered: true, Reliable: true, MaxMessage: 1400, Local: hello(), LocalCID: 22, RemoteCID: 11, FirstCID: 99}
	if change != nil {
		change(&ca, &cb)
	}
	return newEnd(t, New(ca, start)), newEnd(t, New(cb, start))
}

// both changes the two sides alike.
func both(change func(*Config)) func(a, b *Config) {
	return func(a, b *Config) { change(a); change(b) }
}

func newEnd(t testing.TB, e *Engine) *end {
	return &end{Engine: e, t: t, images: map[uint16][]byte{}, supplied: map[uint16]int{}, receipts: map[uint16]bool{},
		rejects: map[uint16]*wire.Reject{}, taken: map[uint16][]byte{}, answer: true}
}

// send offers an image.
func (x *end) send(image []byte, change func(*wire.Offer)) uint16 {
	x.t.Helper()
	f := &wire.Offer{ID: [16]byte{15: byte(rand.IntN(255) + 1), 14: byte(rand.IntN(256))}, Size: int64(len(image)), Algorithm: 2, Attempt: 1, Meta: []byte("meta")}
	if change != nil {
		change(f)
	}
	h, err := x.Offer(f)
	if err != nil {
		x.t.Fatal(err)
	}
	x.images[h] = image
	return h
}

func digest(b []byte) chunk.Digest {
	sum := sha256.Sum256(b)
	d, _ := chunk.NewDigest(2, sum[:])
	return d
}

// run does what the owner does with events.
func (x *end) run() {
	for {
		ev := x.NextEvent()
		if ev == nil {
			return
		}
		switch ev.Kind {
		case Wanted:
			x.supply(ev.Handle)
		case Released:
			x.released += len(ev.Data)
			continue
		case Receipted:
			x.receipts[ev.Handle] = true
		case Rejected:
			x.rejects[ev.Handle] = ev.Reject
		case Offered:
			x.taken[ev.Handle] = []byte{}
		case Received:
			b := x.taken[ev.Handle]
			if need := int(ev.Offset) + len(ev.Data); need > len(b) {
				b = append(b, make([]byte, need-len(b))...)
			}
			copy(b[ev.Offset:], ev.Data)
			x.taken[ev.Handle] = b
			if x.hold {
				x.held += len(ev.Data)
				x.count++
			} else {
				x.Consumed(len(ev.Data), 1)
			}
			continue
		case Finished:
			b := x.taken[ev.Handle]
			delete(x.taken, ev.Handle)
			if d := digest(b); !bytes.Equal(d.Append(nil), ev.Fin.Digest) || int64(len(b)) != ev.Fin.Size {
				x.t.Errorf("handle %d: %d bytes of %d, digest %v", ev.Handle, len(b), ev.Fin.Size, d)
			}
			x.kept = append(x.kept, b)
			if x.answer {
				x.Receipt(ev.Handle, &wire.Receipt{Level: wire.LevelKept, Bytes: ev.Fin.Size, Algorithm: 2, Digest: ev.Fin.Digest})
			}
		case Closed:
			x.closed = ev.Err
		}
		x.events = append(x.events, *ev)
	}
}

func (x *end) supply(h uint16) {
	image, ok := x.images[h]
	if !ok {
		return
	}
	for x.Want(h) > 0 && x.supplied[h] < len(image) {
		n := min(len(image)-x.supplied[h], 50_000)
		off := x.supplied[h]
		if err := x.Supply(h, int64(off), image[off:off+n]); err != nil {
			x.t.Fatal(err)
		}
		x.supplied[h] += n
	}
	if x.supplied[h] == len(image) && x.Want(h) >= 0 {
		if err := x.Finish(h, int64(len(image)), digest(image)); err != nil && !errors.Is(err, ErrOrder) {
			x.t.Fatal(err)
		}
	}
}

// exchange moves messages between two engines until neither has one, at one instant.
func exchange(now time.Time, a, b *end) (messages int) {
	buf := make([]byte, 9000)
	for moved := true; moved; {
		moved = false
		for _, dir := range [...][2]*end{{a, b}, {b, a}} {
			dir[0].run()
			for range 64 {
				wanting := dir[0].Wanting()
				n := dir[0].Poll(now, buf)
				if n == 0 {
					break
				}
				if !wanting {
					dir[0].t.Error("a message that Wanting did not tell of")
				}
				moved = true
				messages++
				if most := dir[1].most; most > 0 && n > most {
					continue
				}
				dir[1].Receive(now, append([]byte(nil), buf[:n]...))
			}
			dir[1].run()
		}
	}
	return messages
}

// settleUntil exchanges messages and lets time pass from deadline to deadline.
func settleUntil(now time.Time, a, b *end, done func() bool) time.Time {
	limit := now.Add(time.Minute)
	for now.Before(limit) {
		exchange(now, a, b)
		if done() {
			return now
		}
		next := limit
		for _, x := range [...]*end{a, b} {
			if d := x.Deadline(); !d.IsZero() && d.Before(next) {
				next = d
			}
		}
		now = next
		a.Advance(now)
		b.Advance(now)
	}
	return now
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func TestTransfersImagesBothWaysOnAReliableLink(t *testing.T) {
	for _, n := range []int{0, 1, 255, 1400, 70_000, 5 << 20} {
		a, b := couple(t, nil)
		ha := a.send(pattern(n), nil)
		hb := uint16(0)
		exchange(start, a, b)
		hb = b.send(pattern(n+1), nil)
		settleUntil(start, a, b, func() bool { return a.receipts[ha] && b.receipts[hb] && a.Quiet() && b.Quiet() })
		if !a.receipts[ha] || !b.receipts[hb] || len(b.kept) != 1 || len(a.kept) != 1 {
			t.Fatalf("%d bytes: receipts %v %v, kept %d %d, closed %v %v", n, a.receipts, b.receipts, len(b.kept), len(a.kept), a.closed, b.closed)
		}
		if !bytes.Equal(b.kept[0], pattern(n)) {
			t.Errorf("%d bytes: arrived changed", n)
		}
		if a.released != n || b.released != n+1 {
			t.Errorf("released %d %d of %d", a.released, b.released, n)
		}
		if !a.Quiet() || !b.Quiet() {
			t.Errorf("%d bytes: not quiet after the receipts", n)
		}
	}
}
