package cc

import (
	"testing"
	"time"
)

const message = 1200

func newRate(message int, known Path) *Rate {
	r := new(Rate)
	r.Begin(message, known)
	return r
}

func newCubic() *Cubic {
	c := new(Cubic)
	c.Begin(message, Path{})
	return c
}

// fly has a controller send n full messages and acknowledges them after a round trip.
type flight struct {
	c         Controller
	now       time.Duration
	next      int64
	delivered int64
	starved   bool // by a sender with too little to send
}

func (f *flight) round(n int, rtt time.Duration, lose func(i int) bool) {
	began := f.delivered
	first := f.next
	for range n {
		f.c.Sent(f.next)
		f.next++
	}
	f.now += rtt
	s := Sample{Now: f.now, Prior: int64(n) * message, RTT: rtt, SRTT: rtt, MinRTT: rtt, Largest: f.next - 1, Next: f.next, AppLimited: f.starved}
	for i := range n {
		if lose != nil && lose(i) {
			f.c.Lost(f.now, first+int64(i))
			continue
		}
		s.Acked += message
		s.Packets++
	}
	f.delivered += s.Acked
	s.Delivered, s.DeliveredAtSend = f.delivered, began
	s.Rate = int64(float64(s.Acked) / rtt.Seconds())
	f.c.Acked(s)
}

func (f *flight) fill(rtt time.Duration, lose func(i int) bool) {
	f.round(int(f.c.Window()/message), rtt, lose)
}

// RFC 9438, section 4.6: "cwnd = cwnd * beta_cubic" with beta 0.7, once for a flight.
func TestCubicReducesOnceForAFlight(t *testing.T) {
	c := newCubic()
	f := &flight{c: c, now: time.Second}
	f.fill(50*time.Millisecond, nil)
	f.fill(50*time.Millisecond, nil)
	if c.Window() != 40*message {
		t.Fatalf("window of %d messages after two rounds of slow start", c.Window()/message)
	}
	f.fill(50*time.Millisecond, func(i int) bool { return i%10 == 0 })
	if got, want := c.Window(), int64(28*message); got < want-message || got > want+message {
		t.Errorf("window of %d after losses in one flight, %d expected", got, want)
	}
}

// RFC 9438, section 4.9: a reduction that was spurious is taken back.
func TestCubicUndoesSpuriousReduction(t *testing.T) {
	c := newCubic()
	f := &flight{c: c, now: time.Second}
	f.fill(50*time.Millisecond, nil)
	before := c.Window()
	c.Lost(f.now, 5)
	c.Lost(f.now, 6)
	c.Undo(5)
	if c.Window() >= before {
		t.Error("undone though one loss was real")
	}
	c.Undo(6)
	if c.Window() != before || !c.slowStart() {
		t.Errorf("window %d after undo, %d before", c.Window(), before)
	}
}

// RFC 9438, section 4.2: the window is at W_max again after K seconds, and grows beyond.
func TestCubicReturnsToItsPlateau(t *testing.T) {
	c := newCubic()
	c.window = 1000 * message
	c.Sent(9)
	c.Lost(time.Second, 9)
	f := &flight{c: c, now: time.Second, next: 10}
	const rtt = 100 * time.Millisecond
	f.fill(rtt, nil) // begins the epoch
	k := c.loss.k
	if k < 8 || k > 10 { // cbrt(1000 * 0.3 / 0.4)
		t.Fatalf("K is %.1f s", k)
	}
	for c.loss.epoch+time.Duration(k*float64(time.Second)) > f.now {
		f.fill(rtt, nil)
	}
	if got := c.Window() / message; got < 950 || got > 1050 {
		t.Errorf("window of %d messages after K", got)
	}
	for range 50 {
		f.fill(rtt, nil)
	}
	if got := c.Window() / message; got < 1040 {
		t.Errorf("window of %d messages 5 s after K", got)
	}
}

