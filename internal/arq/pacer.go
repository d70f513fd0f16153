package arq

import "time"

// pacer is a token bucket that spreads messages at a rate. The bucket is refilled
// from the time that has really passed, so a late timer loses nothing up to a burst.
type pacer struct {
	tokens int64 // bytes; negative after a message larger than what was left
	at     time.Duration
}

// burst returns how many bytes may leave at once: 2 ms of the rate, as Go's timers are
// late by 1 ms and more, between 10 and 256 messages.
func burst(rate, message int64) int64 {
	return min(max(rate/500, 10*message), 256*message)
}

// refill adds what has come together since the last call.
func (p *pacer) refill(now time.Duration, rate, burst int64) {
	elapsed := now - p.at
	p.at = now
	// A second fills any bucket; cutting here keeps the product small.
	p.tokens = min(p.tokens+int64(min(elapsed, time.Second))*rate/int64(time.Second), burst)
}

// wait returns how long until a message may leave, 0 for now.
func (p *pacer) wait(rate int64) time.Duration {
	if p.tokens > 0 || rate <= 0 {
		return 0
	}
	return time.Duration((1-p.tokens)*int64(time.Second)/rate) + 1
}

func (p *pacer) sent(size int64) { p.tokens -= size }
