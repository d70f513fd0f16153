package arq

import (
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// The window grows on a long path with what is consumed in a round trip, and with nothing else.
func TestWindowGrowsOnALongPath(t *testing.T) {
	const first, most = 1 << 20, 16 << 20
	for name, c := range map[string]struct {
		rtt, every time.Duration // between pieces of 64 KiB
		want       int64
	}{
		"short":          {longPath - 1, 10 * time.Microsecond, first},
		"long, slow":     {100 * time.Millisecond, 100 * time.Millisecond, first},
		"long":           {100 * time.Millisecond, 10 * time.Millisecond, growthFactor * 10 * 64 << 10},
		"long, fast":     {100 * time.Millisecond, 10 * time.Microsecond, most},
		"nothing so far": {0, 10 * time.Microsecond, first},
	} {
		w := newReceiveCredit(&Config{FirstWindow: first, Local: wire.Hello{Window: most, Messages: wire.NoMessageLimit}})
		for i := range time.Duration(1000) {
			w.received(64 << 10)
			if bytes, _ := w.window(); bytes > w.maxBytes-64<<10 {
				t.Fatalf("%s: what waits is not taken off the window of %d", name, bytes)
			}
			w.consumed(64<<10, 1)
			w.grow(time.Second+i*c.every, c.rtt, 64<<10)
		}
		if got, _ := w.window(); got != c.want {
			t.Errorf("%s: a window of %d, %d expected", name, got, c.want)
		}
	}
}

// A peer that takes more than this side keeps, and acknowledges nothing, gets no more than that.
func TestPeersWindowIsNoClaimOnMemory(t *testing.T) {
	const most = 1 << 20
	x := newLossy(t, 100*time.Millisecond, func(c *Config) { c.Ordered, c.MostSent = true, most })
	h := wire.Header{Dest: 11, Number: x.number}
	x.number++
	var a ackTracker
	a.got.Add(0, 1)
	x.receive((&wire.Ack{Window: 1<<32 - 1, Messages: wire.NoMessageLimit}).Append(h.Append(nil), &a.got, 1, 1000))
	handle := x.send(pattern(4<<20), nil)
	x.pollAll()
	if held := x.supplied[handle]; held < most || held > most+2*x.cfg.ReadAhead {
		t.Errorf("%d bytes are held for a peer that acknowledges nothing, want %d and some read ahead", held, most)
	}
	if x.credit.inFlight < most-2000 || x.credit.inFlight > most {
		t.Errorf("%d bytes are in flight, want %d", x.credit.inFlight, most)
	}
}

// So it is before the first ACK, when the HELLO alone says what the peer takes.
func TestPeersFirstWindowIsNoClaimOnMemory(t *testing.T) {
	const most = 1 << 20
	a, b := couple(t, func(ca, cb *Config) {
		cb.Reliable, cb.MostSent = false, most
		ca.Reliable, ca.Local.Window = false, 1<<32-1
	})
	var buf [1400]byte
	if err := b.Receive(start, buf[:a.Poll(start, buf[:])]); err != nil {
		t.Fatal(err)
	}
	if b.credit.bytes != most || b.credit.most != most {
		t.Errorf("%d bytes may be sent, at most %d; want %d", b.credit.bytes, b.credit.most, most)
	}
}

// What a lower window does not cover any more is not taken, where it comes again.
func TestLoweredWindowHoldsAtOnce(t *testing.T) {
	b := New(Config{MaxMessage: 1200, Local: hello(), LocalCID: 1, RemoteCID: 2, FirstCID: 3}, start)
	in := &incoming{size: 1 << 20}
	b.window.most = 1 << 20 // as told before
	if b.window.waiting = 200_000; b.admit(in, 0, 1000) != nil {
		t.Error("data within the window is not taken")
	}
	if b.SetWindow(100_000, wire.NoMessageLimit); b.admit(in, 0, 1000) == nil {
		t.Error("data over the lowered window is taken")
	}
}

// A window that grows while something waits: the sender may fill all of it, on a link where what is over the
// window ends the session.
func TestWindowGrownWhileBytesWait(t *testing.T) {
	for _, reliable := range []bool{true, false} {
		a, b := couple(t, func(ca, cb *Config) {
			ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = true, reliable, true, reliable
			cb.Local.Window = 64 << 10
		})
		b.hold = true
		h := a.send(pattern(3<<20), nil)
		now := settleUntil(start, a, b, func() bool { return b.held > 60<<10 })
		b.SetWindow(1<<20, wire.NoMessageLimit)
		now = settleUntil(now, a, b, func() bool { return b.held > 1020<<10 || b.closed != nil })
		if b.closed != nil {
			t.Fatalf("reliable %v: the session has ended with %d bytes: %v", reliable, b.held, b.closed)
		}
		if n := b.Stats().ReceivedMessages; a.Stats().LostMessages > 0 {
			t.Errorf("reliable %v: %d messages lost, %d received", reliable, a.Stats().LostMessages, n)
		}
		b.hold = false
		b.Consumed(b.held, b.count)
		settleUntil(now, a, b, func() bool { return a.receipts[h] })
	}
}