// RFC 9406: slow start ends when round trips grow, not only when something is lost.
func TestCubicLeavesSlowStartWhenRoundTripsGrow(t *testing.T) {
	c := newCubic()
	now, rtt, number := time.Second, 50*time.Millisecond, int64(0)
	for i := 0; c.slowStart() && i < 30; i++ {
		window := c.Window()
		now += rtt
		for range 4 { // samples a round
			number += window / message / 4
			c.Sent(number + window/message)
			c.Acked(Sample{Now: now, Prior: window, Acked: window / 4, Largest: number, Next: number + window/message, RTT: rtt, SRTT: rtt})
		}
		if window > 100*message {
			rtt += 10 * time.Millisecond
		}
	}
	if c.slowStart() || c.Window() > 3000*message {
		t.Errorf("slow start %v with a window of %d messages", c.slowStart(), c.Window()/message)
	}
}

// RFC 9002, section 7.8: a window that is not used does not grow.
func TestCubicIgnoresUnusedWindow(t *testing.T) {
	c := newCubic()
	f := &flight{c: c, now: time.Second}
	for range 20 {
		f.round(2, 50*time.Millisecond, nil)
	}
	if c.Window() != initialMessages*message {
		t.Errorf("window of %d messages though 2 were in flight", c.Window()/message)
	}
}

// "Congestion is excess loss and RTT": loss alone lowers neither rate nor window.
func TestRateTakesLossAloneForNoise(t *testing.T) {
	r := newRate(message, Path{})
	f := &flight{c: r, now: time.Second}
	for range 100 {
		f.round(100, 50*time.Millisecond, func(i int) bool { return i%10 == 9 })
	}
	// 100 messages a round trip are sent, 90 delivered; the bottleneck has taken 100.
	want := 100 * message / 0.05
	if got := r.bandwidth(); got < 0.95*want || got > 1.05*want {
		t.Errorf("bandwidth %.0f, %.0f expected", got, want)
	}
	if r.mode == startUp || r.cut.active() {
		t.Errorf("mode %d, cut %v", r.mode, r.cut.active())
	}
}

func TestRateAnswersLossWithAFullQueue(t *testing.T) {
	r := newRate(message, Path{})
	f := &flight{c: r, now: time.Second}
	for range 40 {
		f.round(100, 50*time.Millisecond, nil)
	}
	before := r.bandwidth()
	f.round(150, 100*time.Millisecond, nil)
	f.round(150, 100*time.Millisecond, func(i int) bool { return i%4 == 0 })
	f.round(150, 100*time.Millisecond, func(i int) bool { return i%4 == 0 })
	if got := r.bandwidth(); got > 0.75*before || got < 0.65*before {
		t.Errorf("bandwidth %.0f after a full queue, %.0f before", got, before)
	}
	for range 60 { // 3 s
		f.round(70, 50*time.Millisecond, nil)
	}
	if got := r.bandwidth(); got < 0.69*before {
		t.Errorf("bandwidth %.0f some time after, %.0f before", got, before)
	}
}

// A train shows the bottleneck's rate, and never more than the rate at which it was sent.
func TestTrainMeasuresTheBottleneck(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct{ sent, acked, want time.Duration }{ // between messages
		"queued":     {ms, 4 * ms, 4 * ms},
		"paced":      {4 * ms, 4 * ms, 4 * ms},
		"compressed": {4 * ms, ms / 4, 4 * ms},
	} {
		var u train
		best, want := int64(0), int64(message*time.Second/c.want)
		for i := range 40 {
			n := time.Duration(i)
			best = max(best, u.sample(&Sample{Now: time.Second + n*c.acked, LargestSentAt: time.Second - 100*ms + n*c.sent, Acked: message, MinRTT: 100 * ms}))
		}
		if best < want*9/10 || best > want*11/10 {
			t.Errorf("%s: %d bytes a second, %d expected", name, best, want)
		}
	}
}

