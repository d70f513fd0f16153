package udpx

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestTimers(t *testing.T) {
	var h timers
	base := time.Unix(0, 0)
	r := rand.New(rand.NewPCG(1, 1))
	cs := make([]*carrier, 100)
	for i := range cs {
		cs[i] = &carrier{timer: -1}
	}
	want := make(map[*carrier]time.Time)
	for range 2000 {
		c := cs[r.IntN(len(cs))]
		if r.IntN(3) == 0 {
			h.set(c, time.Time{})
			delete(want, c)
			continue
		}
		due := base.Add(time.Duration(r.IntN(1000)+1) * time.Second)
		h.set(c, due)
		want[c] = due
	}
	if h.list.Len() != len(want) {
		t.Fatalf("%d timers are set; want %d", h.list.Len(), len(want))
	}
	var got []time.Time
	for now := base; len(want) > 0; now = now.Add(time.Second) {
		for c := h.expired(now); c != nil; c = h.expired(now) {
			if !want[c].Equal(now) {
				t.Fatalf("a timer for %v has expired at %v", want[c], now)
			}
			got = append(got, now)
			delete(want, c)
		}
	}
	if !slices.IsSortedFunc(got, time.Time.Compare) || !h.next().IsZero() {
		t.Error("timers are left, or out of order")
	}
}
