package sim

import (
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/arq/cc"
)

// "queueing delay of rate at 0 % loss, 95th percentile, under 1 base RTT"
func TestRateKeepsQueuesShort(t *testing.T) {
	t.Parallel()
	queues := []int64{4}
	if *longFlag {
		queues = []int64{1, 4}
	}
	for _, queue := range queues {
		cfg := Config{Rate: 20 * mbit, Delay: 25 * time.Millisecond}
		cfg.Queue = queue * cfg.BDP()
		p := alone(t, cfg, new(cc.Rate))
		var over, all int
		p.every(10*time.Millisecond, func() {
			all++
			if delay := float64(p.a.ep.out.Queued(p.w.clock.Now())) / float64(cfg.Rate); delay > 0.05 {
				over++
			}
		})
		p.run(20 * time.Second)
		if float64(over) > 0.05*float64(all) {
			t.Errorf("queue of %d BDP: over one round trip in %d of %d samples", queue, over, all)
		}
		if used := float64(p.received) / 20 / float64(cfg.Rate); used < 0.93 {
			t.Errorf("queue of %d BDP: %.2f of the link used", queue, used)
		}
	}
}

// "Nothing collapses at 125 ms RTT and more, after a 5 s blackout, or when the rate halves or doubles in
// mid-transfer"
func TestRateFollowsThePath(t *testing.T) {
	t.Parallel()
	const rate = 20 * mbit
	cfg := Config{Rate: rate, Delay: 65 * time.Millisecond, Loss: Bernoulli(0.01)}
	change := func(p *plain, f func(*Config)) {
		c := p.a.ep.out.Config()
		f(&c)
		p.a.ep.out.Change(c)
	}
	for name, c := range map[string]struct {
		change func(p *plain)
		after  float64 // rate of the link after the change
		within time.Duration
	}{
		"blackout": {func(p *plain) {
			p.a.ep.out.Down(true)
			p.b.ep.out.Down(true)
			p.w.clock.After(5*time.Second, func() {
				p.a.ep.out.Down(false)
				p.b.ep.out.Down(false)
			})
		}, rate, 12 * time.Second},
		"half":        {func(p *plain) { change(p, func(c *Config) { c.Rate /= 2 }) }, rate / 2, 5 * time.Second},
		"double":      {func(p *plain) { change(p, func(c *Config) { c.Rate *= 2 }) }, rate * 2, 5 * time.Second},
		"longer":      {func(p *plain) { change(p, func(c *Config) { c.Delay *= 2 }) }, rate, 15 * time.Second},
		"more loss":   {func(p *plain) { change(p, func(c *Config) { c.Loss = Bernoulli(0.2) }) }, rate * 0.8, 15 * time.Second},
		"other queue": {func(p *plain) { change(p, func(c *Config) { c.Queue = c.BDP() / 4 }) }, rate, 5 * time.Second},
	} {
		if !*longFlag && name != "blackout" && name != "half" {
			continue
		}
		p := alone(t, cfg, new(cc.Rate))
		p.run(10 * time.Second)
		if used := float64(p.received) / 10 / rate; used < 0.8 {
			t.Errorf("%s: %.2f of the link used before", name, used)
		}
		c.change(p)
		p.run(c.within)
		before := p.received
		p.run(10 * time.Second)
		if used := float64(p.received-before) / 10 / c.after; used < 0.8 {
			t.Errorf("%s: %.2f of the link used %v after the change: %+v", name, used, c.within, p.a.Stats())
		}
	}
}

// alone starts an endless flow.
func alone(t *testing.T, cfg Config, control cc.Controller) *plain {
	w := newWorld(1)
	w.fail = func(f string, a ...any) { t.Fatalf(f, a...) }
	back := cfg
	back.Queue = 1 << 30
	p := newPlain(w, cfg, back, func(c *arq.Config) { c.Controller = control })
	p.send(1 << 40)
	return p
}

// run lets time pass.
func (p *plain) run(d time.Duration) {
	until := p.w.clock.Now().Add(d)
	p.w.clock.At(until, func() {})
	for p.w.clock.Step(until) {
	}
}

func (p *plain) every(d time.Duration, f func()) {
	p.w.clock.After(d, func() {
		f()
		p.every(d, f)
	})
}

// A path that comes to swallow large messages is noticed though small ones, of other transfers, go on arriving, and
// so the probe timer never fires.
func TestLargeMessagesSwallowedAmongSmallOnes(t *testing.T) {
	t.Parallel()
	cfg := Config{Rate: 5 * mbit, Delay: 150 * time.Millisecond}
	w := newWorld(1)
	w.fail = func(f string, a ...any) { t.Fatalf(f, a...) }
	p := newPlain(w, cfg, cfg, func(c *arq.Config) { c.MaxMessage, c.Sizes = 1200, []int{1472} })
	p.connect()
	p.send(1 << 40)
	p.run(3 * time.Second)
	p.every(20*time.Millisecond, func() { p.send(200) })
	cfg.MTU = 1300
	p.a.ep.out.Change(cfg)
	p.run(10 * time.Second)
	before := p.received
	p.run(10 * time.Second)
	if used := float64(p.received-before) / 10 / float64(cfg.Rate); used < 0.8 {
		t.Errorf("%.2f of the link used after the path swallows messages over %d: %+v", used, cfg.MTU, p.a.Stats())
	}
}

