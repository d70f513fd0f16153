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
	most float64 // the time over the bound that rate may take
}

var paths = []pathCase{
	{"A 20 Mbit/s 50 ms 0 %", 20 * mbit, 0, 50 * time.Millisecond, 0, 0, 10e6, 1.08},
	{"B 1 %", 20 * mbit, 0, 50 * time.Millisecond, 0.01, 0, 10e6, 1.09},
	{"C 5 %", 20 * mbit, 0, 50 * time.Millisecond, 0.05, 0, 10e6, 1.12},
	{"D 10 %", 20 * mbit, 0, 50 * time.Millisecond, 0.10, 0, 10e6, 1.15},
	{"G 30 %", 20 * mbit, 0, 50 * time.Millisecond, 0.30, 0, 10e6, 1.25},
	{"E 100 Mbit/s 200 ms 1 %", 100 * mbit, 0, 200 * time.Millisecond, 0.01, 0, 10e6, 2.6},
	{"F 2 Mbit/s 600 ms 2 %", 2 * mbit, 0, 600 * time.Millisecond, 0.02, 0, 10e6, 1.1},
	{"H 1 Gbit/s 1 ms 0.1 %", 1000 * mbit, 0, time.Millisecond, 0.001, 0, 10e6, 1.15},
	{"bursts of 4 at 5 %", 20 * mbit, 0, 50 * time.Millisecond, 0.05, 4, 10e6, 1.25},
	{"250/3 Mbit/s 600 ms 1.5 %", 250 * mbit, 3 * mbit, 600 * time.Millisecond, 0.015, 0, 100e6, 2.7},
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

// TestCompletionTimes measures a cold session's time over the bound for rate, and its bytes on the wire, and
// shows CUBIC beside it: -v prints the table.
func TestCompletionTimes(t *testing.T) {
	t.Parallel()
	seeds := 3
	if testing.Short() {
		seeds = 1
	}
	for i := range paths {
		c := &paths[i]
		var ratios, bytes []float64
		for seed := range seeds {
			if c.size > 50e6 && seed > 0 {
				break
			}
			r, b := c.measure(t, uint64(seed+1), func() cc.Controller { return cc.NewRate(1200) })
			ratios, bytes = append(ratios, r), append(bytes, b)
		}
		slices.Sort(ratios)
		slices.Sort(bytes)
		ratio, wire := ratios[len(ratios)/2], bytes[len(bytes)/2]
		line := fmt.Sprintf("%-28s rate %5.2f, wire %.3f", c.name, ratio, wire)
		if ratio > c.most {
			t.Errorf("%s: at most %v times the bound", line, c.most)
		}
		if most := 1.06/(1-c.loss) + 0.05; wire > most {
			t.Errorf("%s: at most %.3f bytes on the wire for each of the image", line, most)
		}
		if testing.Verbose() && c.size < 50e6 {
			r, b := c.measure(t, 1, func() cc.Controller { return cc.NewCubic(1200) })
			line += fmt.Sprintf("   cubic %6.2f, wire %.3f", r, b)
		}
		t.Log(line)
	}
}
