package sim

import (
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/arq/cc"
)

// share runs two endless flows through one bottleneck and returns what part of it each gets
// after a while.
func share(t *testing.T, cfg Config, seed uint64, first, second cc.Controller) (a, b float64) {
	w := newWorld(seed)
	w.fail = func(f string, args ...any) { t.Fatalf(f, args...) }
	back := cfg
	back.Queue = 1 << 30
	flows := [2]*plain{
		newPlain(w, cfg, back, func(c *arq.Config) { c.Controller = first }),
		newPlain(w, cfg, back, func(c *arq.Config) { c.Controller = second }),
	}
	flows[1].a.ep.out = flows[0].a.ep.out // one bottleneck
	began := w.clock.Now()
	flows[0].send(1 << 40)
	w.clock.After(time.Duration(seed)*370*time.Millisecond, func() { flows[1].send(1 << 40) })
	var at [2]int64
	w.clock.After(10*time.Second, func() { at = [2]int64{flows[0].received, flows[1].received} })
	const until = 30
	for w.clock.Step(began.Add(until * time.Second)) {
	}
	per := float64(cfg.Rate) * (until - 10)
	return float64(flows[0].received-at[0]) / per, float64(flows[1].received-at[1]) / per
}

// "beside one cubic flow, at queues of 1, 2 and 4 BDP, neither falls under 30 % of the link"
func TestRateSharesWithCubic(t *testing.T) {
	t.Parallel()
	queues := []float64{1}
	if *longFlag {
		queues = []float64{1, 2, 4}
	}
	for _, queue := range queues {
		cfg := Config{Rate: 20 * mbit, Delay: 25 * time.Millisecond}
		cfg.Queue = int64(queue * float64(cfg.BDP()))
		rate, cubic := share(t, cfg, 1, new(cc.Rate), new(cc.Cubic))
		t.Logf("queue of %v BDP: rate %.2f, cubic %.2f", queue, rate, cubic)
		if rate < 0.3 || cubic < 0.3 {
			t.Errorf("queue of %v BDP: rate %.2f, cubic %.2f", queue, rate, cubic)
		}
		one, two := share(t, cfg, 1, new(cc.Rate), new(cc.Rate))
		t.Logf("queue of %v BDP: rate %.2f, rate %.2f", queue, one, two)
		if min(one, two) < 0.35 {
			t.Errorf("queue of %v BDP: two of rate get %.2f and %.2f", queue, one, two)
		}
	}
}

// Over a short path with a queue under one bandwidth-delay product, each overflow of one flow is loss without a queue to the
// other, whose own part is not to be what that leaves.
func TestRatesShareAShortQueue(t *testing.T) {
	t.Parallel()
	cfg := Config{Rate: 20 * mbit, Delay: 5 * time.Millisecond}
	cfg.Queue = cfg.BDP() / 2
	if one, two := share(t, cfg, 1, new(cc.Rate), new(cc.Rate)); min(one, two) < 0.35 {
		t.Errorf("two of rate get %.2f and %.2f", one, two)
	}
}
