package cc

import "time"

// Rate paces at what the path has been seen to deliver, and takes loss for congestion only when a
// queue comes with it. It follows BBR (draft-ietf-ccwg-bbr) in its model of the path, a
// bandwidth and a smallest round trip, but not in its constants: those take 2 % of random
// loss for congestion.
//
//   - The rate is the largest delivery rate of the last 10 rounds over 1 - p, p being the loss of rounds
//     that were slower and left no queue. What is lost on the way costs the bottleneck nothing, or has been
//     through it already; without the correction the filter would follow the loss down. From faster rounds p
//     would grow without end behind a policer, which loses whatever is over its rate.
//   - Start-up paces at a multiple of what trains of messages were just delivered at, with up to four times
//     in flight of what the last round brought, until the round trip shows a queue, and then drains it. What a
//     train says, and what is remembered of the path, holds for three rounds, which then show what is true.
//   - Then one round in eight is sent a quarter faster, to find more, and the next slower.
//   - Congestion is loss beyond p's noise while the round trip shows a filled queue: then 0.7 of the rate
//     for a second, or 30 round trips, and what was before. That is forgotten round by round while the queue
//     overflows even so: it came of a burst that a token bucket has let through at the speed of the wire.
//   - Loss beyond p's noise in three rounds in a row is of the rate if a slower round does not have it, as
//     behind a policer. Then what arrived of late is the limit for as long as after congestion.
//   - Over a round trip under a millisecond the pace is twice that, and the window the limit, while nothing is
//     lost: timers are too coarse there, and what bounds the rate is most often this machine, which would rest
//     whenever it is ahead of what it once measured.
//   - A queue that stays when this flow's own part is drained is another's. Then probes go on in spite of it,
//     and the window reckons with half of it: with the smallest round trip alone the other would get all.
type Rate struct {
	message int64
	mode    mode
	excess  int8    // rounds in a row that have lost more than chance explains
	lossy   bool    // a message was lost less than a second ago
	gain    float64 // of the pacing rate over the bandwidth
	window  int64   // in start-up
	next    int64   // number of the next message
	known   Path    // remembered from before, until a round trip was measured
	before  float64 // bandwidth when the probe began

	rtt   minRTT
	bw    maxFilter
	loss  lossMeter
	round round
	cut   cut
	lost  time.Duration // when the last message was
	start startup
	train train
	guess guess
}

type mode uint8

const (
	startUp mode = iota
	drain
	cruise
	probeUp
	probeDown
	probeRTT
)

const (
	startMessages = 32                     // in flight before anything is known
	startGain     = 2.77                   // 4 ln 2: doubles the delivery rate each round (draft-ietf-ccwg-bbr, section 2.4)
	startGrowth   = 3                      // messages more in flight for each that arrives: four times as many each round,
	longRTT       = 400 * time.Millisecond // and seven times over so long a round trip,
	startWindow   = 2.0                    // but at most so many bandwidth-delay products
	drainGain     = 0.5
	upGain        = 1.25
	downGain      = 0.75
	cruiseWindow  = 1.4
	upWindow      = 1.75
	cycle         = 8 // rounds from one probe to the next
	leastMessages = 4
	policeRounds  = 3
	policeMargin  = 0.05
	lateness      = 3 * time.Millisecond
	shortRTT      = time.Millisecond
	shortGain     = 2.0
)

// Begin implements [Controller]. If something is known of the path it begins with half of that rate, and takes to all of
// it once a round trip of about that length has shown that it is the same path.
func (r *Rate) Begin(message int, known Path) {
	*r = Rate{message: int64(message), gain: startGain, known: known}
	r.window = startMessages * r.message
	r.round.end = -1
}

// Sent implements [Controller].
func (r *Rate) Sent(number int64) { r.next = number + 1 }

// Resize implements [Controller].
func (r *Rate) Resize(size int) { r.message = int64(size) }

// Lost implements [Controller].
func (r *Rate) Lost(now time.Duration, number int64) {
	r.lost, r.lossy = now, true
	if number >= r.loss.from {
		r.round.lost++
	}
}

// Undo implements [Controller].
func (r *Rate) Undo(number int64) {
	if number >= r.loss.from && r.round.lost > 0 {
		r.round.lost--
		r.round.arrived++
	}
}

// bandwidth returns the rate in bytes a second at which the bottleneck is just filled.
func (r *Rate) bandwidth() float64 {
	return r.cut.apply(float64(max(r.bw.max(), r.guess.rate)) / (1 - r.loss.p()))
}

