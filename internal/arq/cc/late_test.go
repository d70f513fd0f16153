package cc

import (
	"testing"
	"time"
)

// Over a short path enough stays in flight for machines that are busy, however little was delivered of late: with four
// messages for each turn that a program gets, 10 ms apart, no more than that would ever be seen to be delivered.
func TestShortPathOfBusyMachines(t *testing.T) {
	r := newRate(message, Path{})
	r.rtt.sample(time.Second, 200*time.Microsecond)
	r.bw.sample(4 * message * 100)
	r.enter(cruise, 1)
	if got := r.Window() / message; got < startMessages {
		t.Errorf("%d messages in flight", got)
	}
	r.Lost(time.Second, 0)
	if got := r.Window() / message; got >= startMessages {
		t.Errorf("%d messages in flight after a loss", got)
	}
}
