package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/arq/cc"
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
		p := alone(t, Config{Rate: c.rate, Delay: c.delay, Queue: c.queue}, cc.NewRate(1400, cc.Path{}))
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

// A small image on a live session takes a round trip at the median, and few more when something is lost.
func TestSmallImagesOnALiveSession(t *testing.T) {
	t.Parallel()
	const rtt = 50 * time.Millisecond
	w := newWorld(1)
	w.fail = func(f string, a ...any) { t.Fatalf(f, a...) }
	cfg := Config{Rate: 20 * mbit, Delay: rtt / 2, Loss: Bernoulli(0.05)}
	p := newPlain(w, cfg, cfg, func(c *arq.Config) {})
	var took []time.Duration
	for range 300 {
		began := w.clock.Now()
		took = append(took, p.finish(p.send(10_000), began, time.Minute))
		p.run(time.Second / 10)
	}
	report := percentiles(took[1:])
	t.Logf("10 KB at 5 %% loss, 50 ms: %v", report)
	if report[0] > rtt+rtt/5 || report[1] > 3*rtt || report[2] > 5*rtt {
		t.Errorf("median, 95th and 99th percentile %v", report)
	}
}

// percentiles returns the median, the 95th and the 99th percentile.
func percentiles(d []time.Duration) [3]time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return [3]time.Duration{sorted[len(sorted)/2], sorted[len(sorted)*95/100], sorted[len(sorted)*99/100]}
}
