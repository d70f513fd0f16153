package arq

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

// shrink joins two ends over a link that loses, and takes less than it did once limit is called.
func shrink(t *testing.T, ordered bool) (a, b *end, limit func(int)) {
	a, b = couple(t, both(func(c *Config) { c.Reliable, c.Ordered, c.MaxMessage = false, ordered, 4000 }))
	settleUntil(start, a, b, func() bool { return a.Quiet() && b.Quiet() })
	return a, b, func(n int) {
		a.most, b.most = n, n
		a.LimitMessage(n)
		b.LimitMessage(n)
	}
}

// What was cut for larger messages than the link takes since then is cut again, whether it was sent before or not.
func TestOfferOverALimitThatCameLater(t *testing.T) {
	for _, ordered := range []bool{true, false} {
		for _, sent := range []bool{true, false} {
			a, b, limit := shrink(t, ordered)
			meta := pattern(3000)
			h := a.send(pattern(20_000), func(f *wire.Offer) { f.Meta = meta })
			other := a.send(pattern(100), nil)
			if sent {
				a.run()
				for buf := make([]byte, 4000); a.Poll(start, buf) > 0; { // and lost
				}
			}
			limit(300)
			settleUntil(start, a, b, func() bool { return a.receipts[h] && a.receipts[other] })
			if !a.receipts[h] || !a.receipts[other] {
				t.Fatalf("ordered %v, sent %v: no receipt: %v %v", ordered, sent, a.closed, b.closed)
			}
			for _, ev := range b.events {
				if ev.Kind == Offered && ev.Handle == h && !bytes.Equal(ev.Offer.Meta, meta) {
					t.Errorf("metadata of %d bytes have arrived as %d", len(meta), len(ev.Offer.Meta))
				}
			}
		}
	}
}

func TestRejectOverALimitThatCameLater(t *testing.T) {
	a, b, limit := shrink(t, true)
	b.answer = false
	h := a.send(pattern(10), nil)
	now := settleUntil(start, a, b, func() bool { return len(b.kept) > 0 && a.Quiet() == b.Quiet() })
	if err := b.Reject(b.last(Finished).Handle, &wire.Reject{Reason: 7, Text: strings.Repeat("é", 1000)}); err != nil {
		t.Fatal(err)
	}
	limit(256)
	settleUntil(now, a, b, func() bool { return a.rejects[h] != nil })
	if r := a.rejects[h]; r == nil || len(r.Text) < 150 || strings.Trim(r.Text, "é") != "" {
		t.Errorf("rejected: %+v", r)
	}
}

// A run of held blocks that was cut, and an older sending of it that has arrived all the same, are answered once.
func TestAcceptOverALimitThatCameLater(t *testing.T) {
	const blocks = 100
	for _, arrived := range []bool{true, false} {
		a, b, limit := shrink(t, false)
		h := a.send(nil, func(f *wire.Offer) { f.Size, f.Flags = blocks<<20, wire.OfferResume })
		delete(a.images, h)
		exchange(start, a, b)
		var held []chunk.Block
		for i := range int64(blocks) {
			held = append(held, chunk.Block{Index: i, Digest: digest([]byte{byte(i)})})
		}
		if err := b.Accept(b.last(Offered).Handle, held); err != nil {
			t.Fatal(err)
		}
		for buf := make([]byte, 4000); ; {
			n := b.Poll(start, buf)
			if n == 0 {
				break
			}
			if arrived {
				a.Receive(start, bytes.Clone(buf[:n]))
				a.run()
			}
		}
		limit(500)
		if arrived { // the acknowledgement is lost
			for buf := make([]byte, 4000); a.Poll(start, buf) > 0; {
			}
		}
		answered, resumed := 0, 0
		settleUntil(start, a, b, func() bool {
			for ; answered < len(a.events); answered++ {
				if ev := &a.events[answered]; ev.Kind == Accepted {
					n := ev.Accept.Count()
					if err := a.Resume(h, &wire.Resume{First: ev.Accept.First, Count: uint16(n), Agree: make([]byte, (n+7)/8)}); err != nil {
						t.Fatal(err)
					}
				}
			}
			return false
		})
		for _, ev := range b.events {
			if ev.Kind == Resumed {
				resumed += int(ev.Resume.Count)
			}
		}
		if resumed != blocks || b.ins.len() != 1 || len(b.ins.list[0].value.held) != 0 {
			t.Errorf("arrived %v: %d of %d blocks answered, transfers open: %+v", arrived, resumed, blocks, b.ins.list)
		}
	}
}

