package cc

import (
	"math"
	"time"
)

// rounds is how long the bandwidth filter remembers.
const rounds = 10

// maxFilter is the largest sample of the last rounds.
type maxFilter struct {
	slot [rounds]int64
	at   int
}

func (f *maxFilter) sample(v int64) { f.slot[f.at] = max(f.slot[f.at], v) }

// rotate begins a new round.
func (f *maxFilter) rotate() {
	f.at = (f.at + 1) % rounds
	f.slot[f.at] = 0
}

// halve believes half of what was seen.
func (f *maxFilter) halve() {
	for i := range f.slot {
		f.slot[i] /= 2
	}
}

func (f *maxFilter) max() (m int64) {
	for _, v := range f.slot {
		m = max(m, v)
	}
	return m
}

// minRTT is the smallest round trip of late, and the largest seen.
type minRTT struct {
	min, max time.Duration
	at       time.Duration // when min was last seen, or nearly
	fresh    time.Duration // smallest since the probe for it began; 0: none
	base     time.Duration // smallest in the round after this flow's own queue was drained
}

// drained notes the smallest round trip of a round in which this flow has no queue of its own.
func (m *minRTT) drained(least time.Duration) { m.base = least }

// shared reports whether there is a queue that is not this flow's: another fills the bottleneck.
func (m *minRTT) shared() bool { return m.base > m.min+max(m.min/4, slack) }

// own returns the round trip that this flow's part of the pipe is reckoned with: beside another's
// queue half of that is added, which leaves both a fair part of the bottleneck.
func (m *minRTT) own() time.Duration {
	if m.shared() {
		return (m.min + m.base) / 2
	}
	return m.min
}

// rttLife is how long a smallest round trip holds without being seen again.
const rttLife = 10 * time.Second

func (m *minRTT) sample(now, rtt time.Duration) {
	m.max = max(m.max, rtt)
	if m.fresh == 0 || rtt < m.fresh {
		m.fresh = rtt
	}
	if m.min == 0 || rtt <= m.min {
		m.min, m.at = rtt, now
	}
}

// stale reports whether the smallest round trip must be measured anew: it has not been seen
// for long, and what is seen is not within 5 % and one message's time of it.
func (m *minRTT) stale(now, rtt, packet time.Duration) bool {
	if rtt > 0 && rtt <= m.min+m.min/20+packet {
		m.at = now
	}
	if now-m.at < rttLife {
		return false
	}
	m.fresh = 0
	return true
}

// refresh ends a probe: the smallest round trip is that of the probe.
func (m *minRTT) refresh(now time.Duration) {
	if m.fresh > 0 {
		m.min = m.fresh
	}
	m.max, m.at = m.min, now
}

// slack is by how much round trips differ for reasons of the two computers: late timers, batches.
const slack = 500 * time.Microsecond

// queued reports whether a round trip shows the beginning of a queue.
func (m *minRTT) queued(rtt, packet time.Duration) bool {
	return rtt > m.min+max(m.min/8+4*packet, slack)
}

// filled reports whether a round trip shows a queue: a quarter over the smallest, and in the upper
// part of what has been seen.
func (m *minRTT) filled(rtt time.Duration) bool {
	return rtt > m.min+max(m.min/4, slack) && float64(rtt-m.min) > 0.6*float64(m.max-m.min)
}

// round is one round trip's worth of acknowledgements.
type round struct {
	end           int64 // it ends with a message sent when so much had been delivered
	began         time.Duration
	count         int     // rounds since the mode began
	gain          float64 // at which was sent what arrives in it
	lost, arrived int64
	most, least   time.Duration // longest and shortest round trip; 0: none
}

func (o *round) sample(rtt time.Duration) {
	o.most = max(o.most, rtt)
	if o.least == 0 || rtt > 0 && rtt < o.least {
		o.least = rtt
	}
}

func (o *round) ended(s *Sample) bool { return s.DeliveredAtSend >= o.end }

func (o *round) restart(s *Sample, gain float64) {
	*o = round{end: s.Delivered, began: s.Now, count: o.count + 1, gain: gain}
}

// lossMeter estimates the loss that has nothing to do with queues, nor with the rate.
type lossMeter struct {
	lost, sent float64
	from       int64 // messages before this number do not count
}

const (
	lossMessages = 100 // that are remembered at least,
	lossRounds   = 30  // and rounds
	lossMargin   = 0.02
	lossSigmas   = 2.5
	maxLoss      = 0.6
)

// p returns the probability of loss.
func (l *lossMeter) p() float64 {
	if l.sent < startMessages {
		return 0
	}
	return min(l.lost/l.sent, maxLoss)
}

