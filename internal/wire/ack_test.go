package wire_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

func parseAck(t *testing.T, b []byte) wire.Ack {
	t.Helper()
	r := wire.NewReader(b)
	var a wire.Ack
	if !r.Next() || r.Type != wire.TypeAck {
		t.Fatalf("no ACK in % x", b)
	}
	if err := a.Parse(r.Body); err != nil {
		t.Fatal(err)
	}
	if r.Next() || r.Err() != nil {
		t.Fatalf("more than an ACK in % x: %v", b, r.Err())
	}
	return a
}

// Whatever the set, the limit of ranges and the room, the highest ranges come
// out again, none is made up, and the room is kept.
func TestAckAgainstModel(t *testing.T) {
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 3000 {
		var set chunk.Ranges
		at := rng.Int64N(1 << 40)
		for range 1 + rng.IntN(300) {
			n := 1 + rng.Int64N(1+rng.Int64N(1<<16))
			set.Add(at, at+n)
			at += n + 1 + rng.Int64N(1+rng.Int64N(1<<uint(rng.IntN(22))))
		}
		maxRanges, room := 1+rng.IntN(300), rng.IntN(1500)
		b := (&wire.Ack{Delay: 1, Window: 2, Messages: 3}).Append(nil, &set, maxRanges, room)
		if len(b) > room {
			t.Fatalf("seed %d round %d: %d bytes in room for %d", seed, round, len(b), room)
		}
		if len(b) == 0 {
			if room >= 21 {
				t.Fatalf("seed %d round %d: nothing in room for %d", seed, round, room)
			}
			continue
		}
		a := parseAck(t, b)
		got := slices.Collect(a.Ranges(wire.ExpandNumber(a.Largest, set.Max()-1)))
		if len(got) != a.Count() || len(got) > min(maxRanges, wire.MaxAckRanges) {
			t.Fatalf("seed %d round %d: %d ranges of at most %d, Count %d", seed, round, len(got), maxRanges, a.Count())
		}
		for i, r := range got {
			if want := set.At(set.Count() - 1 - i); r != want {
				t.Fatalf("seed %d round %d: range %d is %v, want %v", seed, round, i, r, want)
			}
		}
		if full := min(set.Count(), maxRanges, wire.MaxAckRanges); len(got) < full && room-len(b) >= 10 {
			t.Fatalf("seed %d round %d: %d of %d ranges though there was room", seed, round, len(got), full)
		}
	}
}

func TestAckOfNothing(t *testing.T) {
	var a wire.Ack
	one := newAck(a, chunk.Range{Start: 3, End: 4}).received
	if b := a.Append(nil, new(chunk.Ranges), 9, 1000); b != nil {
		t.Errorf("of nothing: % x", b)
	}
	if b := a.Append(nil, &one, 0, 1000); b != nil {
		t.Errorf("without ranges: % x", b)
	}
}

// Numbers further apart than truncated ones can tell are left out, and refused.
func TestAckSpan(t *testing.T) {
	set := newAck(wire.Ack{}, chunk.Range{Start: 5, End: 6}, chunk.Range{Start: 1 << 31, End: 1<<31 + 10}).received
	a := parseAck(t, (&wire.Ack{}).Append(nil, &set, 9, 1000))
	if a.Count() != 1 {
		t.Errorf("%d ranges over more than 2^31", a.Count())
	}
	set.Add(20, 21)
	if a = parseAck(t, (&wire.Ack{}).Append(nil, &set, 9, 1000)); a.Count() != 2 {
		t.Errorf("%d ranges within 2^31", a.Count())
	}
}
