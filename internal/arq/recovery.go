package arq

import (
	"time"

	"github.com/pixferry/pixferry/internal/arq/cc"
	"github.com/pixferry/pixferry/internal/wire"
)

const (
	packetThreshold = 3 // RFC 9002, section 6.1.1
	maxThreshold    = 128
	timeThreshold   = 9 // eighths of a round trip, section 6.1.2
	maxTime         = 16
)

// recovery is loss detection, probing, congestion control and pacing: all that a link
// without promises needs (RFC 9002). On an ordered link there is no congestion control.
type recovery struct {
	ordered bool
	woken   bool          // the timer for wake has fired
	eighths int8          // of a round trip that a message may be late
	cc      cc.Controller // nil: none
	window  int64         // what cc said last
	rate    int64
	burst   int64
	pacer   pacer
	wake    time.Duration // when the pacer lets the next message go; 0: not waiting for it

	inFlight  int64         // bytes of outstanding messages
	path      int64         // number of the first message over the present path
	largest   int64         // newest message acknowledged, -1: none
	lowest    int64         // numbers below it are unknown to the newest ACK
	threshold int64         // messages that may overtake one before it counts as lost
	lossAt    time.Duration // when the next message counts as lost; 0: none
	lastSent  time.Duration // when a message that asks for an acknowledgement was last sent
	timeouts  int32         // in a row
	probes    int32         // messages to be sent whatever the window says

	loss     lossRate
	delivery delivery
	own      cc.Rate // unless the session has another
}

// delivery estimates the delivery rate (draft-cheng-iccrg-delivery-rate-estimation).
type delivery struct {
	bytes       int64 // acknowledged so far
	at          time.Duration
	firstSentAt time.Duration
	appLimited  int64 // the rate is a lower bound until so many bytes are acknowledged
}

func (r *recovery) begin(cfg *Config, message int) {
	*r = recovery{ordered: cfg.Ordered, largest: -1, threshold: packetThreshold, eighths: timeThreshold}
	if !cfg.Ordered {
		if r.cc = cfg.Controller; r.cc == nil {
			r.cc = &r.own
		}
		r.cc.Begin(message, cfg.Path)
		r.ask(message)
	}
}

// ask asks the controller again after it was told something.
func (r *recovery) ask(message int) {
	if r.cc == nil {
		return
	}
	r.window, r.rate = r.cc.Window(), min(r.cc.Rate(), 1<<33)
	if r.burst = r.cc.Burst(); r.burst == 0 {
		r.burst = burst(r.rate, int64(message))
	}
}

// idleBurst is how many messages may leave at once when nothing is in flight: a small image goes in one
// train, as RFC 9002, section 7.7, has it for the initial window.
const idleBurst = 10

// may reports whether a message that asks for an acknowledgement may leave now; full ones have size bytes.
func (r *recovery) may(now time.Duration, size int) bool {
	late := time.Duration(0)
	if r.wake > 0 {
		late = max(now-r.wake, 0)
	}
	r.wake = 0
	if r.cc == nil || r.probes > 0 {
		return true
	}
	if r.inFlight >= r.window {
		return false
	}
	if r.rate > 0 {
		burst := r.burst
		if r.inFlight == 0 {
			burst = max(burst, idleBurst*int64(size))
		}
		r.pacer.refill(now, r.rate, burst, late)
		if wait := r.pacer.wait(r.rate); wait > 0 {
			r.wake, r.woken = now+wait, false
			return false
		}
	}
	return true
}

// sent notes a message that asks for an acknowledgement.
func (r *recovery) sent(now time.Duration, number int64, m *sentMessage) {
	d := &r.delivery
	if r.inFlight == 0 {
		d.firstSentAt, d.at = now, now
	}
	m.delivered, m.deliveredAt, m.firstSentAt, m.appLimited = d.bytes, d.at, d.firstSentAt, d.appLimited > 0
	r.inFlight += int64(m.size)
	r.lastSent = now
	r.probes = max(r.probes-1, 0)
	if r.cc != nil {
		r.pacer.sent(int64(m.size))
		r.cc.Sent(number)
	}
}

// starved notes that there was nothing to send though something might have been.
func (r *recovery) starved() { r.delivery.appLimited = max(r.delivery.bytes+r.inFlight, 1) }

// acked notes an outstanding message that arrived.
func (r *recovery) acked(now time.Duration, m *sentMessage) {
	r.inFlight -= int64(m.size)
	r.delivery.bytes += int64(m.size)
	r.delivery.at = now
	r.loss.arrived()
}

// spurious notes that a message believed lost has arrived: its path reorders more than was thought.
func (r *recovery) spurious(e *Engine, number int64, m *sentMessage) {
	r.delivery.bytes += int64(m.size)
	if number < r.path {
		return
	}
	r.loss.lost--
	r.threshold = min(max(r.threshold, r.largest-number+1), maxThreshold)
	r.eighths = min(r.eighths+1, maxTime)
	if r.cc != nil && !m.probe {
		r.cc.Undo(number)
		r.ask(e.size.current)
	}
}

