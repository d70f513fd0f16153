package arq

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

func TestCloseTellsThePeerWhy(t *testing.T) {
	a, b := couple(t, nil)
	h := a.send(pattern(100_000), nil)
	a.run()
	exchange(start, a, b)
	a.Close(start, wire.CodeGoingAway, "bye")
	exchange(start, a, b)
	if !errors.Is(a.closed, ErrClosed) {
		t.Errorf("closed with %v", a.closed)
	}
	var c *CloseError
	if !errors.As(b.closed, &c) || !c.Remote || c.Code != wire.CodeGoingAway || c.Text != "bye" {
		t.Errorf("the peer closed with %v", b.closed)
	}
	if err := a.Supply(h, 0, nil); err == nil {
		t.Error("supply after close")
	}
	if d := a.Deadline(); !d.IsZero() {
		t.Errorf("deadline %v after close on a reliable link", d)
	}
}

func TestViolationsEndTheSession(t *testing.T) {
	a, b := couple(t, nil)
	exchange(start, a, b)
	msg := (&wire.Header{Dest: 22, Number: uint32(b.Newest() + 1)}).Append(nil)
	msg = (&wire.Receipt{Level: 9, Digest: []byte{1}}).Append(msg)
	if err := b.Receive(start, wire.Seal(msg)); err == nil {
		t.Error("no error")
	}
	exchange(start, a, b)
	var c *CloseError
	if !errors.As(b.closed, &c) || c.Remote || c.Code != wire.CodeMalformed {
		t.Errorf("closed with %v", b.closed)
	}
	if !errors.As(a.closed, &c) || !c.Remote || c.Code != wire.CodeMalformed {
		t.Errorf("the peer closed with %v", a.closed)
	}
}

// "On an ordered reliable link nothing is ever sent twice", so a message that is not obeyed ends the session:
// both sides know at once and may begin another.
func TestDroppedMessageEndsTheSessionOnAReliableLink(t *testing.T) {
	for name, c := range map[string]struct {
		twist func(msg []byte) []byte
		code  wire.Code
	}{
		"flags":      {func(m []byte) []byte { m[0] ^= 1; return m }, wire.CodeMalformed},
		"long":       {func(m []byte) []byte { m[0] ^= 0x80; return m }, wire.CodeChecksum},
		"ID":         {func(m []byte) []byte { m[3] ^= 4; return m }, wire.CodeChecksum},
		"number":     {func(m []byte) []byte { m[9] ^= 4; return m }, wire.CodeChecksum},
		"payload":    {func(m []byte) []byte { m[len(m)/2] ^= 64; return m }, wire.CodeChecksum},
		"CRC":        {func(m []byte) []byte { m[len(m)-1] ^= 1; return m }, wire.CodeChecksum},
		"cut":        {func(m []byte) []byte { return m[:16] }, wire.CodeTruncated},
		"missing":    {func(m []byte) []byte { return nil }, wire.CodeState},
		"other's ID": {func(m []byte) []byte { m[3] ^= 4; return wire.Seal(m[:len(m)-wire.Trailer]) }, wire.CodeState},
	} {
		for _, reliable := range []bool{true, false} {
			if reliable && name == "payload" {
				continue // which is the digest's to notice
			}
			a, b := couple(t, both(func(c *Config) { c.Reliable, c.Ordered = reliable, reliable }))
			settleUntil(start, a, b, func() bool { return a.Quiet() && b.Quiet() && b.Newest() > 0 })
			h := a.send(pattern(20_000), nil)
			a.run()
			buf := make([]byte, 1400)
			for i := range 3 {
				msg := append([]byte(nil), buf[:a.Poll(start, buf)]...)
				if i == 1 {
					msg = c.twist(msg)
				}
				if name == "other's ID" && reliable {
					msg = wire.SealReliable(msg[:len(msg)-wire.Trailer], payloadOf(msg))
				}
				if msg != nil {
					b.Receive(start, msg)
				}
				b.run()
			}
			settleUntil(start, a, b, func() bool { return a.receipts[h] || a.closed != nil && b.closed != nil })
			var here, there *CloseError
			switch {
			case !reliable && (!a.receipts[h] || a.closed != nil || b.closed != nil):
				t.Errorf("%s: on a link that loses, receipt %v, closed %v and %v", name, a.receipts[h], a.closed, b.closed)
			case reliable && (!errors.As(b.closed, &here) || here.Remote || here.Code != c.code):
				t.Errorf("%s: closed with %v", name, b.closed)
			case reliable && (!errors.As(a.closed, &there) || !there.Remote || there.Code != c.code):
				t.Errorf("%s: the peer closed with %v", name, a.closed)
			}
		}
	}
}

