package arq

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// A path that was silent for a while takes large messages again soon.
func TestMessageSizeComesBackAfterAnOutage(t *testing.T) {
	s := newSizer(1200, []int{1400}, 1<<16)
	s.acked(1400)
	now := time.Second
	for n := range 5 {
		now += maxPTO
		s.timeout(now, n)
	}
	if s.current != 1200 {
		t.Errorf("messages of %d in an outage", s.current)
	}
	if got := s.probe(now + time.Minute); got != 1400 {
		t.Errorf("a probe of %d a minute after", got)
	}
}

// What the peer takes does not make the link take more.
func TestLimitOfTheLinkOutlivesTheHello(t *testing.T) {
	a, b := couple(t, both(func(c *Config) { c.Reliable = false }))
	a.LimitMessage(300)
	exchange(start, a, b)
	if _, known := a.Peer(); !known || a.MaxMessage() != 300 {
		t.Errorf("messages of %d, the peer is known: %v", a.MaxMessage(), known)
	}
}

// "Only the ACK with the highest own packet number sets the window."
func TestOlderACKDoesNotSetTheWindow(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	window := func(number uint32, bytes uint32) {
		h := wire.Header{Dest: 11, Number: number}
		var a ackTracker
		a.got.Add(0, 1)
		f := wire.Ack{Window: bytes, Messages: wire.NoMessageLimit}
		x.receive(f.Append(h.Append(nil), &a.got, 1, 1000))
	}
	window(9, 0)
	window(8, 1<<20)
	x.send(pattern(5_000), nil)
	first, end := x.poll()
	for ; first < end; first++ {
		if _, offset := x.frames(first); offset >= 0 {
			t.Fatal("data against a window of nothing")
		}
	}
}

// "a sender with data but no window and nothing in flight PINGs (persist timer)"
func TestPersistTimerAsksForTheWindow(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	h := wire.Header{Dest: 11, Number: x.number}
	x.number++
	var a ackTracker
	a.got.Add(0, 1)
	x.receive((&wire.Ack{Messages: wire.NoMessageLimit}).Append(h.Append(nil), &a.got, 1, 1000))
	x.send(pattern(5_000), nil)
	_, end := x.poll()
	n := int64(end)
	x.number++
	h.Number = x.number
	x.number++
	a.got.Add(0, n) // the offer has arrived, the window is shut
	x.receive((&wire.Ack{Messages: wire.NoMessageLimit}).Append(h.Append(nil), &a.got, 1, 1000))
	if f, e := x.poll(); f != e {
		t.Fatalf("%d messages against a shut window", e-f)
	}
	if passed := x.fire(); passed > time.Second {
		t.Errorf("asked for the window after %v", passed)
	}
	first, end := x.poll()
	if types, _ := x.frames(first); end-first != 1 || !slices.Equal(types, []wire.Type{wire.TypePing}) {
		t.Fatalf("%d messages, the first of %v", end-first, types)
	}
	x.acks(0, int64(end))
	if _, e := x.poll(); e == end {
		t.Error("nothing is sent after the window has opened")
	}
}

// "responder sends at most 3x of what it received until it sees a short message with its CID"
func TestUnprovenPeerGetsThreeTimesItsBytes(t *testing.T) {
	cfg := Config{MaxMessage: 1200, Local: hello(), LocalCID: 22, RemoteCID: 11, FirstCID: 99, Unproven: true}
	b := newEnd(t, New(cfg, start))
	peer := hello()
	h := wire.Header{Long: true, Dest: 99, Version: wire.Version1, Source: 11}
	msg := wire.Seal(wire.AppendPadding(peer.Append(h.Append(nil)), 600))
	if err := b.Receive(start, msg); err != nil {
		t.Fatal(err)
	}
	b.run()
	b.send(pattern(100_000), nil)
	now, sent := start, 0
	buf := make([]byte, 1200)
	for range 40 {
		b.run()
		for {
			n := b.Poll(now, buf)
			if n == 0 {
				break
			}
			sent += n
		}
		if d := b.Deadline(); !d.IsZero() {
			now = d
			b.Advance(now)
		}
	}
	if sent > 3*len(msg) || sent < len(msg) {
		t.Errorf("%d bytes sent to an unproven peer that sent %d", sent, len(msg))
	}
}