// bdp returns the bandwidth-delay product in bytes.
func (r *Rate) bdp() float64 { return r.bandwidth() * r.rtt.own().Seconds() }

// packetTime returns how long the bottleneck takes for a full message.
func (r *Rate) packetTime() time.Duration {
	bandwidth := max(r.bw.max(), r.guess.rate)
	if bandwidth == 0 {
		return 0
	}
	return time.Duration(float64(r.message) / float64(bandwidth) * float64(time.Second))
}

// Path implements [Controller].
func (r *Rate) Path() Path {
	if r.mode == startUp {
		return Path{}
	}
	return Path{Rate: int64(r.bandwidth()), RTT: r.rtt.min}
}

// Rate implements [Controller].
func (r *Rate) Rate() int64 {
	if r.rtt.min == 0 {
		if r.known.Rate > 0 {
			return r.known.Rate / 2
		}
		return r.startRate()
	}
	rate := r.gain * r.bandwidth()
	if r.gain < 1 {
		rate *= 1 - r.loss.p()/2 // where p is wrong, less has to be lost
	}
	if r.gain >= 1 && r.rtt.min < shortRTT && !r.lossy {
		rate *= shortGain
	}
	if r.mode == startUp {
		rate = max(rate, startGain*float64(startMessages*r.message)/r.rtt.min.Seconds())
		if r.window < 2*startMessages*r.message {
			rate = max(rate, float64(r.startRate()))
		}
	}
	return int64(max(rate, float64(r.message)/r.rtt.min.Seconds()))
}

func (r *Rate) startRate() int64 { return startMessages * r.message * 50 }

// Window implements [Controller].
func (r *Rate) Window() int64 {
	factor := cruiseWindow
	switch r.mode {
	case startUp:
		return max(r.window, startMessages*r.message)
	case probeUp:
		factor = upWindow
	case probeRTT:
		factor = 0.5
	}
	// More for timers and acknowledgements that are late. With less than what those are late by, which is
	// over a millisecond at each end, a short path would deliver less and less.
	window := factor*r.bdp() + r.bandwidth()*lateness.Seconds()
	least := int64(leastMessages) // on a busy machine they are late by ten times as much, and that alone would be what is seen to be delivered
	if r.rtt.min > 0 && r.rtt.min < shortRTT && !r.lossy {
		least = startMessages
	}
	return max(int64(window), least*r.message)
}

// Burst implements [Controller]: 1 ms of the rate, but at most 64 messages, or on a very fast path what it
// takes in an eighth of a millisecond, at most 256: a shorter rest than that no timer gives.
func (r *Rate) Burst() int64 {
	if r.rtt.min == 0 {
		return 10 * r.message
	}
	rate := r.Rate()
	burst := min(rate/1000, max(64*r.message, rate/8000), 256*r.message)
	return max(burst, 2*r.message)
}

// Acked implements [Controller].
func (r *Rate) Acked(s Sample) {
	if s.RTT > 0 {
		r.rtt.sample(s.Now, s.RTT)
		r.recall(s.RTT)
	}
	r.lossy = r.lossy && s.Now-r.lost < time.Second
	if s.Largest >= r.loss.from {
		r.round.arrived += s.Packets
	}
	r.round.sample(s.RTT)
	if s.Rate > 0 && (!s.AppLimited || s.Rate > r.bw.max()) {
		r.bw.sample(s.Rate)
	}
	if r.mode == startUp {
		r.guess.rate = max(r.guess.rate, r.train.sample(&s))
		r.grow(s.Acked)
	}
	if r.round.ended(&s) {
		r.endRound(&s)
	}
	r.step(&s)
}

// recall takes to what is known of the path if the first round trip agrees with it.
func (r *Rate) recall(rtt time.Duration) {
	if r.known.agrees(rtt) {
		r.guess.rate = r.known.Rate
		r.leave(cruise, 1)
		r.round.count = cycle - 4 // look soon whether there is more
	}
	r.known = Path{}
}

// grow opens start-up's window.
func (r *Rate) grow(acked int64) {
	if r.guess.rate > 0 && float64(r.window) >= startWindow*r.bdp() {
		return
	}
	if r.rtt.min > longRTT {
		acked *= 2
	}
	r.window += startGrowth * acked
}

// leave ends start-up.
func (r *Rate) leave(m mode, gain float64) {
	r.guess.rounds = guessRounds
	r.enter(m, gain)
}