func TestVanishedPeerEndsWithinTheIdleTime(t *testing.T) {
	for _, reliable := range []bool{true, false} {
		a, b := couple(t, func(ca, cb *Config) { ca.Reliable, ca.Ordered = reliable, reliable })
		exchange(start, a, b)
		now := start.Add(time.Hour) // idle without transfers is no reason
		a.Advance(now)
		if a.run(); a.closed != nil {
			t.Fatalf("closed while idle: %v", a.closed)
		}
		a.send(pattern(1000), nil)
		began := now
		buf := make([]byte, 1400)
		for a.closed == nil && now.Before(began.Add(time.Minute)) {
			a.run()
			for a.Poll(now, buf) > 0 {
			}
			now = a.Deadline()
			a.Advance(now)
			a.run()
		}
		if !errors.Is(a.closed, ErrIdle) || now.Sub(began) != 30*time.Second {
			t.Errorf("closed with %v after %v", a.closed, now.Sub(began))
		}
	}
}

func TestSlowHandlerIsKeptAlive(t *testing.T) {
	a, b := couple(t, nil)
	b.answer = false
	h := a.send(pattern(1000), nil)
	settleUntil(start, a, b, func() bool { return len(b.kept) == 1 })
	now := settleUntil(start, a, b, func() bool { return a.closed != nil || b.closed != nil })
	if a.closed != nil || b.closed != nil {
		t.Fatalf("closed while the Handler works: %v %v", a.closed, b.closed)
	}
	b.Receipt(b.last(Finished).Handle, &wire.Receipt{Level: wire.LevelKept, Bytes: 1000, Algorithm: 2, Digest: []byte{1}})
	exchange(now, a, b)
	if !a.receipts[h] {
		t.Error("no receipt after a minute")
	}
}

// A sender that waits for nothing but a receipt asks soon whether its peer was restarted, and then ever less often.
func TestWaitForAReceiptIsProbed(t *testing.T) {
	a, b := couple(t, func(ca, cb *Config) {
		ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = false, false, false, false
	})
	b.answer = false
	a.send(pattern(1000), nil)
	acked := settleUntil(start, a, b, func() bool { return len(b.kept) == 1 && a.recovery.inFlight == 0 && a.Deadline().After(start) })
	var pauses []time.Duration
	for last := acked; len(pauses) < 6; {
		now := a.Deadline()
		a.Advance(now)
		if exchange(now, a, b) > 0 {
			pauses = append(pauses, now.Sub(last).Round(100*time.Millisecond))
			last = now
		}
		b.Advance(now)
		exchange(now, a, b)
	}
	if want := []time.Duration{1, 2, 4, 8, 10, 10}; !slices.EqualFunc(pauses, want, func(p, w time.Duration) bool { return p == w*time.Second }) {
		t.Errorf("probed after %v; want %v seconds", pauses, want)
	}
}

func TestResetIsBelievedOnlyWithAnEcho(t *testing.T) {
	a, b := couple(t, nil)
	exchange(start, a, b)
	reset := func(dest wire.ConnID, number uint32) []byte {
		h := wire.Header{Long: true, Number: 0, Version: wire.VersionNone}
		return wire.Seal((&wire.Reset{Dest: dest, Number: number}).Append(h.Append(nil)))
	}
	for _, forged := range [][]byte{reset(23, 0), reset(22, 1000)} {
		if err := a.Receive(start, forged); !errors.Is(err, errForged) {
			t.Errorf("forged RESET: %v", err)
		}
	}
	a.Receive(start, reset(22, 0))
	if a.run(); !errors.Is(a.closed, ErrReset) {
		t.Errorf("closed with %v", a.closed)
	}
}

