package arq

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

func TestWindowStopsSenderUntilConsumed(t *testing.T) {
	// "a slow disk or Handler slows the sender, never the acknowledgements"
	a, b := couple(t, func(ca, cb *Config) { cb.Local.Window = 100_000 })
	b.hold = true
	h := a.send(pattern(1_000_000), nil)
	exchange(start, a, b)
	if b.held > 100_000 || b.held < 100_000-1400 {
		t.Fatalf("%d bytes handed over with a window of 100,000", b.held)
	}
	now := settleUntil(start, a, b, func() bool { return a.Acked(h) == int64(b.held) })
	if took := now.Sub(start); took > ackInterval {
		t.Errorf("what arrived was acknowledged after %v", took)
	}
	for range 100 {
		n, c := b.held, b.count
		b.held, b.count = 0, 0
		b.Consumed(n, c)
		settleUntil(start, a, b, func() bool { return b.held > 0 || a.receipts[h] })
		if b.held > 100_000 {
			t.Fatalf("%d bytes handed over with a window of 100,000", b.held)
		}
	}
	if !a.receipts[h] {
		t.Fatal("no receipt after everything was consumed")
	}
}

// A window that has grown since the HELLO is filled, whatever a transfer then holds until it is acknowledged.
func TestGrownWindowIsFilled(t *testing.T) {
	a, b := couple(t, func(ca, cb *Config) { cb.Local.Window = 64 << 10 })
	first := a.send(pattern(100), nil)
	exchange(start, a, b)
	b.SetWindow(1<<20, wire.NoMessageLimit)
	settleUntil(start, a, b, func() bool { return a.receipts[first] && a.Quiet() && a.credit.bytes == 1<<20 })
	a.send(pattern(3<<20), nil)
	a.run()
	buf, sent := make([]byte, 1400), 0
	for {
		n := a.Poll(start, buf)
		if a.run(); n == 0 {
			break
		}
		sent += n
	}
	if sent < 1<<20 {
		t.Errorf("%d bytes sent with a window of %d", sent, 1<<20)
	}
}

func TestWindowCountsMessages(t *testing.T) {
	a, b := couple(t, func(ca, cb *Config) { cb.Local.Messages = 5 })
	b.hold = true
	h := a.send(pattern(30_000), nil)
	exchange(start, a, b)
	exchange(start, a, b)
	if b.count > 5+earlyMessages { // those sent before HELLO
		t.Fatalf("%d messages handed over", b.count)
	}
	b.Consumed(b.held, b.count)
	before := b.count
	b.held = 0
	exchange(start, a, b)
	if got := b.count - before; got > 5 {
		t.Fatalf("%d messages handed over with a window of 5", got)
	}
	b.hold = false
	b.Consumed(b.held, b.count-before)
	settleUntil(start, a, b, func() bool { return a.receipts[h] })
	if !a.receipts[h] {
		t.Fatal("no receipt")
	}
}

func TestInteractiveGoesBeforeBulk(t *testing.T) {
	a, b := couple(t, nil)
	exchange(start, a, b)
	bulk := a.send(pattern(900_000), nil)
	a.run()
	buf := make([]byte, 1400)
	for range 10 {
		b.Receive(start, append([]byte(nil), buf[:a.Poll(start, buf)]...))
	}
	small := a.send(pattern(5_000), func(f *wire.Offer) { f.Flags = wire.OfferInteractive })
	a.run()
	for range 5 {
		b.Receive(start, append([]byte(nil), buf[:a.Poll(start, buf)]...))
	}
	b.run()
	if len(b.kept) != 1 || len(b.kept[0]) != 5_000 {
		t.Fatal("the interactive transfer did not overtake")
	}
	settleUntil(start, a, b, func() bool { return a.receipts[bulk] })
	if !a.receipts[small] || !a.receipts[bulk] {
		t.Fatal("no receipts")
	}
}