// A shaper near by lets a burst through at the speed of the wire, and then queues and drops: what the burst has shown is
// not taken for the path's rate.
func TestRateBehindATokenBucket(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{
		{Rate: 40 * mbit, Delay: 100 * time.Microsecond, Queue: 250_000, Burst: 64_000},
		{Rate: 10 * mbit, Delay: 100 * time.Microsecond, Queue: 64_000, Burst: 32_000},
	} {
		p := alone(t, cfg, new(cc.Rate))
		for _, most := range []float64{4, 1.1} { // what was sent for each byte received, at first and then
			sent, received := p.a.ep.out.Stats.SentBytes, p.received
			p.run(2 * time.Second)
			sent, received = p.a.ep.out.Stats.SentBytes-sent, p.received-received
			used, times := float64(received)/2/float64(cfg.Rate), float64(sent)/float64(received)
			t.Logf("%d bytes a second: %.2f of them used, %.2f sent for each", cfg.Rate, used, times)
			if used < 0.9 || times > most {
				t.Errorf("%d bytes a second: %.2f of them used, %.2f sent for each", cfg.Rate, used, times)
			}
		}
	}
}

// A policer drops what is over its rate, without a queue. That looks like random loss, but a slower round does not lose it.
func TestRateBehindAPolicer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cfg  Config
		most float64 // sent for each byte received
	}{
		{Config{Rate: 20 * mbit, Delay: 25 * time.Millisecond, Queue: 1, Burst: 64_000}, 1.25},
		{Config{Rate: 20 * mbit, Delay: 25 * time.Millisecond, Queue: 1, Burst: 64_000, Loss: Bernoulli(0.02)}, 1.25},
		{Config{Rate: 10 * mbit, Delay: 2 * time.Millisecond, Queue: 1, Burst: 64_000}, 1.7},
		{Config{Rate: 20 * mbit, Delay: 20 * time.Millisecond, Queue: 10_000}, 1.2},
	} {
		p := alone(t, c.cfg, new(cc.Rate))
		p.run(2 * time.Second)
		sent, received := p.a.ep.out.Stats.SentBytes, p.received
		p.run(6 * time.Second)
		sent, received = p.a.ep.out.Stats.SentBytes-sent, p.received-received
		used, times := float64(received)/6/float64(c.cfg.Rate), float64(sent)/float64(received)
		t.Logf("%d bytes a second, %v: %.2f of them used, %.2f sent for each", c.cfg.Rate, 2*c.cfg.Delay, used, times)
		if used < 0.93 || times > c.most {
			t.Errorf("%d bytes a second, %v: %.2f of them used, %.2f sent for each, at most %.2f", c.cfg.Rate, 2*c.cfg.Delay, used, times, c.most)
		}
	}
}

// A policer whose rate falls is found again, though what was limited because of it was to be restored.
func TestRateBehindAPolicerThatFalls(t *testing.T) {
	t.Parallel()
	for _, fall := range []int64{2, 3, 5} {
		cfg := Config{Rate: 20 * mbit, Delay: 25 * time.Millisecond, Queue: 1, Burst: 64_000}
		p := alone(t, cfg, new(cc.Rate))
		p.run(8 * time.Second)
		cfg.Rate /= fall
		p.a.ep.out.Change(cfg)
		p.run(4 * time.Second)
		sent, received := p.a.ep.out.Stats.SentBytes, p.received
		p.run(4 * time.Second)
		sent, received = p.a.ep.out.Stats.SentBytes-sent, p.received-received
		used, times := float64(received)/4/float64(cfg.Rate), float64(sent)/float64(received)
		t.Logf("a %dth: %.2f of it used, %.2f sent for each", fall, used, times)
		if used < 0.93 || times > 1.6 {
			t.Errorf("a %dth: %.2f of it used, %.2f sent for each", fall, used, times)
		}
	}
}

// A peer that does not read for a moment, as a busy board, loses all that is in flight: that says nothing of the path's rate.
func TestRateAfterPauses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cfg         Config
		pause, rest time.Duration
		least       float64
	}{
		{Config{Rate: 200 * mbit, Delay: 400 * time.Microsecond, Queue: 500_000}, 5 * time.Millisecond, 100 * time.Millisecond, 0.66},
		{Config{Rate: 100 * mbit, Delay: 2 * time.Millisecond, Queue: 100_000}, 20 * time.Millisecond, 100 * time.Millisecond, 0.58},
	} {
		p := alone(t, c.cfg, new(cc.Rate))
		p.every(c.pause+c.rest, func() {
			p.a.ep.out.Down(true)
			p.w.clock.After(c.pause, func() { p.a.ep.out.Down(false) })
		})
		p.run(3 * time.Second)
		if used := float64(p.received) / 3 / float64(c.cfg.Rate); used < c.least {
			t.Errorf("%d bytes a second: %.2f of them used", c.cfg.Rate, used)
		}
	}
}
