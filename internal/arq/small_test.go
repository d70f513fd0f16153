package arq

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

func TestFactIsSentAgainOnlyIfItsLastCopyIsLost(t *testing.T) {
	f := unsent
	if !f.due() || !f.open() {
		t.Error("not due at first")
	}
	f.sent(3)
	f = unsent // a probe
	f.sent(7)
	if f.lost(3) || f.due() {
		t.Error("due though a newer message carries it")
	}
	if !f.lost(7) || !f.due() {
		t.Error("not due though its last copy is lost")
	}
	f.sent(8)
	f.acked() // of any copy
	if f.lost(8) || f.open() {
		t.Error("open though the peer has it")
	}
}

func TestDuplicateMessageIsDropped(t *testing.T) {
	a, b := couple(t, nil)
	exchange(start, a, b)
	a.send(pattern(10), nil)
	a.run()
	buf := make([]byte, 1400)
	msg := buf[:a.Poll(start, buf)]
	if err := b.Receive(start, slices.Clone(msg)); err != nil {
		t.Fatal(err)
	}
	if err := b.Receive(start, slices.Clone(msg)); !errors.Is(err, errDuplicate) {
		t.Errorf("the same message again: %v", err)
	}
}

// "Handles ... not reused while young": what comes late for a transfer that is over does not begin it anew.
func TestLateFramesOfATransferThatIsOverAreIgnored(t *testing.T) {
	a, b := couple(t, func(ca, cb *Config) { ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = false, false, false, false })
	h := a.send(pattern(3000), nil)
	now := settleUntil(start, a, b, func() bool { return a.Quiet() && b.Quiet() })
	offers := func() (n int) {
		for _, ev := range b.events {
			if ev.Kind == Offered {
				n++
			}
		}
		return n
	}
	late := (&wire.Header{Dest: 22, Number: uint32(a.sent.next)}).Append(nil)
	late = (&wire.Offer{Handle: h, Attempt: 1, ID: [16]byte{1}, Size: 3000}).Append(late)
	late = (&wire.Data{Handle: h, Payload: pattern(100)}).Append(late)
	if err := b.Receive(now, wire.Seal(late)); err != nil {
		t.Errorf("late frames: %v", err) // they are acknowledged
	}
	b.run()
	if offers() != 1 || b.ins.len() != 0 {
		t.Errorf("%d offers reported, %d open", offers(), b.ins.len())
	}
	// Frames for a handle that was never offered are not acknowledged, as if they were lost.
	early := (&wire.Header{Dest: 22, Number: uint32(a.sent.next + 1)}).Append(nil)
	early = (&wire.Data{Handle: h + 1, Payload: pattern(100)}).Append(early)
	if err := b.Receive(now, wire.Seal(early)); !errors.Is(err, errEarly) {
		t.Errorf("data before its offer: %v", err)
	}
	if b.acks.seen(a.sent.next + 1) {
		t.Error("data before its offer will be acknowledged")
	}
}

// A CANCEL that overtakes its OFFER wins.
func TestCancelBeforeOffer(t *testing.T) {
	a, b := couple(t, func(ca, cb *Config) { ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = false, false, false, false })
	exchange(start, a, b)
	message := func(n int64, f frame) []byte {
		return wire.Seal(f.Append((&wire.Header{Dest: 22, Number: uint32(a.sent.next + n)}).Append(nil)))
	}
	b.Receive(start, message(1, &wire.Cancel{Handle: 0, Attempt: 1}))
	b.Receive(start, message(0, &wire.Offer{Handle: 0, Attempt: 1, ID: [16]byte{1}, Size: 1}))
	for b.run(); len(b.events) > 0; b.events = b.events[1:] {
		if b.events[0].Kind == Offered {
			t.Error("offered though it was canceled")
		}
	}
}

func TestTransfersOfOnePriorityShare(t *testing.T) {
	a, b := couple(t, nil)
	exchange(start, a, b)
	first := a.send(pattern(400_000), nil)
	second := a.send(pattern(400_000), nil)
	a.run()
	buf := make([]byte, 1400)
	for range 100 {
		b.Receive(start, slices.Clone(buf[:a.Poll(start, buf)]))
		a.run()
	}
	b.run()
	if x, y := len(b.taken[first]), len(b.taken[second]); min(x, y) < 40_000 {
		t.Errorf("%d bytes of the first and %d of the second", x, y)
	}
}