func TestTransfersAtOnceWaitForTheirTurn(t *testing.T) {
	a, b := couple(t, func(ca, cb *Config) { cb.Local.Transfers = 2 })
	exchange(start, a, b)
	b.answer = false
	var hs []uint16
	for range 5 {
		hs = append(hs, a.send(pattern(100), nil))
	}
	exchange(start, a, b)
	if len(b.kept) != 2 {
		t.Fatalf("%d transfers at once, the HELLO allows 2", len(b.kept))
	}
	a.Cancel(hs[0], 13)
	exchange(start, a, b)
	if len(b.kept) != 3 {
		t.Fatalf("%d transfers finished after a cancel", len(b.kept))
	}
}

func TestCancelReleasesAndTellsTheReceiver(t *testing.T) {
	a, b := couple(t, func(ca, cb *Config) { cb.Local.Window = 50_000 })
	b.hold = true
	h := a.send(pattern(500_000), nil)
	exchange(start, a, b)
	a.Cancel(h, 13)
	exchange(start, a, b)
	if a.released != a.supplied[h] {
		t.Errorf("released %d of %d", a.released, a.supplied[h])
	}
	last := b.events[len(b.events)-1]
	if last.Kind != Canceled || last.Reason != 13 {
		t.Errorf("the receiver's last event: %+v", last)
	}
	// The credit of what was canceled comes back.
	b.Consumed(b.held, b.count)
	b.hold = false
	h = a.send(pattern(100_000), nil)
	settleUntil(start, a, b, func() bool { return a.receipts[h] })
	if !a.receipts[h] {
		t.Error("no receipt for the next transfer")
	}
}

// Transfers that are given up while they wait for their turn leave no gaps in the handles that the peer remembers: it
// takes too many for an attack.
func TestCancelOfWaitingTransfers(t *testing.T) {
	a, b := couple(t, func(_, cb *Config) { cb.Local.Transfers = 1 })
	exchange(start, a, b)
	now := start
	for range 1<<10 + 10 {
		h := a.send(pattern(10), nil)
		a.Cancel(a.send(pattern(10), nil), 13)
		now = settleUntil(now, a, b, func() bool { return a.receipts[h] && a.Quiet() })
	}
	b.answer = false
	h := a.send(pattern(10), nil)
	exchange(now, a, b)
	a.Cancel(h, 13)
	if exchange(now, a, b); a.closed != nil || b.closed != nil {
		t.Errorf("closed: %v, %v", a.closed, b.closed)
	}
}

// Nor do thousands that are cancelled at once, between others that wait too.
func TestCancelOfManyWaitingTransfers(t *testing.T) {
	const n = 5000
	a, b := couple(t, nil)
	exchange(start, a, b)
	var handles []uint16
	for range n {
		handles = append(handles, a.send([]byte("x"), nil))
	}
	for i := 1; i < n; i += 2 {
		a.Cancel(handles[i], 13)
	}
	settleUntil(start, a, b, func() bool { return len(b.kept) == n/2 || a.closed != nil })
	if a.closed != nil || len(b.kept) != n/2 {
		t.Errorf("%d of %d kept: %v", len(b.kept), n/2, a.closed)
	}
}

func TestRejectEndsTheTransfer(t *testing.T) {
	a, b := couple(t, nil)
	exchange(start, a, b)
	h := a.send(pattern(5<<20), nil)
	a.run()
	buf := make([]byte, 1400)
	b.Receive(start, buf[:a.Poll(start, buf)])
	b.run()
	if err := b.Reject(b.events[len(b.events)-1].Handle, &wire.Reject{Reason: 7, Text: string(pattern(5000)), AfterMillis: 5}); err != nil {
		t.Fatal(err)
	}
	exchange(start, a, b)
	r := a.rejects[h]
	if r == nil || r.Reason != 7 || r.AfterMillis != 5 {
		t.Fatalf("rejected with %+v", r)
	}
	if a.released != a.supplied[h] {
		t.Errorf("released %d of %d", a.released, a.supplied[h])
	}
	settleUntil(start, a, b, func() bool { return a.Quiet() && b.Quiet() })
	if !a.Quiet() || !b.Quiet() || a.closed != nil || b.closed != nil {
		t.Errorf("not quiet after a reject: %v %v", a.closed, b.closed)
	}
}