// "never a burst, half the remembered rate paced until the first RTT sample agrees"
func TestRateRemembersAPath(t *testing.T) {
	known := Path{Rate: 1e7, RTT: 100 * time.Millisecond}
	for _, c := range []struct {
		rtt  time.Duration
		same bool
	}{{90 * time.Millisecond, true}, {120 * time.Millisecond, true}, {60 * time.Millisecond, false}, {200 * time.Millisecond, false}} {
		r := newRate(message, known)
		if r.Rate() != known.Rate/2 || r.Window() > startMessages*message {
			t.Errorf("begins with %d bytes a second and a window of %d", r.Rate(), r.Window())
		}
		f := &flight{c: r, now: time.Second}
		f.round(1, c.rtt, nil)
		if got := r.Rate() == known.Rate; got != c.same {
			t.Errorf("after a round trip of %v: %d bytes a second", c.rtt, r.Rate())
		}
	}
}

// What is remembered holds until full rounds have shown what is true.
func TestRateForgetsAWrongGuess(t *testing.T) {
	const rtt = 100 * time.Millisecond
	r := newRate(message, Path{Rate: 1e7, RTT: rtt})
	f := &flight{c: r, now: time.Second}
	for range 2 + guessRounds {
		f.round(100, rtt, nil)
	}
	if got, want := r.bandwidth(), 100*message/rtt.Seconds(); got > 1.1*want {
		t.Errorf("%.0f bytes a second, %.0f expected", got, want)
	}
	if p := r.Path(); p.RTT != rtt || p.Rate != int64(r.bandwidth()) {
		t.Errorf("remembers %+v", p)
	}
	if p := newRate(message, Path{}).Path(); p != (Path{}) {
		t.Errorf("remembers %+v of nothing", p)
	}
}

// A loss rate that was taken for too high keeps up the queue in which it is not measured, but not for ever.
func TestRateCorrectsALossRateThatIsTooHigh(t *testing.T) {
	r := newRate(message, Path{})
	r.loss = lossMeter{lost: 24, sent: 40}
	f := &flight{c: r, now: time.Second}
	f.round(100, 50*time.Millisecond, nil)
	for range 60 {
		f.round(100, 90*time.Millisecond, func(i int) bool { return i%10 < 3 })
	}
	if p := r.loss.p(); p > 0.42 {
		t.Errorf("a loss of %.2f is taken for 0.3", p)
	}
}

// A burst that went through is no rate for ever where nearly all is lost since, though the sender runs out of messages: its
// window is full of what has to be sent again.
func TestRateForgetsABurst(t *testing.T) {
	for _, c := range []struct {
		rtt    time.Duration
		within int // rounds
	}{{200 * time.Microsecond, 6}, {20 * time.Millisecond, rounds + 1}} {
		r := newRate(message, Path{})
		f := &flight{c: r, now: time.Second}
		for range 20 {
			f.round(200, c.rtt, nil)
		}
		f.starved = true
		for range c.within {
			f.round(200, c.rtt, func(i int) bool { return i > 1 })
		}
		if got, most := r.bandwidth(), 2*message/c.rtt.Seconds()/(1-maxLoss); got > 1.1*most {
			t.Errorf("%v: %.0f bytes a second, at most %.0f expected", c.rtt, got, most)
		}
	}
}

// A burst is a millisecond's worth, unless that is much, and what a timer cannot divide on a very fast path.
func TestRateBurst(t *testing.T) {
	for _, c := range []struct {
		rate  int64 // bytes a second
		burst int64 // bytes
	}{
		{125_000, 2 * message},
		{12_500_000, 12_500},
		{125_000_000, 64 * message},
		{1_000_000_000, 125_000},
		{5_000_000_000, 256 * message},
	} {
		r := newRate(message, Path{})
		r.rtt.sample(0, 2*time.Millisecond)
		r.bw.sample(c.rate)
		r.enter(cruise, 1)
		if got := r.Burst(); got != c.burst {
			t.Errorf("%d bytes at once of %d a second, %d expected", got, c.rate, c.burst)
		}
	}
}
