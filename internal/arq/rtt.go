package arq

import "time"

const (
	initialRTT  = 333 * time.Millisecond // RFC 9002, section 6.2.2
	granularity = time.Millisecond       // kGranularity
	maxAckDelay = 25 * time.Millisecond  // how long an acknowledgement may wait
	maxPTO      = 2 * time.Second        // the probe timer's cap, with back-off
)

// rtt estimates the round trip, RFC 9002 section 5.
type rtt struct {
	latest, smoothed, variance, min time.Duration
}

// known reports whether there is a sample.
func (r *rtt) known() bool { return r.smoothed != 0 }

// sample notes that a message was acknowledged so long after it was sent, of which
// the peer says it has held the acknowledgement back for delay.
func (r *rtt) sample(took, delay time.Duration) {
	took = max(took, 1)
	r.latest = took
	if !r.known() {
		r.min, r.smoothed, r.variance = took, took, took/2
		return
	}
	r.min = min(r.min, took)
	delay = min(delay, maxAckDelay)
	if took-delay >= r.min {
		took -= delay
	}
	r.variance += ((r.smoothed - took).Abs() - r.variance) / 4
	r.smoothed += (took - r.smoothed) / 8
}

// estimate returns the smoothed round trip, or the initial one.
func (r *rtt) estimate() time.Duration {
	if !r.known() {
		return initialRTT
	}
	return r.smoothed
}

// probeTimeout returns the PTO period without back-off, RFC 9002 section 6.2.1.
func (r *rtt) probeTimeout() time.Duration {
	if !r.known() {
		return 3 * initialRTT // smoothed + 4 * smoothed/2
	}
	return r.smoothed + max(4*r.variance, granularity) + maxAckDelay
}

// lossDelay returns how long after a newer message's acknowledgement an older one
// counts as lost, RFC 9002 section 6.1.2. factor is in eighths: 9, or more on a path
// that has been seen to reorder.
func (r *rtt) lossDelay(eighths int8) time.Duration {
	return max(time.Duration(eighths)*max(r.estimate(), r.latest)/8, granularity)
}
