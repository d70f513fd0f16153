package sim

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/arq/cc"
	"github.com/pixferry/pixferry/internal/parity"
)

// Timers that are late and messages that come in batches must not become the limit on fast, short paths,
// as they are when a pacer's burst is small and an estimate follows what it let through.
func TestRateBearsLateTimers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rate               int64
		delay, late, batch time.Duration
		queue              int64
		least              float64
	}{
		"loopback":    {1250e6, 20 * time.Microsecond, time.Millisecond, 100 * time.Microsecond, 4 << 20, 0.9},
		"loaded":      {1250e6, 20 * time.Microsecond, 3 * time.Millisecond, time.Millisecond, 4 << 20, 0.5},
		"local":       {125e6, 100 * time.Microsecond, 2 * time.Millisecond, 500 * time.Microsecond, 200 << 10, 0.85},
		"local, slow": {12.5e6, 2 * time.Millisecond, 5 * time.Millisecond, 2 * time.Millisecond, 64 << 10, 0.7},
	} {
		p := alone(t, Config{Rate: c.rate, Delay: c.delay, Queue: c.queue}, new(cc.Rate))
		for _, ep := range [...]*endpoint{p.a.ep, p.a.ep.peer} {
			ep.late, ep.batch = c.late, c.batch
		}
		p.run(100 * time.Millisecond)
		before := p.received
		p.run(200 * time.Millisecond)
		if used := float64(p.received-before) / 0.2 / float64(c.rate); used < c.least {
			t.Errorf("%s: %.2f of the link used, at least %.2f: %+v", name, used, c.least, p.a.Stats())
		}
	}
}

// "10 KB images on a live session, 50 ms, 5 % Bernoulli: 99th percentile 2 RTT", bytes at most doubled; and none more
// where nothing is lost, or to a peer that does not repair.
func TestLossySmallImages(t *testing.T) {
	t.Parallel()
	const rtt = 50 * time.Millisecond
	images := 300
	if *longFlag {
		images = 1000
	}
	for _, c := range []struct {
		loss       float64
		size       int64
		coder      arq.Coder
		p99, bytes float64 // round trips; of the image's
	}{
		{0.05, 10_000, &parity.Coder{}, 2, 2},
		{0.05, 60_000, &parity.Coder{}, 3, 1.7},
		{0.02, 10_000, &parity.Coder{}, 2, 1.6},
		{0, 10_000, &parity.Coder{}, 1.2, 1.06},
		{0.05, 10_000, nil, 4, 1.4},
	} {
		w := newWorld(1)
		w.fail = func(f string, a ...any) { t.Fatalf(f, a...) }
		cfg := Config{Rate: 20 * mbit, Delay: rtt / 2, Loss: Bernoulli(c.loss)}
		p := newPlain(w, cfg, cfg, func(cfg *arq.Config) { cfg.Coder = c.coder })
		var took []time.Duration
		var warm int64 // bytes until the loss is known
		for i := range images + 20 {
			if i == 20 {
				took, warm = nil, p.a.Stats().SentBytes
			}
			began := w.clock.Now()
			took = append(took, p.finish(p.send(c.size), began, time.Minute))
			p.run(time.Second / 10)
		}
		bytes := float64(p.a.Stats().SentBytes-warm) / float64(c.size*int64(images))
		report := percentiles(took)
		line := fmt.Sprintf("%d bytes at %v %% loss, parity %v: %v, wire %.3f", c.size, 100*c.loss, c.coder != nil, report, bytes)
		t.Log(line)
		if report[0] > rtt+rtt/5+time.Duration(float64(c.size)/float64(cfg.Rate)*1e9) || report[2].Seconds() > c.p99*rtt.Seconds() || bytes > c.bytes {
			t.Error(line)
		}
	}
}

// percentiles returns the median, the 95th and the 99th percentile.
func percentiles(d []time.Duration) [3]time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return [3]time.Duration{sorted[len(sorted)/2], sorted[len(sorted)*95/100], sorted[len(sorted)*99/100]}
}