// A responder that was restarted in the handshake may answer too; the session is the first one's.
func TestSecondResponderIsRefused(t *testing.T) {
	x := newLossy(t, 10*time.Millisecond, nil)
	h := wire.Header{Long: true, Dest: 11, Number: 5, Version: wire.Version1, Source: 33}
	peer := hello()
	if err := x.Receive(x.now, wire.Seal(peer.Append(h.Append(nil)))); !errors.Is(err, errNotOurs) {
		t.Errorf("another responder: %v", err)
	}
	h.Source = 22
	if err := x.Receive(x.now, wire.Seal(wire.AppendPing(h.Append(nil)))); err != nil {
		t.Errorf("the first responder: %v", err)
	}
}

// On a medium with a single peer the HELLO of another session says that the peer was restarted, unless this one is still heard.
func TestPeerThatBeginsAnew(t *testing.T) {
	header := wire.Header{Long: true, Dest: 77, Version: wire.Version1, Source: 33}
	begin := func(change func(*wire.Header)) []byte {
		h, peer := header, hello()
		if change != nil {
			change(&h)
		}
		return peer.Append(h.Append(nil))
	}
	disguised := begin(nil)
	disguised[len(header.Append(nil))] = byte(wire.TypeOffer)
	for name, c := range map[string]struct {
		msg    []byte
		silent time.Duration
		ends   bool
		change func(a, b *Config)
	}{
		"after silence":      {begin(nil), time.Second, true, nil},
		"still heard":        {begin(nil), time.Second - 1, false, nil},
		"another frame":      {disguised, time.Minute, false, nil},
		"malformed":          {append(header.Append(nil), byte(wire.TypeHello), 1, 0, 0), time.Minute, false, nil},
		"for this session":   {begin(func(h *wire.Header) { h.Dest = 22 }), time.Minute, false, nil},
		"for its first ID":   {begin(func(h *wire.Header) { h.Dest = 99 }), time.Minute, false, nil},
		"in a short message": {begin(func(h *wire.Header) { h.Long = false }), time.Minute, false, nil},
		"of no version":      {begin(func(h *wire.Header) { h.Version = wire.VersionNone }), time.Minute, false, nil},
		"to the initiator":   {begin(nil), time.Minute, false, func(a, b *Config) { *a, *b = *b, *a }},
	} {
		a, b := couple(t, func(a, b *Config) {
			a.Reliable, b.Reliable = false, false
			if c.change != nil {
				c.change(a, b)
			}
		})
		exchange(start, a, b)
		err := b.Receive(start.Add(c.silent), wire.Seal(c.msg))
		b.run()
		if ends := errors.Is(b.closed, ErrReset); ends != c.ends || !errors.Is(err, errNotOurs) {
			t.Errorf("%s: %v, the session has ended: %v", name, err, b.closed)
		}
	}
}

func TestHandlesExpand(t *testing.T) {
	h := newHandles(nil)
	for i := range 200_000 {
		c := h.expand(uint16(i))
		if c != int64(i)+1<<16 {
			t.Fatalf("handle %d expands to %d", uint16(i), c)
		}
		if h.isOver(c) {
			t.Fatalf("handle %d is over before it was used", uint16(i))
		}
		if !h.end(c) || !h.isOver(c) {
			t.Fatalf("handle %d cannot end", uint16(i))
		}
	}
	if n := h.over.Count(); n != 1 {
		t.Errorf("%d ranges", n)
	}
	for i := range 5000 { // every second one never ends
		if c := h.expand(uint16(200_000 + 2*i)); !h.end(c) {
			return
		}
	}
	t.Error("a peer may leave any number of holes")
}

