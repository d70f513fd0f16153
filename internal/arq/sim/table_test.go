package sim

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/arq/cc"
)

const mbit = 1e6 / 8

// path is one link of the table, its one-way delay being half of the round trip.
type pathCase struct {
	name string
	rate float64 // bytes a second
	back float64 // 0: the same
	rtt  time.Duration
	loss float64
	mean float64 // length of bursts; 0: independent losses
	size int64
}

var paths = []pathCase{
	{"A 20 Mbit/s 50 ms 0 %", 20 * mbit, 0, 50 * time.Millisecond, 0, 0, 10e6},
	{"B 1 %", 20 * mbit, 0, 50 * time.Millisecond, 0.01, 0, 10e6},
	{"C 5 %", 20 * mbit, 0, 50 * time.Millisecond, 0.05, 0, 10e6},
	{"D 10 %", 20 * mbit, 0, 50 * time.Millisecond, 0.10, 0, 10e6},
	{"G 30 %", 20 * mbit, 0, 50 * time.Millisecond, 0.30, 0, 10e6},
	{"E 100 Mbit/s 200 ms 1 %", 100 * mbit, 0, 200 * time.Millisecond, 0.01, 0, 10e6},
	{"F 2 Mbit/s 600 ms 2 %", 2 * mbit, 0, 600 * time.Millisecond, 0.02, 0, 10e6},
	{"H 1 Gbit/s 1 ms 0.1 %", 1000 * mbit, 0, time.Millisecond, 0.001, 0, 10e6},
	{"bursts of 4 at 5 %", 20 * mbit, 0, 50 * time.Millisecond, 0.05, 4, 10e6},
	{"250/3 Mbit/s 600 ms 1.5 %", 250 * mbit, 3 * mbit, 600 * time.Millisecond, 0.015, 0, 100e6},
}

func (c *pathCase) configs() (there, back Config) {
	there = Config{Rate: int64(c.rate), Delay: c.rtt / 2, Loss: Bernoulli(c.loss)}
	back = there
	if c.mean > 0 {
		there.Loss, back.Loss = Bursts(c.loss, c.mean), Bursts(c.loss, c.mean)
	}
	if c.back > 0 {
		back.Rate = int64(c.back)
	}
	return there, back
}

// bound is the time that no protocol can beat.
func (c *pathCase) bound() time.Duration {
	return time.Duration(float64(c.size)/(c.rate*(1-c.loss))*float64(time.Second)) + c.rtt
}

// measure returns the time from Send to receipt over the bound, and the bytes sent over the image's.
func (c *pathCase) measure(t testing.TB, seed uint64, control func() cc.Controller) (ratio, wire float64) {
	w := newWorld(seed)
	w.fail = func(f string, a ...any) { t.Fatalf("%s, seed %d: %s", c.name, seed, fmt.Sprintf(f, a...)) }
	there, back := c.configs()
	p := newPlain(w, there, back, func(cfg *arq.Config) { cfg.Controller = control() })
	began := w.clock.Now()
	h := p.send(c.size)
	took := p.finish(h, began, time.Hour)
	return took.Seconds() / c.bound().Seconds(), float64(p.a.Stats().SentBytes) / float64(c.size)
}

// TestCompletionTimes prints the time over the bound for each link and controller: -v shows it.
func TestCompletionTimes(t *testing.T) {
	seeds := 5
	if testing.Short() {
		seeds = 1
	}
	controllers := []struct {
		name string
		make func() cc.Controller
	}{
		{"cubic", func() cc.Controller { return cc.NewCubic(1200) }},
		{"rate", func() cc.Controller { return cc.NewRate(1200) }},
	}
	for i := range paths {
		c := &paths[i]
		line := fmt.Sprintf("%-28s", c.name)
		for _, control := range controllers {
			var ratios, bytes []float64
			for seed := range seeds {
				r, b := c.measure(t, uint64(seed+1), control.make)
				ratios, bytes = append(ratios, r), append(bytes, b)
			}
			slices.Sort(ratios)
			slices.Sort(bytes)
			line += fmt.Sprintf("  %s %6.2f, wire %.3f", control.name, ratios[len(ratios)/2], bytes[len(bytes)/2])
		}
		t.Log(line)
	}
}