// add counts a round that had no queue and was not sent too fast. A slower one that differs by more than chance explains
// weighs as much as all before it: that was of another path, or of a rate that was too high.
func (l *lossMeter) add(o *round) {
	n := float64(o.lost + o.arrived)
	if o.gain < 1 && l.sent > n && (l.over(o) || l.congested(o, lossMargin)) {
		l.lost, l.sent = l.lost*n/l.sent, n
	}
	l.lost = min(l.lost, maxLoss*l.sent) + float64(o.lost)
	l.sent += n
	if l.sent > max(lossMessages, lossRounds*n) {
		l.lost, l.sent = l.lost/2, l.sent/2
	}
}

// over reports whether p is too high: a round lost less than chance explains. A p that is too high keeps
// up a queue, and so would never be measured again.
func (l *lossMeter) over(o *round) bool {
	n, p := float64(o.lost+o.arrived), l.p()
	return float64(o.lost) < n*p-lossSigmas*math.Sqrt(n*p*(1-p))
}

// beyond reports whether a round lost more than any p explains.
func (l *lossMeter) beyond(o *round) bool {
	n := float64(o.lost + o.arrived)
	return float64(o.lost) > n*maxLoss+lossSigmas*math.Sqrt(n*maxLoss*(1-maxLoss))
}

// congested reports whether a round lost more than chance explains, by more than a margin. p comes of samples too.
func (l *lossMeter) congested(o *round, margin float64) bool {
	if o.lost == 0 {
		return false
	}
	lost, n, sent := float64(o.lost), float64(o.lost+o.arrived), max(l.sent, startMessages)
	pooled := (lost + l.p()*sent) / (n + sent)
	return lost/n > l.p()+max(margin, lossSigmas*math.Sqrt(pooled*(1-pooled)*(1/n+1/sent)))
}

// cut is the answer to congestion: less for a while, and then what was before.
type cut struct {
	limit float64 // bytes a second; 0: none
	until time.Duration
}

const cutFactor = 0.7

func (c *cut) begin(now, rtt time.Duration, limit float64) {
	c.limit, c.until = limit, now+min(time.Second, 30*rtt)
}

func (c *cut) active() bool                { return c.limit > 0 }
func (c *cut) over(now time.Duration) bool { return now >= c.until }
func (c *cut) end()                        { c.limit = 0 }

// apply returns a bandwidth within the limit.
func (c *cut) apply(bandwidth float64) float64 {
	if c.active() {
		return min(bandwidth, c.limit)
	}
	return bandwidth
}

// startup decides when start-up has found the bandwidth.
type startup struct {
	queued int     // acknowledgements in a row that show a queue
	best   float64 // bandwidth that was the last to be a quarter over the one before
	flat   int     // rounds since
}

func (u *startup) round(bandwidth float64, appLimited bool) {
	switch {
	case bandwidth > 1.25*u.best:
		u.best, u.flat = bandwidth, 0
	case !appLimited:
		u.flat++
	}
}

// full notes an acknowledgement and reports whether start-up is over: three in a row show a
// queue, or the bandwidth has stood still for three rounds.
func (u *startup) full(queue, sampled bool) bool {
	switch {
	case queue:
		u.queued++
	case sampled:
		u.queued = 0
	}
	return u.queued >= 3 || u.flat >= 3
}

// train measures the bandwidth in start-up, in which the rate of a whole round trip lags behind: over
// an eighth of one. It is never above the rate at which that was sent.
type train struct {
	at, sentAt time.Duration // of what began it
	bytes      int64         // acknowledged since
}

const (
	shortestTrain = time.Millisecond
	longestTrain  = 10 * time.Millisecond
)

// sample notes acknowledgements and returns a rate in bytes a second, 0 for none.
func (t *train) sample(s *Sample) (rate int64) {
	t.bytes += s.Acked
	took := max(s.Now-t.at, s.LargestSentAt-t.sentAt)
	if took < max(min(s.MinRTT/8, longestTrain), shortestTrain) {
		return 0
	}
	if t.at > 0 && s.LargestSentAt > t.sentAt {
		rate = int64(float64(t.bytes) / took.Seconds())
	}
	*t = train{at: s.Now, sentAt: max(s.LargestSentAt, t.sentAt)}
	return rate
}

// guess is a bandwidth that no whole round trip has shown yet.
type guess struct {
	rate   int64 // bytes a second; 0: none
	rounds int   // it holds for so many; 0: until start-up ends
}

const guessRounds = 3

// rotate begins a new round.
func (g *guess) rotate() {
	if g.rounds > 0 {
		if g.rounds--; g.rounds == 0 {
			g.rate = 0
		}
	}
}

// agrees reports whether a round trip is about that of the path.
func (p Path) agrees(rtt time.Duration) bool {
	return p.Rate > 0 && (rtt-p.RTT).Abs() <= p.RTT/4+slack
}