// settle ends a batch that acknowledged something.
func (r *recovery) settle(e *Engine, b *batch) {
	r.timeouts, r.probes = 0, 0
	r.largest = max(r.largest, b.largest)
	r.lowest = b.lowest
	r.detect(e, b)
	d := &r.delivery
	if b.acked > 0 && r.cc != nil {
		s := cc.Sample{Now: e.now, Acked: b.acked, Packets: b.packets,
			InFlight: r.inFlight, Prior: b.prior, Largest: b.largest, LargestSentAt: b.at, Next: e.sent.next,
			MinRTT: e.rtt.min, SRTT: e.rtt.smoothed, AppLimited: b.flight.appLimited,
			Delivered: d.bytes, DeliveredAtSend: b.flight.delivered}
		if b.newest {
			s.RTT = max(e.rtt.latest-b.delay, e.rtt.min)
		}
		took := max(b.at-b.flight.firstSentAt, e.now-b.flight.deliveredAt)
		if took > 0 && took >= e.rtt.min {
			s.Rate = int64(float64(d.bytes-b.flight.delivered) / took.Seconds())
		}
		r.cc.Acked(s)
		r.ask(e.size.current)
	}
	d.firstSentAt = max(d.firstSentAt, b.at)
	if d.bytes > d.appLimited {
		d.appLimited = 0
	}
}

// detect declares messages lost that newer ones have overtaken, RFC 9002 section 6.1.
func (r *recovery) detect(e *Engine, b *batch) {
	r.lossAt = 0
	delay := e.rtt.lossDelay(r.eighths)
	for n := e.sent.firstOutstanding(); n < r.largest; n++ {
		m := e.sent.at(n)
		if m.state != outstanding {
			continue
		}
		known := n >= r.lowest
		if m.at+delay <= e.now || known && (r.ordered || n <= r.largest-r.threshold) {
			r.lose(e, b, n, m)
			continue
		}
		if r.lossAt == 0 {
			r.lossAt = m.at + delay
		}
		if known {
			break // what was sent later is not lost either
		}
	}
	if b.lost {
		if b.least > 0 && (r.ordered || int(b.least) > e.size.base) {
			e.size.swallowed(e.now, int(b.least), wire.InitialMessage)
			e.resized()
		}
		r.ask(e.size.current)
	}
}

// lose notes that an outstanding message is believed lost.
func (r *recovery) lose(e *Engine, b *batch, number int64, m *sentMessage) {
	m.state = lost
	r.inFlight -= int64(m.size)
	e.stats.LostMessages++
	if m.probe {
		e.size.lost(e.now)
	} else {
		b.lost = true
		if m.size > wire.InitialMessage && (b.least == 0 || m.size < b.least) {
			b.least = m.size
		}
		r.loss.lose()
		if r.cc != nil {
			r.cc.Lost(e.now, number)
		}
	}
	if o := m.from; o != nil {
		e.credit.done(int64(m.length))
		o.lose(m.offset, m.offset+int64(m.length))
		e.schedule.add(o)
	}
	for _, c := range m.facts {
		e.controls.lose(c, number)
	}
}

// abandon gives up what was sent over a path that is no more, lest the next one waits for it.
func (r *recovery) abandon(e *Engine) {
	for n := e.sent.firstOutstanding(); n < e.sent.next; n++ {
		if m := e.sent.at(n); m.state == outstanding {
			r.lose(e, new(batch), n, m)
		}
	}
	r.path, r.timeouts, r.lossAt, r.loss = e.sent.next, 0, 0, lossRate{}
}

// deadline returns when a message counts as lost or the probe timer fires.
func (r *recovery) deadline(e *Engine) time.Duration {
	if r.lossAt > 0 {
		return r.lossAt
	}
	if r.probes > 0 || e.sent.firstOutstanding() == e.sent.next {
		return never
	}
	return r.lastSent + r.patience(e)
}

// patience returns how long after the last message the probe timer fires. A round trip that was measured while a
// queue stood still, or a link, does not make it as long as the idle time.
func (r *recovery) patience(e *Engine) time.Duration {
	pto := e.rtt.probeTimeout()
	return min(pto<<min(r.timeouts, 10), max(maxPTO, min(pto, e.cfg.Idle/3)))
}

// advance runs the timers. A probe timeout makes nothing count as lost, it only sends
// more (RFC 9002, section 6.2).
func (r *recovery) advance(e *Engine) {
	r.woken = r.wake <= e.now
	if r.lossAt > 0 && r.lossAt <= e.now {
		r.detect(e, &batch{})
	}
	if r.deadline(e) > e.now {
		return
	}
	r.timeouts++
	e.acks.now = e.acks.now || e.acks.largest >= 0 // ours may have been lost too
	r.probes = 2
	if r.ordered {
		r.probes = 1
	}
	if !r.ordered || r.timeouts < blackHole { // then a PING alone, as they may be too large
		r.resend(e)
	}
	before := e.size.current
	if e.size.timeout(e.now, int(r.timeouts)); e.size.current != before {
		e.resized()
	}
}

// resend queues the control frames of all messages that are on their way.
func (r *recovery) resend(e *Engine) {
	for n := e.sent.firstOutstanding(); n < e.sent.next; n++ {
		if m := e.sent.at(n); m.state == outstanding {
			for _, c := range m.facts {
				e.controls.resend(c)
			}
		}
	}
}
