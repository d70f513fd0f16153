package timers

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestTimers(t *testing.T) {
	var h Heap[*int]
	base := time.Unix(0, 0)
	r := rand.New(rand.NewPCG(1, 1))
	ts := make([]Timer[*int], 100)
	for i := range ts {
		ts[i].Owner = &i
	}
	want := make(map[*int]time.Time)
	for range 2000 {
		x := &ts[r.IntN(len(ts))]
		if r.IntN(3) == 0 {
			h.Set(x, time.Time{})
			delete(want, x.Owner)
			continue
		}
		due := base.Add(time.Duration(r.IntN(1000)+1) * time.Second)
		h.Set(x, due)
		want[x.Owner] = due
	}
	if len(h.list) != len(want) {
		t.Fatalf("%d timers are set; want %d", len(h.list), len(want))
	}
	var got []time.Time
	for now := base; len(want) > 0; now = now.Add(time.Second) {
		for o := h.Expired(now); o != nil; o = h.Expired(now) {
			if !want[o].Equal(now) {
				t.Fatalf("a timer for %v has expired at %v", want[o], now)
			}
			got = append(got, now)
			delete(want, o)
		}
	}
	if !slices.IsSortedFunc(got, time.Time.Compare) || !h.Next().IsZero() {
		t.Error("timers are left, or out of order")
	}
}
