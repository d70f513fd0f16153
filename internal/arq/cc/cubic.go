package cc

import (
	"math"
	"time"
)

const (
	cubicC    = 0.4 // RFC 9438, section 5
	cubicBeta = 0.7 // section 4.6

	initialMessages = 10 // RFC 9002, section 7.2
	minimumMessages = 2
)

// Cubic is CUBIC, RFC 9438, with the recovery periods of RFC 9002, the slow-start
// exit of RFC 9406 (HyStart++), and pacing at a little over window / RTT.
type Cubic struct {
	message int64 // size of full messages
	window  int64 // bytes
	loss    cubicState
	start   hystart
	srtt    time.Duration

	recovery int64 // messages before this number belong to the last reduction
	next     int64 // number of the next message

	// To take the last reduction back if all its losses were only late.
	before cubicBefore
	losses int
}

// cubicState is the curve in congestion avoidance.
type cubicState struct {
	threshold int64         // ssthresh, bytes
	top       float64       // W_max, bytes
	k         float64       // seconds until the curve is at top again
	epoch     time.Duration // when congestion avoidance began; 0: not since the last loss
	reno      float64       // W_est, bytes
}

type cubicBefore struct {
	window int64
	loss   cubicState
}

// Begin implements [Controller]. It begins in slow start, whatever is known of the path.
func (c *Cubic) Begin(message int, _ Path) {
	*c = Cubic{message: int64(message)}
	c.window = initialMessages * c.message
	c.loss.threshold = math.MaxInt64
}

// Sent implements [Controller].
func (c *Cubic) Sent(number int64) { c.next = number + 1 }

// Resize implements [Controller].
func (c *Cubic) Resize(size int) {
	c.message = int64(size)
	c.window = max(c.window, minimumMessages*c.message)
}

// Window implements [Controller].
func (c *Cubic) Window() int64 { return c.window }

// Rate implements [Controller]: twice the window a round trip in slow start, so that
// it may double, and 1.25 of it later (RFC 9002, section 7.7).
func (c *Cubic) Rate() int64 {
	if c.srtt == 0 {
		return 0
	}
	gain := 1.25
	if c.slowStart() {
		gain = 2
	}
	return int64(gain * float64(c.window) / c.srtt.Seconds())
}

// Burst implements [Controller].
func (c *Cubic) Burst() int64 { return 0 }

// Path implements [Controller]: CUBIC knows a window, no bandwidth.
func (c *Cubic) Path() Path { return Path{} }

func (c *Cubic) slowStart() bool { return c.window < c.loss.threshold }

// Lost implements [Controller]. One reduction answers for all that was sent before it.
func (c *Cubic) Lost(_ time.Duration, number int64) {
	if number < c.recovery {
		c.losses++
		return
	}
	c.before = cubicBefore{c.window, c.loss}
	c.losses = 1
	c.recovery = c.next
	w := float64(c.window)
	if w < c.loss.top { // fast convergence, section 4.7
		c.loss.top = w * (1 + cubicBeta) / 2
	} else {
		c.loss.top = w
	}
	c.window = max(int64(w*cubicBeta), minimumMessages*c.message)
	c.loss.threshold = c.window
	c.loss.epoch = 0
}

// Undo implements [Controller]: it takes the last reduction back once none of the
// losses that caused it was real (RFC 9438, section 4.9).
func (c *Cubic) Undo(number int64) {
	if number >= c.recovery || c.losses == 0 {
		return
	}
	if c.losses--; c.losses == 0 {
		c.window = max(c.window, c.before.window)
		c.loss = c.before.loss
		c.recovery = 0
	}
}

// Acked implements [Controller].
func (c *Cubic) Acked(s Sample) {
	c.srtt = s.SRTT
	if s.Largest < c.recovery || s.Acked == 0 {
		return
	}
	if 2*s.Prior < c.window || s.AppLimited && s.Prior < c.window-4*c.message {
		c.loss.epoch = 0 // the window was not what limited: it proves nothing
		return
	}
	if c.slowStart() {
		c.window += c.start.growth(&s)
		if c.start.done {
			c.loss.threshold = c.window
		}
		return
	}
	c.avoid(&s)
}

// avoid grows the window along the curve, RFC 9438 sections 4.2 to 4.5.
func (c *Cubic) avoid(s *Sample) {
	m, w := float64(c.message), float64(c.window)
	l := &c.loss
	if l.epoch == 0 {
		l.epoch = s.Now
		l.reno = w
		l.top = math.Max(l.top, w)
		l.k = math.Cbrt((l.top - w) / m / cubicC)
	}
	t := (s.Now - l.epoch + s.SRTT).Seconds()
	d := t - l.k
	target := l.top + m*cubicC*d*d*d
	target = math.Min(math.Max(target, w), 1.5*w)

	alpha := 3 * (1 - cubicBeta) / (1 + cubicBeta)
	if l.reno >= l.top {
		alpha = 1
	}
	l.reno += alpha * m * float64(s.Acked) / w
	grown := w + (target-w)*float64(s.Acked)/w
	c.window = int64(math.Max(grown, l.reno))
}
