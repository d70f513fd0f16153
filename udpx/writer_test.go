package udpx

import (
	"testing"
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

// TestHelpWakesTheWriter sets a timer from the reader while the writer sleeps longer.
func TestHelpWakesTheWriter(t *testing.T) {
	due := time.Now().Add(time.Hour)
	for name, alarm := range map[string]time.Time{"for ever": {}, "longer": due.Add(1), "no longer": due} {
		s := &socket{refs: 1, wake: make(chan struct{}, 1), asleep: true, alarm: alarm}
		s.timers.set(&carrier{timer: -1}, due)
		newWriter(s).help()
		if got, want := len(s.wake) == 1, name != "no longer"; got != want {
			t.Errorf("the writer sleeps %s: woken is %v; want %v", name, got, want)
		}
	}
}
