package arq

import "time"

// pacer is a token bucket that spreads messages at a rate, refilled from the time that has
// really passed.
type pacer struct {
	tokens int64 // bytes; negative after a message larger than what was left
	most   int64 // that can come together
	empty  bool  // until more than one has come
	at     time.Duration
}

// burst returns how many bytes may leave at once: 2 ms of the rate, as Go's timers are
// late by 1 ms and more, between 10 and 256 messages.
func burst(rate, message int64) int64 {
	return min(max(rate/500, 10*message), 256*message)
}

// maxLate is how much lateness of a timer is made up for.
const maxLate = 10 * time.Millisecond

// refill adds what has come together since the last call. A timer that was late has let so
// much more come together: without it, the rate would depend on the timer.
func (p *pacer) refill(now time.Duration, rate, burst int64, late time.Duration) {
	// A second fills any bucket; cutting here keeps the products small.
	elapsed := min(now-p.at, time.Second)
	gained := int64(elapsed) * rate / int64(time.Second)
	p.at, p.most = now, burst
	if rate > 0 { // time too short for a byte counts the next time, however often this is called
		p.at -= elapsed - time.Duration(gained*int64(time.Second)/rate)
	}
	burst += int64(min(late, maxLate)) * rate / int64(time.Second)
	p.tokens = min(p.tokens+gained, max(burst, p.tokens))
}

// together is what has to come together after the last token was spent, in bytes: a quarter of a
// millisecond of the rate, so that a fast link is not fed one message at a time.
func together(rate int64) int64 { return min(max(rate/4000, 1), 64<<10) }

// wait returns how long until a message may leave, 0 for now.
func (p *pacer) wait(rate int64) time.Duration {
	least := int64(1)
	if p.empty {
		least = min(together(rate), p.most)
	}
	if p.tokens >= least || rate <= 0 {
		p.empty = false
		return 0
	}
	return time.Duration((least-p.tokens)*int64(time.Second)/rate) + 1
}

func (p *pacer) sent(size int64) {
	p.tokens -= size
	p.empty = p.tokens <= 0
}
