package main

import (
	"time"

	"github.com/pixferry/pixferry/internal/arq/cc"
)

// reno is the congestion control of RFC 9002, section 7, as quic-go has it: slow start, one
// message more a round trip, half after a loss. What it does not define is CUBIC's.
type reno struct {
	cc.Cubic
	message, window, threshold int64
	counted                    int64 // bytes acknowledged towards the next message
	recovery, next             int64 // messages before recovery belong to the last reduction
	srtt                       time.Duration
}

func newReno() cc.Controller { return new(reno) }

func newCubic() cc.Controller { return new(cc.Cubic) }

// Begin implements cc.Controller.
func (r *reno) Begin(message int, known cc.Path) {
	*r = reno{message: int64(message), window: 10 * int64(message), threshold: 1 << 62}
	r.Cubic.Begin(message, known)
}

// Sent implements cc.Controller.
func (r *reno) Sent(number int64) { r.next = number + 1 }

// Lost implements cc.Controller.
func (r *reno) Lost(_ time.Duration, number int64) {
	if number >= r.recovery {
		r.window = max(r.window/2, 2*r.message)
		r.threshold, r.recovery = r.window, r.next
	}
}

// Acked implements cc.Controller.
func (r *reno) Acked(s cc.Sample) {
	r.srtt = s.SRTT
	switch {
	case s.Largest < r.recovery || s.AppLimited:
	case r.window < r.threshold:
		r.window += s.Acked
	default:
		for r.counted += s.Acked; r.counted >= r.window; {
			r.counted -= r.window
			r.window += r.message
		}
	}
}

// Undo implements cc.Controller: a reduction stays.
func (r *reno) Undo(int64) {}

// Resize implements cc.Controller.
func (r *reno) Resize(size int) { r.message = int64(size) }

// Window implements cc.Controller.
func (r *reno) Window() int64 { return r.window }

// Rate implements cc.Controller.
func (r *reno) Rate() int64 {
	if r.srtt == 0 {
		return 0
	}
	gain := 1.25
	if r.window < r.threshold {
		gain = 2
	}
	return int64(gain * float64(r.window) / r.srtt.Seconds())
}