// Random operations on an outgoing transfer against a model that keeps a state for each byte.
func TestOutgoingAgainstAModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		o := &outgoing{size: -1, started: true}
		const (
			missing = iota // not supplied
			fresh
			flying
			gone // lost
			arrived
		)
		var model [3000]int
		type sending struct{ start, end int64 }
		var flight []sending
		supplied, released := 0, 0
		set := func(s, e int64, from, to int) {
			for i := s; i < e; i++ {
				if from < 0 && model[i] != arrived || model[i] == from {
					model[i] = to
				}
			}
		}
		count := func(done [][]byte) {
			for _, p := range done {
				released += len(p)
			}
		}
		for range 400 {
			switch r.IntN(5) {
			case 0: // supply
				if n := r.IntN(300); int(o.end)+n <= len(model) && n > 0 {
					set(o.end, o.end+int64(n), missing, fresh)
					supplied += n
					count(o.supply(o.end, make([]byte, n), nil))
				}
			case 1, 2: // send
				if o.hasData() {
					got, again := o.slice(int64(1 + r.IntN(200)))
					want := fresh
					if again {
						want = gone
					}
					for i := got.Start; i < got.End; i++ {
						if model[i] != want {
							t.Fatalf("seed %d: byte %d sent in state %d", seed, i, model[i])
						}
						model[i] = flying
					}
					if part := o.pieces.copyTo(nil, got.Start, int(got.Len())); len(part) != int(got.Len()) {
						t.Fatalf("seed %d: %d bytes of %d at %d", seed, len(part), got.Len(), got.Start)
					}
					o.sent(got, again)
					flight = append(flight, sending{got.Start, got.End})
				}
			case 3: // acknowledge
				if len(flight) > 0 {
					i := r.IntN(len(flight))
					done, _ := o.ack(flight[i].start, flight[i].end, nil)
					count(done)
					set(flight[i].start, flight[i].end, -1, arrived)
					flight = slices.Delete(flight, i, i+1)
				}
			case 4: // lose; it may still be acknowledged later
				if len(flight) > 0 {
					f := flight[r.IntN(len(flight))]
					o.lose(f.start, f.end)
					set(f.start, f.end, -1, gone)
				}
			}
			var unsent, lost, acked int64
			for _, s := range model {
				switch s {
				case fresh:
					unsent++
				case gone:
					lost++
				case arrived:
					acked++
				}
			}
			if o.unsent != unsent || o.lost.Covered() != lost || o.acked.Covered() != acked {
				t.Fatalf("seed %d: unsent %d lost %d acked %d, model %d %d %d", seed, o.unsent, o.lost.Covered(), o.acked.Covered(), unsent, lost, acked)
			}
			if held := supplied - released; int64(held) != o.pieces.size {
				t.Fatalf("seed %d: %d bytes held, %d not released", seed, o.pieces.size, held)
			}
		}
	}
}

// RFC 9000, section 13.2.4: ranges that the peer knows we know need not be repeated.
func TestACKsGetShorterOnceTheyAreAcknowledged(t *testing.T) {
	a, b := couple(t, func(ca, cb *Config) { ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = false, false, false, false })
	exchange(start, a, b)
	h := a.send(pattern(2<<20), nil)
	now, most := start, 0
	buf := make([]byte, 1400)
	r := rand.New(rand.NewPCG(1, 1))
	for i := 0; !a.receipts[h] && i < 100_000; i++ {
		now = now.Add(time.Millisecond)
		for _, dir := range [...][2]*end{{a, b}, {b, a}} {
			dir[0].Advance(now)
			dir[0].run()
			for range 5 { // a slow link
				n := dir[0].Poll(now, buf)
				if n == 0 {
					break
				}
				if r.IntN(10) > 0 {
					dir[1].Receive(now, slices.Clone(buf[:n]))
				}
				dir[0].run()
			}
			dir[1].run()
		}
		most = max(most, b.acks.got.Count())
	}
	if !a.receipts[h] {
		t.Fatal("no receipt")
	}
	if most > 60 { // some 160 gaps in all
		t.Errorf("up to %d ranges in an ACK", most)
	}
}

// Messages that nobody acknowledges do not fill the ring, unless one that is to be acknowledged is older.
func TestRingForgetsOwnACKs(t *testing.T) {
	var r sentRing
	push := func(s state) { *r.push() = sentMessage{at: 1, state: s} }
	for range 10 * smallRing {
		push(resolved)
	}
	if len(r.buf) != smallRing {
		t.Errorf("room for %d messages", len(r.buf))
	}
	first := r.next
	push(outstanding)
	for range 10 * smallRing {
		push(resolved)
	}
	if r.firstOutstanding() != first || r.base > first {
		t.Errorf("message %d is forgotten: the ring begins with %d", first, r.base)
	}
}

// A FIN in front of the OFFER that it waits for, as both were lost, does not keep that from being obeyed: the message
// comes again with its frames in the same order.
func TestOfferBehindItsFin(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, nil)
	d := digest(nil)
	fin := wire.Fin{Handle: 7, Attempt: 1, Algorithm: 2, Digest: d.Append(nil)}
	offer := wire.Offer{Handle: 7, Attempt: 1, ID: [16]byte{15: 1}, Algorithm: 2}
	for try := range 2 {
		h := wire.Header{Dest: 11, Number: x.number}
		x.number++
		err := x.Receive(x.now, wire.Seal(offer.Append(fin.Append(h.Append(nil)))))
		if try == 0 && !errors.Is(err, errEarly) || try == 1 && err != nil {
			t.Errorf("try %d: %v", try, err)
		}
		x.run()
	}
	if len(x.kept) != 1 {
		t.Error("the image is not there")
	}
}