// endRound judges the round that has just passed.
func (r *Rate) endRound(s *Sample) {
	o := &r.round
	if r.mode == cruise && o.count == 1 {
		r.rtt.drained(o.least)
	}
	overflows := r.loss.congested(o, lossMargin) && r.rtt.filled(o.most)
	if overflows && r.mode > drain && !r.cut.active() {
		r.cut.begin(s.Now, r.rtt.min, cutFactor*r.bandwidth())
		r.guess = guess{}
		r.forget()
	} else if o.most > 0 && s.Now-o.began < 4*s.SRTT+maxClump && (r.quiet() || r.loss.over(o)) {
		r.loss.add(o)
	}
	slower := r.suspect(s)
	// What was before the cut is to be restored, or before the sender had too little; but not if as much is lost even so.
	if !s.AppLimited && (!r.cut.active() || r.excess > 0) || overflows || r.loss.beyond(o) {
		r.bw.rotate()
		r.guess.rotate()
	}
	if r.loss.beyond(o) && r.rtt.min < shortRTT { // where what was right is soon found again
		r.bw.halve() // and not all of it: a round is lost in a moment's pause too
	}
	r.start.round(r.bandwidth(), s.AppLimited)
	o.restart(s, r.gain)
	if slower {
		r.enter(probeDown, downGain)
	}
}

// quiet reports whether what the round lost has nothing to do with a queue, nor with a rate that is too high.
func (r *Rate) quiet() bool {
	o, longest := &r.round, r.round.least
	if o.gain >= 1 {
		if r.mode > startUp && r.loss.sent >= startMessages {
			return false
		}
		longest = o.most
	}
	return !r.rtt.queued(longest, r.packetTime()) && !r.loss.beyond(o)
}

// suspect looks for a policer, and reports whether the next round is to be slower to find out. What is lost beyond chance in
// some rounds in a row was lost for the rate if it is not in a slower one: then what arrived of late is the limit for a while.
func (r *Rate) suspect(s *Sample) (slower bool) {
	o := &r.round
	congested := r.loss.congested(o, policeMargin)
	switch {
	case r.mode <= drain || o.gain > 1:
	case o.gain < 1:
		over := r.loss.over(o)
		if !over && r.excess >= policeRounds && !congested {
			r.cut.begin(s.Now, r.rtt.min, r.bandwidth())
		}
		r.excess = 0
		return over
	case !congested, r.loss.beyond(o):
		r.excess = 0
	default:
		r.excess++
		return r.excess == policeRounds
	}
	return false
}

// forget leaves out what was sent so far when loss is counted.
func (r *Rate) forget() {
	r.loss.from = r.next
	r.round.lost, r.round.arrived = 0, 0
}

// maxClump is how late acknowledgements may be for a round to be one round's worth.
const maxClump = 100 * time.Millisecond

// step changes the mode.
func (r *Rate) step(s *Sample) {
	switch r.mode {
	case startUp:
		if r.start.full(r.rtt.queued(s.RTT, r.packetTime()), s.RTT > 0) {
			r.leave(drain, drainGain)
		}
	case drain, probeDown:
		if float64(s.InFlight) <= r.bdp() && (r.round.count >= 1 || !r.lossy) || r.round.count >= 2 {
			if r.mode == drain {
				r.forget() // what start-up overflowed proves nothing
			}
			r.enter(cruise, 1)
		}
	case cruise:
		switch {
		case r.rtt.stale(s.Now, s.RTT, r.packetTime()):
			r.enter(probeRTT, 1)
		case r.cut.over(s.Now) && (r.round.count >= cycle-2 || r.round.count == 1 && r.more() && !r.rtt.shared()):
			r.probe(s)
		}
	case probeUp:
		switch {
		case r.rtt.filled(s.RTT) && !r.rtt.shared():
			r.enter(probeDown, downGain)
		case r.round.count >= 1 && r.more():
			r.probe(s)
		case r.round.count >= 1:
			r.enter(probeDown, downGain)
		}
	case probeRTT:
		if r.round.count >= 2 {
			r.rtt.refresh(s.Now)
			r.enter(cruise, 1)
		}
	}
}

// more reports whether the last probe has found more bandwidth.
func (r *Rate) more() bool { return r.before > 0 && r.bandwidth() > 1.15*r.before }

// probe looks for more bandwidth, or, if there is a queue already, lets that drain.
func (r *Rate) probe(s *Sample) {
	r.cut.end()
	if r.rtt.filled(s.RTT) && !r.rtt.shared() {
		r.enter(probeDown, downGain)
		return
	}
	r.before = r.bandwidth()
	r.enter(probeUp, upGain)
}

func (r *Rate) enter(m mode, gain float64) {
	r.mode, r.gain = m, gain
	r.round.count = 0
}
