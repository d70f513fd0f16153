package main

import (
	"fmt"
	"io"
	"regexp"
	"testing"
)

// margin is how much worse than its goal a figure may be here: a test has few seeds, and the
// schedule of goroutines is not repeated exactly even in virtual time.
const margin = 1.1

// TestLossy holds pixferry to its goals on simulated links, in time and in bytes.
func TestLossy(t *testing.T) {
	for i := range scenarios {
		s := &scenarios[i]
		if s.want == 0 || testing.Short() && s.size > 20e6 {
			continue
		}
		t.Run(s.title(), func(t *testing.T) {
			const seed = 1
			o, err := bubbled((*scenario).ferry)(s, t, seed)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			reached := o.ratio <= s.want*margin && (s.change != nil || o.wire <= s.mostWire()*margin)
			what := fmt.Sprintf("seed %d: %.3f x the bound, want %.3f; %.3f bytes sent a byte, want %.3f", seed, o.ratio, s.want, o.wire, s.mostWire())
			if t.Log(what); !reached {
				t.Error("missed")
			}
		})
	}
}

// TestSmallImages holds it to theirs.
func TestSmallImages(t *testing.T) {
	check(t, func(o *options, r *report) error { return smallImages(o, r) })
}

// TestFairness holds it to its share of a link beside CUBIC, and to short queues.
func TestFairness(t *testing.T) {
	check(t, func(o *options, r *report) error { fairness(o, r); return nil })
}

// TestFleet sends with many engines on one clock and sees that nothing is lost.
func TestFleet(t *testing.T) {
	if _, err := modelFleet(300, 600); err != nil {
		t.Error(err)
	}
}

// check runs a part of the suite and looks at its rows.
func check(t *testing.T, part func(o *options, r *report) error) {
	r := &report{out: io.Discard}
	if err := part(&options{quick: true, only: regexp.MustCompile(""), t: t}, r); err != nil {
		t.Fatal(err)
	}
	for _, w := range r.Rows {
		off := w.Ratio / w.Want
		if !w.AtMost {
			off = 1 / off
		}
		what := fmt.Sprintf("%s: %.3g %s, %s", w.System, w.Median, w.Unit, w.verdict())
		t.Log(w.Case, what)
		if off > margin {
			t.Errorf("%s: %s", w.Case, what)
		}
	}
}
