package arq

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// frames hands the engine a message of its peer's.
func (x *lossy) hand(frames ...interface{ Append([]byte) []byte }) error {
	h := wire.Header{Dest: 11, Number: x.number}
	x.number++
	msg := h.Append(nil)
	for _, f := range frames {
		msg = f.Append(msg)
	}
	return x.Receive(x.now, wire.Seal(msg))
}

func anOffer(handle uint16, size int64) *wire.Offer {
	return &wire.Offer{Handle: handle, ID: [16]byte{15: byte(handle) + 1, 14: byte(handle >> 8)}, Size: size, Algorithm: 2, Attempt: 1}
}

// received empties the events and returns the bytes that were received.
func (x *end) received() (n int) {
	for ev := x.NextEvent(); ev != nil; ev = x.NextEvent() {
		if ev.Kind == Received {
			n += len(ev.Data)
		}
		x.events = append(x.events, *ev)
	}
	return n
}

// A peer whose data or end are not where its offer has said, or the data not where the end is, is refused, and the
// owner hears it.
func TestPeerThatContradictsItself(t *testing.T) {
	fin := func(size int64) *wire.Fin {
		d := digest(nil)
		return &wire.Fin{Attempt: 1, Size: size, Algorithm: 2, Digest: d.Append(nil)}
	}
	data := &wire.Data{Offset: 900, Payload: pattern(200)}
	for name, c := range map[string]struct {
		size   int64
		frames []interface{ Append([]byte) []byte }
		bytes  int
	}{
		"data beyond the size":   {1000, []interface{ Append([]byte) []byte }{data}, 0},
		"data beyond the end":    {-1, []interface{ Append([]byte) []byte }{fin(1000), data}, 0},
		"an end before the size": {1000, []interface{ Append([]byte) []byte }{fin(999)}, 0},
		"an end before the data": {-1, []interface{ Append([]byte) []byte }{data, fin(1000)}, 200},
	} {
		x := newLossy(t, 100*time.Millisecond, nil)
		frames := append([]interface{ Append([]byte) []byte }{anOffer(0, c.size)}, c.frames...)
		for _, f := range frames {
			if err := x.hand(f); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if n := x.received(); n != c.bytes {
			t.Errorf("%s: %d bytes received, want %d", name, n, c.bytes)
		}
		if last := x.events[len(x.events)-1]; last.Kind != Canceled || last.Reason != reasonMalformed {
			t.Errorf("%s: the last event is %+v", name, last)
		}
		first, end := x.poll()
		if types, _ := x.frames(first); end != first+1 || types[len(types)-1] != wire.TypeReject {
			t.Errorf("%s: answered by %d messages, %v", name, end-first, types)
		}
	}
}

// Data of an offer that is not whole yet come again: nobody could take them.
func TestDataBeforeTheMetadataAreWhole(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	offer, rest := anOffer(0, 100), anOffer(0, 100)
	offer.MetaSize, offer.Meta = 8, []byte("meta")
	rest.MetaSize, rest.MetaOffset, rest.Meta = 8, 4, []byte("data")
	data := &wire.Data{Payload: pattern(100)}
	if err := x.hand(offer); err != nil {
		t.Fatal(err)
	}
	if err := x.hand(data); !errors.Is(err, errEarly) || x.received() > 0 {
		t.Errorf("data before the offer is whole: %v", err)
	}
	if err := x.hand(rest); err != nil {
		t.Fatal(err)
	}
	if err := x.hand(data); err != nil || x.received() != 100 {
		t.Errorf("data after it: %v", err)
	}
}

// Metadata take memory as they come, not as they are announced: an offer of 50 bytes may announce 64 KiB.
func TestAnnouncedMetadataTakeNoMemory(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	for n := range uint16(earlyTransfers) {
		offer := anOffer(n, 100)
		offer.MetaSize, offer.Meta = hello().Metadata, []byte("meta")
		if err := x.hand(offer); err != nil {
			t.Fatal(err)
		}
		offer.MetaOffset = offer.MetaSize - 4
		if err := x.hand(offer); !errors.Is(err, errEarly) {
			t.Errorf("the end of metadata before the rest: %v", err)
		}
		if c := cap(x.ins.get(n).offer.Meta); c > 100 {
			t.Errorf("memory of %d bytes for 4 of metadata", c)
		}
	}
}

// The parts of metadata may come in any order, and again, cut elsewhere.
func TestMetadataInParts(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	meta := pattern(100)
	for _, part := range []struct{ start, end int }{{40, 50}, {0, 30}, {10, 20}, {80, 100}, {20, 60}, {0, 70}, {70, 70}, {70, 80}} {
		offer := anOffer(0, 100)
		offer.MetaSize, offer.MetaOffset, offer.Meta = 100, uint16(part.start), meta[part.start:part.end]
		if err := x.hand(offer); err != nil {
			t.Fatalf("%+v: %v", part, err)
		}
		offered := false
		for ev := x.NextEvent(); ev != nil; ev = x.NextEvent() {
			if offered = ev.Kind == Offered; !offered || !bytes.Equal(ev.Offer.Meta, meta) {
				t.Errorf("%+v: %+v", part, ev)
			}
		}
		if offered != (part.start == 70 && part.end == 80) {
			t.Errorf("%+v: offered: %t", part, offered)
		}
	}
}

// Ranges that were acknowledged before are passed over at once: a message has room for 70 ACKs of all that is in flight.
func TestRepeatedACKsCostLittle(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, func(c *Config) { c.Ordered = true })
	_, end := x.flight(200_000)
	last := int64(end)
	x.acks(3, 50)
	for n := int64(3); n < 50; n++ {
		if next := x.acked(n, 50); next != 50 {
			t.Fatalf("behind message %d of [3, 50) comes %d", n, next)
		}
	}
	if x.Engine.sent.at(50).state != outstanding {
		t.Error("a message that was not acknowledged counts as such")
	}
	x.acks(2, last)
	if next := x.acked(2, last); next != last {
		t.Errorf("behind message 2 of [2, %d) comes %d", last, next)
	}
	for n := int64(50); n < last; n++ {
		if x.Engine.sent.at(n).state != resolved {
			t.Fatalf("message %d was passed over", n)
		}
	}
}