// A broker that swallows large messages, from the beginning or since it was started anew, gets smaller ones, and
// not the same again and again.
func TestSwallowedMessagesGetSmaller(t *testing.T) {
	const size = 8 << 20
	for _, c := range []struct {
		first, most int // that the link takes
		want        int
	}{
		{9000, 5000, 4000}, // it was probed for
		{3000, 3000, 2000}, // not even what sessions begin with
		{9000, 1300, 1200},
	} {
		a, b := couple(t, both(func(c *Config) { c.Reliable, c.MaxMessage, c.Sizes = false, 4000, []int{9000} }))
		now := start
		for _, b.most = range []int{c.first, c.most} {
			h, before := a.send(pattern(size), nil), a.Stats().SentBytes
			now = settleUntil(now, a, b, func() bool { return a.receipts[h] })
			if sent := a.Stats().SentBytes - before; !a.receipts[h] || sent > 3*size {
				t.Errorf("%+v: kept %v after %v, with %d bytes sent", c, a.receipts[h], now.Sub(start), sent)
			}
		}
		if got := a.MaxMessage(); got != c.want {
			t.Errorf("%+v: messages of %d", c, got)
		}
	}
}

// So does an image that is alone and small, but too large.
func TestSmallImageIsSwallowed(t *testing.T) {
	for _, c := range []struct{ first, most, size int }{
		{4000, 1400, 1500},
		{9000, 3000, 3500},
	} {
		a, b := couple(t, both(func(c *Config) { c.Reliable, c.MaxMessage, c.Sizes = false, 4000, []int{9000} }))
		b.most = c.first
		h := a.send(pattern(1<<20), nil)
		now := settleUntil(start, a, b, func() bool { return a.receipts[h] })
		b.most = c.most
		h = a.send(pattern(c.size), nil)
		if settleUntil(now, a, b, func() bool { return a.receipts[h] }); !a.receipts[h] {
			t.Errorf("%+v: it never arrives; messages of %d", c, a.MaxMessage())
		}
	}
}

// RFC 8899: a probe that arrives raises the size, three that do not leave it.
func TestProbesFindTheMessageSize(t *testing.T) {
	for _, fits := range []int{1200, 1400, 8000} {
		x := newLossy(t, 20*time.Millisecond, func(c *Config) { c.Sizes = []int{1400, 4000, 8900} })
		x.send(pattern(3<<20), nil)
		var seen int64 // every message before it is acknowledged or known to be too large
		largest := 0
		for range 3000 {
			first, end := x.poll()
			x.wait(20 * time.Millisecond)
			var ranges []int64
			for n := first; n < end; n++ {
				if len(x.sent[n]) > fits {
					largest = max(largest, len(x.sent[n]))
					continue
				}
				if k := len(ranges); k > 0 && ranges[k-1] == int64(n) {
					ranges[k-1]++
				} else {
					ranges = append(ranges, int64(n), int64(n+1))
				}
			}
			if len(ranges) > 0 {
				x.acks(ranges...)
			}
			seen = int64(end)
			if d := x.Deadline(); !d.IsZero() && !d.After(x.now) {
				x.Advance(x.now)
			}
			if x.Acked(0) == 3<<20 {
				break
			}
		}
		want := map[int]int{1200: 1200, 1400: 1400, 8000: 4000}[fits]
		if got := x.MaxMessage(); got != want {
			t.Errorf("path of %d: messages of %d, %d expected (%d sent, largest refused %d)", fits, got, want, seen, largest)
		}
		if got := x.Acked(0); got != 3<<20 {
			t.Errorf("path of %d: %d bytes arrived", fits, got)
		}
	}
}

func TestHandshakeTimeoutEndsTheSession(t *testing.T) {
	for _, reliable := range []bool{false, true} {
		cfg := Config{Initiator: true, Ordered: reliable, Reliable: reliable, MaxMessage: 1200, PadHello: 1200, Local: hello(), LocalCID: 1, RemoteCID: 2}
		x := newEnd(t, New(cfg, start))
		now, sizes := start, []int(nil)
		buf := make([]byte, 1200)
		for x.closed == nil && now.Before(start.Add(time.Minute)) {
			for {
				n := x.Poll(now, buf)
				if n == 0 {
					break
				}
				sizes = append(sizes, n)
			}
			now = x.Deadline()
			x.Advance(now)
			x.run()
		}
		if !errors.Is(x.closed, ErrHandshake) || now.Sub(start) != 30*time.Second {
			t.Errorf("reliable %t: closed with %v after %v", reliable, x.closed, now.Sub(start))
		}
		if !reliable && len(sizes) < 8 || slices.Min(sizes) < 1200 {
			t.Errorf("reliable %t: HELLO sent %d times, the smallest message of %d bytes", reliable, len(sizes), slices.Min(sizes))
		}
	}
}