// A frame has 64 KiB at most, however long the messages are.
func TestHeldBlocksOfManyGigabytes(t *testing.T) {
	const blocks = 10_000
	a, b := couple(t, both(func(c *Config) { c.MaxMessage = 256 << 10 }))
	h := a.send(nil, func(f *wire.Offer) { f.Size, f.Flags = blocks<<20, wire.OfferResume })
	delete(a.images, h)
	exchange(start, a, b)
	var held []chunk.Block
	for i := range int64(blocks) {
		held = append(held, chunk.Block{Index: i, Digest: digest([]byte{byte(i), byte(i >> 8)})})
	}
	if err := b.Accept(b.last(Offered).Handle, held); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 256<<10)
	for n := b.Poll(start, buf); n > 0; n = b.Poll(start, buf) {
		if err := a.Receive(start, bytes.Clone(buf[:n])); err != nil {
			t.Fatal(err)
		}
		a.run()
	}
	next := int64(0)
	for _, ev := range a.events {
		if f := ev.Accept; ev.Kind == Accepted {
			if int64(f.First) != next || f.Held != blocks || !bytes.Equal(f.Digests[:32], held[next].Digest.Append(nil)) {
				t.Fatalf("a run of %d blocks from %d, want one from %d", f.Count(), f.First, next)
			}
			next += int64(f.Count())
		}
	}
	if next != blocks {
		t.Errorf("%d of %d blocks were listed: %v %v", next, blocks, a.closed, b.closed)
	}
}

// An answer that cannot be cut ends its transfer, and holds up no other.
func TestResumeThatFitsNoMessage(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	const blocks = 12_000
	h := x.send(nil, func(f *wire.Offer) { f.Size, f.Flags = blocks<<20, wire.OfferResume })
	delete(x.images, h)
	x.poll()
	if err := x.Resume(h, &wire.Resume{Count: blocks, Agree: make([]byte, blocks/8)}); err != nil {
		t.Fatal(err)
	}
	other := x.send(pattern(100), nil)
	first, end := x.poll()
	if r := x.rejects[h]; r == nil || r.Reason != reasonTooLarge {
		t.Errorf("rejected: %+v", r)
	}
	var types []wire.Type
	for ; first < end; first++ {
		more, _ := x.frames(first)
		types = append(types, more...)
	}
	if len(types) < 4 || x.Acked(other) != 0 || types[0] != wire.TypeCancel && types[0] != wire.TypeOffer {
		t.Errorf("then sent: %v", types)
	}
}

// A broker that swallows large messages without a word swallows offers too, though nothing else is sent.
func TestOfferIsSwallowed(t *testing.T) {
	for _, most := range []int{2900, 1400} {
		a, b := couple(t, both(func(c *Config) { c.Reliable, c.MaxMessage = false, 4000 }))
		now := settleUntil(start, a, b, func() bool { return a.Quiet() && b.Quiet() })
		b.most = most
		h := a.send(pattern(10), func(f *wire.Offer) { f.Meta = pattern(3000) })
		if settleUntil(now, a, b, func() bool { return a.receipts[h] || a.closed != nil }); !a.receipts[h] {
			t.Errorf("messages of %d and less arrive: no receipt: %v; messages of %d", most, a.closed, a.MaxMessage())
		}
	}
}

// What is sent and acknowledged is not kept in the memory that the engine has for a few frames.
func TestCutFramesAreForgotten(t *testing.T) {
	a, b, limit := shrink(t, true)
	h := a.send(pattern(10), func(f *wire.Offer) { f.Meta = pattern(3000) })
	limit(300)
	settleUntil(start, a, b, func() bool { return a.receipts[h] })
	if a.few.due != [2]*control{} {
		t.Errorf("frames are left: %v", a.few.due)
	}
}
