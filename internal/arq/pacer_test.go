package arq

import (
	"testing"
	"time"
)

// A pacer that is asked more often than a byte takes still lets bytes come
// together, and no more than the rate gives.
func TestPacerKeepsTheRateHoweverOftenItIsAsked(t *testing.T) {
	const rate, message = 24_400_000, 1000
	for _, step := range []time.Duration{1, 2, 39, time.Microsecond, time.Millisecond} {
		var p pacer
		sent, end := int64(0), 100*time.Millisecond
		if step < time.Microsecond {
			end = time.Millisecond
		}
		for now := time.Duration(0); now <= end; now += step {
			p.refill(now, rate, burst(rate, message), 0)
			for p.wait(rate) == 0 {
				p.sent(message)
				sent += message
			}
		}
		want := int64(end) * rate / int64(time.Second)
		if sent < want*9/10-message || sent > want*11/10+burst(rate, message) {
			t.Errorf("asked each %v: %d bytes in %v, want about %d", step, sent, end, want)
		}
	}
}

// What follows what is in flight is paced, however long the rest before it.
func TestSmallImageLeavesAnIdleSessionInOneTrain(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, nil)
	_, end := x.flight(20_000)
	x.wait(50 * time.Millisecond)
	x.acks(0, int64(end))
	x.wait(time.Second)
	x.send(pattern(10_000), nil)
	first, end := x.poll()
	if n := end - first; n < 9 {
		t.Errorf("%d messages at once for 10,000 bytes", n)
	}
	x.wait(10 * time.Millisecond)
	x.send(pattern(10_000), nil)
	if first, end = x.poll(); end-first > 3 {
		t.Errorf("%d messages at once while others are in flight", end-first)
	}
}
