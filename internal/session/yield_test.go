package session

import (
	"slices"
	"testing"
	"time"
)

func TestYielderLeavesOutLongYields(t *testing.T) {
	var y yielder
	// gaps returns how many yields are left out after each of n, which take so long.
	gaps := func(n int, took time.Duration) (gaps []int) {
		for range n {
			y.took(took)
			left := 0
			for ; !y.due(); left++ {
			}
			gaps = append(gaps, left)
		}
		return gaps
	}
	if got := gaps(7, longYield); !slices.Equal(got, []int{0, 1, 3, 7, 15, 15, 15}) {
		t.Errorf("after long yields %v are left out", got)
	}
	if got := gaps(3, longYield-1); !slices.Equal(got, []int{0, 0, 0}) {
		t.Errorf("after short yields %v are left out", got)
	}
	if got := gaps(2, longYield); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("after the next long yields %v are left out", got)
	}
}