// An empty image is there when the rest of its offer is, which may come behind its FIN.
func TestEndBeforeTheMetadataAreWhole(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	offer, rest := anOffer(0, 0), anOffer(0, 0)
	offer.MetaSize, offer.Meta = 8, []byte("meta")
	rest.MetaSize, rest.MetaOffset, rest.Meta = 8, 4, []byte("data")
	for _, f := range []interface{ Append([]byte) []byte }{offer, &wire.Fin{Attempt: offer.Attempt, Digest: make([]byte, 16)}, rest} {
		if err := x.hand(f); err != nil {
			t.Fatal(err)
		}
	}
	x.received()
	if n := len(x.events); n < 2 || x.events[n-2].Kind != Offered || x.events[n-1].Kind != Finished {
		t.Errorf("the events are %+v", x.events)
	}
}

// "what a peer can make this side hold": offers, and pieces of one transfer.
func TestWhatAPeerOpensIsBounded(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	most, refused := 2*int(hello().Transfers)+16, 0
	for n := range most + 10 {
		if err := x.hand(anOffer(uint16(n), 1)); errors.Is(err, errNoRoom) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused != 10 || x.ins.len() != most {
		t.Errorf("%d offers are open, %d were refused", x.ins.len(), refused)
	}

	x = newLossy(t, 100*time.Millisecond, nil)
	if err := x.hand(anOffer(0, 1<<20)); err != nil {
		t.Fatal(err)
	}
	refused = 0
	for n := range maxFragments + 10 {
		if err := x.hand(&wire.Data{Offset: 1 + 2*int64(n), Payload: []byte{1}}); errors.Is(err, errNoRoom) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n := x.received(); refused != 10 || n != maxFragments {
		t.Errorf("%d pieces were taken, %d refused", n, refused)
	}
	for _, c := range []struct{ offset, n, fresh int64 }{{0, 1, 1}, {2 * maxFragments, 1, 1}, {4, 1, 1}, {10, 3, 2}} { // before, behind, between and over others
		if err := x.hand(&wire.Data{Offset: c.offset, Payload: pattern(int(c.n))}); err != nil || x.received() != int(c.fresh) {
			t.Errorf("what fills a gap at %d, or lengthens a piece: %v", c.offset, err)
		}
	}
	if err := x.hand(&wire.Data{Offset: 1 << 19, Payload: []byte{1}}); err != nil {
		t.Errorf("a piece apart, where there is room again: %v", err)
	}
}

// Of a peer whose address is not proven, which anybody can write, less is taken.
func TestUnprovenPeerBringsLittle(t *testing.T) {
	b := newEnd(t, New(Config{MaxMessage: 1200, Local: hello(), LocalCID: 22, RemoteCID: 11, FirstCID: 99, Unproven: true}, start))
	peer := hello()
	number := uint32(0)
	hand := func(frame interface{ Append([]byte) []byte }) error {
		h := wire.Header{Long: true, Dest: 99, Number: number, Version: wire.Version1, Source: 11}
		number++
		return b.Receive(start, wire.Seal(frame.Append(h.Append(nil))))
	}
	if err := hand(&peer); err != nil {
		t.Fatal(err)
	}
	for n := range uint16(earlyTransfers + 5) {
		if err := hand(anOffer(n, 1<<20)); errors.Is(err, errNoRoom) != (n >= earlyTransfers) {
			t.Errorf("offer %d: %v", n, err)
		}
	}
	for n := range int64(100) {
		err := hand(&wire.Data{Offset: n * 1000, Payload: pattern(1000)})
		if err != nil && !errors.Is(err, errNoRoom) {
			t.Fatal(err)
		}
	}
	if n := b.received(); n > earlyBytes || n < earlyBytes-1000 {
		t.Errorf("%d bytes were taken, at most %d are to be", n, earlyBytes)
	}
}

// Many peers whose addresses are not proven begin few transfers each, and then none, until they have proven it.
func TestCrowdOfUnprovenPeers(t *testing.T) {
	for crowd, want := range map[uint16]int{0: earlyTransfers, 7: earlyTransfers, 63: 2, 127: 1, 128: 0, 511: 0, 65535: 0} {
		b := newEnd(t, New(Config{MaxMessage: 1200, Local: hello(), LocalCID: 22, RemoteCID: 11, FirstCID: 99, Unproven: true, Crowd: crowd}, start))
		number := uint32(0)
		hand := func(h wire.Header, frame interface{ Append([]byte) []byte }) error {
			h.Number = number
			number++
			return b.Receive(start, wire.Seal(frame.Append(h.Append(nil))))
		}
		long := wire.Header{Long: true, Dest: 99, Version: wire.Version1, Source: 11}
		peer := hello()
		if err := hand(long, &peer); err != nil {
			t.Fatal(err)
		}
		began := 0
		for n := range uint16(earlyTransfers) {
			if err := hand(long, anOffer(n, 1000)); err == nil {
				began++
			} else if !errors.Is(err, errNoRoom) {
				t.Fatal(err)
			}
		}
		if began != want {
			t.Errorf("with %d others a peer begins %d transfers, want %d", crowd, began, want)
		}
		if err := hand(wire.Header{Dest: 22}, anOffer(earlyTransfers, 1000)); err != nil {
			t.Errorf("with %d others, proven: %v", crowd, err)
		}
	}
}

// Whoever offers to a peer that takes no transfers hears so, and waits for nothing.
func TestPeerThatTakesNoTransfers(t *testing.T) {
	a, b := couple(t, func(_, b *Config) { b.Local.Transfers = 0 })
	var handles []uint16
	a.run()
	exchange(start, a, b)
	for range 2 {
		handles = append(handles, a.send(pattern(1000), nil))
		exchange(start, a, b)
	}
	for _, h := range handles {
		if r := a.rejects[h]; r == nil || r.Reason != reasonNotServing {
			t.Errorf("rejected: %+v", r)
		}
	}
	if len(b.taken) > 0 || !a.Quiet() {
		t.Errorf("%d transfers have come; quiet: %t", len(b.taken), a.Quiet())
	}
}