// A timer that lasts long, as a part of a message came or the owner began to wait after the last keep-alive, is no stop of this
// side's: the peer's silence ends the session after the idle time.
func TestSilenceAfterAKeepAlive(t *testing.T) {
	for name, note := range map[string]func(*end, time.Time){
		"Partly": func(x *end, now time.Time) { x.Partly(now) },
		"Attend": func(x *end, now time.Time) { x.Attend(now, true) },
	} {
		a, b := couple(t, nil)
		b.answer = false
		a.send(pattern(100), nil)
		exchange(start, a, b)
		buf := make([]byte, 1400)
		noted := start.Add(b.cfg.Idle/3 + 2*time.Second)
		now := start
		for b.closed == nil && now.Before(start.Add(2*time.Minute)) {
			for b.Poll(now, buf) > 0 {
			}
			due := b.Deadline()
			if now.Before(noted) && due.After(noted) {
				now = noted
				note(b, now)
			} else {
				now = due
			}
			b.Advance(now)
			b.run()
		}
		if !errors.Is(b.closed, ErrIdle) || now.Sub(noted) != b.cfg.Idle {
			t.Errorf("%s: closed with %v after %v", name, b.closed, now.Sub(noted))
		}
	}
}

// There are so many handles and no more.
func TestOfferWithoutAHandle(t *testing.T) {
	e := New(Config{Initiator: true, MaxMessage: 1200, Local: hello(), LocalCID: 1, RemoteCID: 2}, start)
	for i := range 1 << 16 {
		if _, err := e.Offer(&wire.Offer{ID: [16]byte{1}, Size: 1}); err != nil {
			t.Fatal(i, err)
		}
	}
	if _, err := e.Offer(&wire.Offer{ID: [16]byte{1}, Size: 1}); !errors.Is(err, errHandles) {
		t.Error(err)
	}
}

// As long as the peer's window is shut, for bytes or for messages, it is asked for it ever less often, though it answers.
func TestShutWindowIsAskedForEverLessOften(t *testing.T) {
	for _, shut := range []wire.Ack{{Window: 0, Messages: wire.NoMessageLimit}, {Window: 1 << 20, Messages: 0}} {
		x := newLossy(t, 100*time.Millisecond, nil)
		answer := func(f wire.Ack) {
			h := wire.Header{Dest: 11, Number: x.number}
			x.number++
			var a ackTracker
			a.got.Add(0, int64(len(x.sent)))
			x.receive(f.Append(h.Append(nil), &a.got, 1, 1000))
		}
		answer(shut)
		h := x.send(pattern(5_000), nil)
		x.poll()
		var pauses []time.Duration
		for last := x.now; len(pauses) < 8; {
			x.wait(100 * time.Millisecond)
			answer(shut)
			first, end := x.poll()
			for first == end {
				x.fire()
				first, end = x.poll()
			}
			if types, _ := x.frames(first); !slices.Equal(types, []wire.Type{wire.TypePing}) {
				t.Fatalf("%+v: sent %v", shut, types)
			}
			pauses = append(pauses, x.now.Sub(last))
			last = x.now
		}
		if first, last := pauses[0], pauses[7]; first > time.Second || last < maxPTO || last > maxPTO+100*time.Millisecond {
			t.Errorf("%+v: asked after %v", shut, pauses)
		}
		answer(wire.Ack{Window: 1 << 20, Messages: 1})
		if first, end := x.poll(); first == end || x.Acked(h) != 0 {
			t.Errorf("%+v: nothing is sent when it has opened", shut)
		}
	}
}

// The smallest windows, too, are told of when they have opened: on a reliable link nobody asks.
func TestSmallestWindowOpensAgain(t *testing.T) {
	for _, c := range []struct {
		window   uint32
		messages uint16
		size     int
	}{{1, wire.NoMessageLimit, 5}, {2, wire.NoMessageLimit, 5}, {3, wire.NoMessageLimit, 5}, {1 << 20, 1, 5000}, {1 << 20, 2, 5000}, {1 << 20, 3, 5000}} {
		a, b := couple(t, func(_, cb *Config) { cb.Local.Window, cb.Local.Messages = c.window, c.messages })
		exchange(start, a, b)
		b.hold = true
		h := a.send(pattern(c.size), nil)
		now := start
		for range 8 { // before anybody asks whether the other lives
			exchange(now, a, b)
			now = now.Add(time.Second) // all ACKs that are due have left
			a.Advance(now)
			b.Advance(now)
			exchange(now, a, b)
			b.Consumed(b.held, b.count)
			b.held, b.count = 0, 0
		}
		if exchange(now, a, b); !a.receipts[h] {
			t.Errorf("%+v: %d bytes have arrived", c, len(b.taken[h]))
		}
	}
}
