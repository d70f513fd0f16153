package sim

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestClock holds it to the order of times, then of scheduling, and a timer to its last setting.
func TestClock(t *testing.T) {
	c, r := NewClock(), rand.New(rand.NewPCG(1, 2))
	began := c.Now()
	var got []int
	want := make([][]int, 50)
	for i := range 1000 {
		at := r.IntN(len(want))
		run := func() {
			if c.Now().Sub(began) != time.Duration(at) {
				t.Errorf("%d ran after %v, not %d ns", i, c.Now().Sub(began), at)
			}
			got = append(got, i)
		}
		switch timer := NewTimer(run); i % 3 {
		case 0:
			c.At(began.Add(time.Duration(at)), run)
		case 1:
			c.Set(timer, began.Add(time.Duration(r.IntN(len(want)))))
			c.Set(timer, began.Add(time.Duration(at)))
		default:
			c.Set(timer, began)
			timer.Stop()
			continue
		}
		want[at] = append(want[at], i)
	}
	for c.Step(began.Add(time.Hour)) {
	}
	if order := slices.Concat(want...); !slices.Equal(got, order) {
		t.Errorf("order %v, want %v", got, order)
	}
}