func TestResumeSkipsWhatAgrees(t *testing.T) {
	const size = 5<<20 + 17
	image := pattern(size)
	a, b := couple(t, func(ca, cb *Config) { ca.ReadAhead = 1 })
	exchange(start, a, b)
	h := a.send(image, func(f *wire.Offer) { f.Flags = wire.OfferResume })
	// The first Wanted is not answered: this sender waits for ACCEPT.
	delete(a.images, h)
	exchange(start, a, b)
	ev := b.last(Offered)
	held := []chunk.Block{{Index: 0, Digest: digest([]byte("0"))}, {Index: 1, Digest: digest([]byte("1"))}, {Index: 5, Digest: digest([]byte("5"))}}
	if err := b.Accept(ev.Handle, held); err != nil {
		t.Fatal(err)
	}
	exchange(start, a, b)
	var runs []*wire.Accept
	for _, ev := range a.events {
		if ev.Kind == Accepted {
			runs = append(runs, ev.Accept)
		}
	}
	if len(runs) != 2 || runs[0].First != 0 || runs[0].Count() != 2 || runs[1].First != 5 || runs[0].Held != 3 {
		t.Fatalf("accepted %+v", runs)
	}
	// Block 1 differs.
	if err := a.Resume(h, &wire.Resume{First: 0, Count: 2, Agree: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	if err := a.Resume(h, &wire.Resume{First: 5, Count: 1, Agree: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	if err := a.Supply(h, 2<<20, image[2<<20:3<<20]); !errors.Is(err, ErrOrder) {
		t.Fatalf("supply with a hole: %v", err)
	}
	for off := 1 << 20; off < 5<<20; off += 1 << 20 {
		if err := a.Supply(h, int64(off), image[off:off+1<<20]); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Finish(h, size, digest(image)); err != nil {
		t.Fatal(err)
	}
	b.taken[ev.Handle] = make([]byte, size)
	copy(b.taken[ev.Handle], image[:1<<20])
	copy(b.taken[ev.Handle][5<<20:], image[5<<20:])
	sent := a.Stats().SentBytes
	exchange(start, a, b)
	settleUntil(start, a, b, func() bool { return a.receipts[h] })
	if !a.receipts[h] || len(b.kept) != 1 {
		t.Fatal("no receipt")
	}
	if got := a.Stats().SentBytes - sent; got > 4<<20+4<<20/20 {
		t.Errorf("%d bytes sent for 4 MiB missing", got)
	}
}

func (x *end) last(k Kind) Event {
	for i := len(x.events) - 1; i >= 0; i-- {
		if x.events[i].Kind == k {
			return x.events[i]
		}
	}
	x.t.Fatalf("no event of kind %d", k)
	return Event{}
}

func TestMetadataLargerThanAMessage(t *testing.T) {
	for _, reliable := range []bool{true, false} {
		a, b := couple(t, both(func(c *Config) { c.MaxMessage, c.Reliable = 256, reliable }))
		meta := pattern(1000)
		h := a.send(pattern(3000), func(f *wire.Offer) { f.Meta = meta })
		settleUntil(start, a, b, func() bool { return a.receipts[h] })
		if !a.receipts[h] {
			t.Fatalf("no receipt: %v %v", a.closed, b.closed)
		}
		if got := b.last(Offered).Offer; !bytes.Equal(got.Meta, meta) || got.Size != 3000 {
			t.Errorf("offer arrived as %+v", got)
		}
	}
}

func TestOffersOverTheLimitsAreRefused(t *testing.T) {
	a, b := couple(t, func(ca, cb *Config) { cb.Local.Metadata = 10; cb.Local.MessageBytes = 100 })
	early := a.send(pattern(3000), func(f *wire.Offer) { f.Meta = pattern(50) })
	message := a.send(pattern(101), func(f *wire.Offer) { f.Kind = wire.KindMessage })
	settleUntil(start, a, b, func() bool { return a.Quiet() })
	if r := a.rejects[early]; r == nil || r.Reason != reasonMeta {
		t.Errorf("metadata over the limit: %+v", r)
	}
	if r := a.rejects[message]; r == nil || r.Reason != reasonTooLarge {
		t.Errorf("message over the limit: %+v", r)
	}
	if _, err := a.Offer(&wire.Offer{ID: [16]byte{1}, Meta: pattern(11)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("offer over a known limit: %v", err)
	}
	if len(b.kept) != 0 || b.closed != nil {
		t.Errorf("kept %d, closed %v", len(b.kept), b.closed)
	}
}

// payloadOf returns how many bytes of DATA a message has.
func payloadOf(msg []byte) (n int) {
	r := wire.NewReader(msg[wire.ShortHeader : len(msg)-wire.Trailer])
	for r.Next() {
		if r.Type == wire.TypeData {
			n = len(r.Body) - (wire.DataHeader - 1)
		}
	}
	return n
}

// Those that wait behind one that never ends, and are given up, are forgotten, however many others wait on.
func TestCancelAmongMany(t *testing.T) {
	a, b := couple(t, func(_, cb *Config) { cb.Local.Transfers = 1 })
	exchange(start, a, b)
	b.answer = false
	a.send(pattern(10), nil)
	exchange(start, a, b)
	const patient = 1000
	for range patient {
		a.send(pattern(10), nil)
	}
	for range 20_000 {
		h, err := a.Offer(&wire.Offer{ID: [16]byte{1}, Attempt: 1, Size: 1, Algorithm: 2})
		if err != nil {
			t.Fatal(err)
		}
		a.Cancel(h, 13)
	}
	if n := len(a.waiting.bulk); n > 2*patient+2 {
		t.Errorf("%d wait", n)
	}
	h := b.last(Finished).Handle
	b.Receipt(h, &wire.Receipt{Level: wire.LevelKept, Bytes: 10, Algorithm: 2, Digest: []byte{1}})
	b.answer = true
	receipted(t, start, a, b, patient+1)
}

// Urgent transfers that overtake waiting ones, each of which was offered between two of them, leave no gaps at the
// peer, which takes only so many.
func TestOvertakenTransfersLeaveNoGaps(t *testing.T) {
	a, b := couple(t, func(_, cb *Config) { cb.Local.Transfers = 1 })
	exchange(start, a, b)
	b.answer = false
	a.send(pattern(10), nil)
	exchange(start, a, b)
	const each = 1500
	for range each {
		a.send(pattern(1), nil)
		a.send(pattern(1), func(f *wire.Offer) { f.Flags |= wire.OfferInteractive })
	}
	for range each {
		last := b.last(Finished)
		b.Receipt(last.Handle, &wire.Receipt{Level: wire.LevelKept, Bytes: last.Fin.Size, Algorithm: 2, Digest: []byte{1}})
		exchange(start, a, b)
	}
	for _, o := range a.outs.list {
		if o.value.started {
			a.Cancel(o.handle, 13)
			break
		}
	}
	b.answer = true
	receipted(t, start, a, b, 2*each)
}

// receipted runs until n transfers from a to b have their receipts, and no more.
func receipted(t *testing.T, now time.Time, a, b *end, n int) {
	t.Helper()
	if settleUntil(now, a, b, func() bool { return len(a.receipts) == n }); len(a.receipts) != n {
		t.Errorf("%d receipts of %d: %v %v", len(a.receipts), n, a.closed, b.closed)
	}
}

// While the peer is stuck little is kept of those that waited and were given up, and it hears nothing of them.
func TestCancelOfTransfersThatNeverHadTheirTurn(t *testing.T) {
	a, b := couple(t, func(_, cb *Config) { cb.Local.Transfers = 1 })
	exchange(start, a, b)
	b.answer = false
	a.send(pattern(10), nil)
	now := start
	var queue []uint16
	for range 5000 {
		queue = append(queue, a.send(pattern(10), nil))
		if len(queue) > 10 {
			a.Cancel(queue[0], 13)
			queue = queue[1:]
		}
		now = now.Add(20 * time.Millisecond)
		a.Advance(now)
		b.Advance(now)
		exchange(now, a, b)
	}
	if n := len(a.waiting.bulk); n > 2*11 || a.closed != nil || b.over.over.Count() > 0 {
		t.Errorf("%d wait, %d ranges of handles are over at the peer; closed: %v", n, b.over.over.Count(), a.closed)
	}
	h := b.last(Finished).Handle
	b.Receipt(h, &wire.Receipt{Level: wire.LevelKept, Bytes: 10, Algorithm: 2, Digest: []byte{1}})
	b.answer = true
	receipted(t, now, a, b, 11)
}
