package cc

import "time"

// hystart ends slow start when the round trip grows, before the queue overflows:
// HyStart++, RFC 9406. Messages are paced, so there is no limit L. There is one sample for a
// batch of acknowledgements, four or so a round, so fewer than N_RTT_SAMPLE = 8 suffice.
type hystart struct {
	end           int64         // the round ends when this number is acknowledged
	last, current time.Duration // smallest round trip of the last round and of this one
	samples       int
	css           int           // rounds in conservative slow start; 0: not in it
	baseline      time.Duration // the round trip at which css began
	done          bool
}

const (
	hystartSamples = 3
	hystartMin     = 4 * time.Millisecond
	hystartMax     = 16 * time.Millisecond
	cssDivisor     = 4
	cssRounds      = 5
)

// growth returns by how much the window grows for a sample.
func (h *hystart) growth(s *Sample) int64 {
	if s.Largest >= h.end {
		h.round(s)
	}
	if s.RTT > 0 {
		h.sample(s.RTT)
	}
	if h.css > 0 {
		return s.Acked / cssDivisor
	}
	return s.Acked
}

func (h *hystart) round(s *Sample) {
	h.end = s.Next
	h.last, h.current, h.samples = h.current, 0, 0
	if h.css > 0 {
		h.css++
		h.done = h.css > cssRounds
	}
}

func (h *hystart) sample(rtt time.Duration) {
	h.samples++
	if h.current == 0 || rtt < h.current {
		h.current = rtt
	}
	if h.samples < hystartSamples || h.last == 0 {
		return
	}
	switch threshold := min(max(h.last/8, hystartMin), hystartMax); {
	case h.css == 0 && h.current >= h.last+threshold:
		h.css, h.baseline = 1, h.current
	case h.css > 0 && h.current < h.baseline:
		h.css = 0 // the growth was a mistake
	}
}