func TestLongHeadersEndWhenThePeerIsKnown(t *testing.T) {
	a, b := couple(t, nil)
	buf := make([]byte, 1400)
	a.send(pattern(10), nil)
	n := a.Poll(start, buf)
	if dest, long, _ := wire.PeekDest(buf[:n]); dest != 99 || !long {
		t.Errorf("first message to %d, long %v", dest, long)
	}
	b.Receive(start, append([]byte(nil), buf[:n]...))
	n = b.Poll(start, buf)
	if dest, long, _ := wire.PeekDest(buf[:n]); dest != 11 || !long {
		t.Errorf("answer to %d, long %v", dest, long)
	}
	a.Receive(start, append([]byte(nil), buf[:n]...))
	a.run()
	n = a.Poll(start, buf)
	if dest, long, _ := wire.PeekDest(buf[:n]); n == 0 || dest != 22 || long {
		t.Errorf("then %d bytes to %d, long %v", n, dest, long)
	}
	b.Receive(start, append([]byte(nil), buf[:n]...))
	exchange(start, a, b)
	b.send(pattern(10), nil)
	b.run()
	if n = b.Poll(start, buf); n == 0 || buf[0]&0x80 != 0 {
		t.Error("the responder goes on with long messages after a short one")
	}
}

// A handle whose transfer took its time is not used again soon after: late copies of its frames would end the next one.
func TestHandleOfALongTransferRests(t *testing.T) {
	a, b := couple(t, func(ca, cb *Config) { ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = false, false, false, false })
	now := settleUntil(start, a, b, func() bool { return a.Quiet() && b.Quiet() })
	long := a.send(nil, func(f *wire.Offer) { f.Size = wire.UnknownSize })
	delete(a.images, long)
	var last uint16
	for range 1<<16 - 100 { // as many others begin and end
		h, err := a.Offer(&wire.Offer{ID: [16]byte{1}, Attempt: 1, Size: 1, Algorithm: 2})
		if err != nil {
			t.Fatal(err)
		}
		a.Cancel(h, 13)
		last = h
		if h%64 == 0 {
			exchange(now, a, b)
		}
	}
	now = settleUntil(now, a, b, func() bool { return a.controls.head == len(a.controls.due) })
	a.Cancel(long, 13)
	exchange(now, a, b)
	a.controls.add(&control{frame: &wire.Cancel{Handle: long, Attempt: 1, Reason: 13}}) // its acknowledgement was late
	exchange(now, a, b)
	for range 200 {
		h := a.send(pattern(1), nil)
		if now = settleUntil(now, a, b, func() bool { return a.receipts[h] }); !a.receipts[h] {
			t.Fatalf("handle %d after %d, which came long after %d: no receipt; %v %v", h, last, long, a.closed, b.closed)
		}
	}
}

// Handles of long transfers rest one by one: those between them are not left out, as a peer takes what is over half
// of all handles ahead for one of those that are over.
func TestHandlesOfLongTransfersRestAlone(t *testing.T) {
	a, b := couple(t, func(ca, cb *Config) { ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = false, false, false, false })
	now := settleUntil(start, a, b, func() bool { return a.Quiet() && b.Quiet() })
	others := func(n int) {
		for i := range n {
			h, err := a.Offer(&wire.Offer{ID: [16]byte{1}, Attempt: 1, Size: 1, Algorithm: 2})
			if err != nil {
				t.Fatal(err)
			}
			a.Cancel(h, 13)
			if i%64 == 0 {
				exchange(now, a, b)
			}
		}
		now = settleUntil(now, a, b, func() bool { return a.controls.head == len(a.controls.due) })
	}
	var long []uint16
	for _, n := range []int{20_000, 30_000} {
		h := a.send(nil, func(f *wire.Offer) { f.Size = wire.UnknownSize })
		delete(a.images, h)
		long = append(long, h)
		others(n)
	}
	for _, h := range long {
		a.Cancel(h, 13)
	}
	h := a.send(pattern(1), nil)
	if now = settleUntil(now, a, b, func() bool { return a.receipts[h] }); !a.receipts[h] {
		t.Fatalf("handle %d after transfers %v, which ended together: no receipt; %v %v", h, long, a.closed, b.closed)
	}
	others(1<<16 - 1 - int(h))
	h = a.send(pattern(1), nil)
	settleUntil(now, a, b, func() bool { return a.receipts[h] })
	if n := b.last(Offered).Handle; n != long[0]+1 || len(a.waiting.rest) > 0 {
		t.Errorf("handle %d though %d rests; left: %v", n, long[0], a.waiting.rest)
	}
}
