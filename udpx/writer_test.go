package udpx

import (
	"cmp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/internal/udpsock"
)

func TestJoins(t *testing.T) {
	for _, c := range []struct {
		size, segment, n int
		want             bool
	}{
		{1000, 1000, 1000, true},
		{1000, 1000, 1, true},
		{1000, 1000, 1001, false},  // longer than the first
		{1001, 1000, 1, false},     // after one that was shorter
		{63000, 1000, 1000, true},  // the 64th
		{64000, 1000, 1000, false}, // the 65th
		{44 * 1472, 1472, 739, true},
		{44 * 1472, 1472, 740, false}, // over the largest datagram
	} {
		p := udpsock.Packet{Data: make([]byte, c.size), Segment: c.segment}
		if got := joins(&p, c.n); got != c.want {
			t.Errorf("%d bytes join a train of %d in segments of %d: %v; want %v", c.n, c.size, c.segment, got, c.want)
		}
	}
}

// TestHelpHastensTheWriter sets a timer from the reader while the writer sleeps longer.
func TestHelpHastensTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, alarm := range map[string]time.Duration{"for ever": 0, "longer": 2 * time.Hour, "no longer": time.Minute} {
			s, begin := &socket{refs: 1}, time.Now()
			w := newWriter(s)
			if alarm > 0 {
				s.timers.set(&carrier{timer: -1}, begin.Add(alarm))
			}
			w.sleep()
			s.timers.set(&carrier{timer: -1}, begin.Add(time.Hour))
			w.help()
			<-w.timer.C
			if got, want := time.Since(begin), min(time.Hour, cmp.Or(alarm, time.Hour)); got != want {
				t.Errorf("the writer sleeps %s: it wakes after %v; want %v", name, got, want)
			}
		}
	})
}
