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

// pathCase is one link of the table, its one-way delay being half of the round trip.
type pathCase struct {
	name string
	rate float64 // bytes a second
	back float64 // 0: the same
	rtt  time.Duration
	loss float64
	mean float64 // length of bursts; 0: independent losses
	size int64
	cold float64 // the time over the bound that rate may take in a new session
	live float64 // that of a second image; 0: not measured
	next float64 // that in a second session, when the path is remembered; 0: not measured
	wire float64 // more than the usual bytes on the wire of a new session, in parts of the image's
}

var paths = []pathCase{
	{name: "A 20 Mbit/s 50 ms 0 %", rate: 20 * mbit, rtt: 50 * time.Millisecond, size: 10e6, cold: 1.08},
	{name: "B 1 %", rate: 20 * mbit, rtt: 50 * time.Millisecond, loss: 0.01, size: 10e6, cold: 1.09},
	{name: "C 5 %", rate: 20 * mbit, rtt: 50 * time.Millisecond, loss: 0.05, size: 10e6, cold: 1.12},
	{name: "D 10 %", rate: 20 * mbit, rtt: 50 * time.Millisecond, loss: 0.10, size: 10e6, cold: 1.15},
	{name: "G 30 %", rate: 20 * mbit, rtt: 50 * time.Millisecond, loss: 0.30, size: 10e6, cold: 1.25},
	{name: "E 100 Mbit/s 200 ms 1 %", rate: 100 * mbit, rtt: 200 * time.Millisecond, loss: 0.01, size: 10e6, cold: 2.6, live: 1.25, next: 1.5, wire: 0.04},
	{name: "F 2 Mbit/s 600 ms 2 %", rate: 2 * mbit, rtt: 600 * time.Millisecond, loss: 0.02, size: 10e6, cold: 1.1},
	{name: "H 1 Gbit/s 1 ms 0.1 %", rate: 1000 * mbit, rtt: time.Millisecond, loss: 0.001, size: 10e6, cold: 1.15},
	{name: "bursts of 4 at 5 %", rate: 20 * mbit, rtt: 50 * time.Millisecond, loss: 0.05, mean: 4, size: 10e6, cold: 1.25},
	{name: "satellite 250/3 Mbit/s 600 ms 1.5 %", rate: 250 * mbit, back: 3 * mbit, rtt: 600 * time.Millisecond, loss: 0.015, size: 100e6, cold: 2.0},
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

// start begins a session over the path.
func (c *pathCase) start(t testing.TB, seed uint64, change func(*arq.Config)) *plain {
	w := newWorld(seed)
	w.fail = func(f string, a ...any) { t.Fatalf("%s, seed %d: %s", c.name, seed, fmt.Sprintf(f, a...)) }
	there, back := c.configs()
	return newPlain(w, there, back, change)
}

// figures are times from Send to receipt over the bound, and bytes sent over the image's.
type figures struct{ ratios, wires []float64 }

// measure sends an image, and before it, as a Conn does, establishes the session.
func (f *figures) measure(c *pathCase, p *plain) {
	began, before := p.w.clock.Now(), p.a.Stats().SentBytes
	p.connect()
	took := p.finish(p.send(c.size), began, time.Hour)
	f.ratios = append(f.ratios, took.Seconds()/c.bound().Seconds())
	f.wires = append(f.wires, float64(p.a.Stats().SentBytes-before)/float64(c.size))
}

// check compares the medians with what is allowed.
func (f *figures) check(t testing.TB, what string, c *pathCase, most, wire float64) string {
	slices.Sort(f.ratios)
	slices.Sort(f.wires)
	ratio, sent := f.ratios[len(f.ratios)/2], f.wires[len(f.wires)/2]
	line := fmt.Sprintf("%-36s %-12s %5.2f of %4.2f, wire %.3f of %.3f", c.name, what, ratio, most, sent, wire)
	if ratio > most || sent > wire {
		t.Errorf("%s: too much", line)
	}
	return line
}

// TestLossy measures what an image takes over each path, in time and in bytes, with rate. With -long it does so for
// all of them and five seeds, and shows CUBIC beside it: -v prints the table.
func TestLossy(t *testing.T) {
	t.Parallel()
	seeds := uint64(3)
	if *longFlag {
		seeds = 5
	}
	for i := range paths {
		c := &paths[i]
		if c.size > 50e6 && !*longFlag {
			continue
		}
		var cold, live, next figures
		for seed := uint64(1); seed <= seeds && (seed == 1 || c.size < 50e6); seed++ {
			p := c.start(t, seed, nil)
			cold.measure(c, p)
			if c.live > 0 {
				p.run(time.Second)
				live.measure(c, p)
			}
			if c.next > 0 {
				known := p.a.Path()
				next.measure(c, c.start(t, seed, func(cfg *arq.Config) { cfg.Path = known }))
			}
		}
		wire := 1.06/(1-c.loss) + 0.01
		line := cold.check(t, "cold", c, c.cold, wire+c.wire)
		if *longFlag && c.size < 50e6 {
			var cubic figures
			cubic.measure(c, c.start(t, 1, func(cfg *arq.Config) { cfg.Controller = new(cc.Cubic) }))
			line += fmt.Sprintf("   cubic %6.2f, wire %.3f", cubic.ratios[0], cubic.wires[0])
		}
		t.Log(line)
		if c.live > 0 {
			t.Log(live.check(t, "live session", c, c.live, wire))
		}
		if c.next > 0 {
			t.Log(next.check(t, "remembered", c, c.next, wire+c.wire))
		}
	}
}

// What is remembered of a path may be wrong: too much costs one cut, too little is found out, and another round trip
// says that it is another path.
func TestRateDoubtsWhatItRemembers(t *testing.T) {
	t.Parallel()
	c := pathCase{name: "remembered wrongly", rate: 20 * mbit, rtt: 50 * time.Millisecond, loss: 0.01, size: 10e6}
	for _, known := range []cc.Path{
		{Rate: int64(5 * c.rate), RTT: c.rtt},
		{Rate: int64(c.rate / 5), RTT: c.rtt},
		{Rate: int64(5 * c.rate), RTT: 2 * c.rtt},
		{Rate: int64(c.rate / 5), RTT: c.rtt / 2},
	} {
		var f figures
		for seed := range uint64(5) {
			f.measure(&c, c.start(t, seed+1, func(cfg *arq.Config) { cfg.Path = known }))
		}
		t.Log(f.check(t, fmt.Sprintf("%.0f Mbit/s, %v", float64(known.Rate)/mbit, known.RTT), &c, 1.25, 1.2))
	}
}

// A window that grows fills a long path nearly as soon as a large one; on a short path, and before a receiver that
// does not consume, it stays.
func TestWindowGrowsOnALongPath(t *testing.T) {
	t.Parallel()
	const first, most = 256 << 10, 16 << 20
	c := pathCase{name: "growing window", rate: 100 * mbit, rtt: 200 * time.Millisecond, loss: 0.01, size: 10e6}
	var fixed, growing figures
	fixed.measure(&c, c.start(t, 1, func(cfg *arq.Config) { cfg.Local.Window = most }))
	growing.measure(&c, c.start(t, 1, func(cfg *arq.Config) { cfg.Local.Window, cfg.FirstWindow = most, first }))
	t.Log(growing.check(t, "first 256 KiB", &c, 1.1*fixed.ratios[0], 1.1))

	for _, stalled := range []bool{false, true} {
		c := pathCase{name: "window that stays", rate: 100 * mbit, rtt: 40 * time.Millisecond, size: 10e6}
		if stalled {
			c.rtt *= 5
		}
		p := c.start(t, 1, func(cfg *arq.Config) { cfg.Local.Window, cfg.FirstWindow = most, first })
		p.stalled = stalled
		p.connect()
		h := p.send(c.size)
		p.every(time.Millisecond, func() {
			if out := p.a.Stats().Outstanding; out > first+first/10 {
				p.w.fail("%d bytes on their way with a window of %d", out, first)
			}
		})
		p.run(10 * time.Second)
		if stalled && p.received > first {
			t.Errorf("%d bytes taken by a receiver that does not consume and has granted %d", p.received, first)
		}
		if done := !p.done[h].IsZero(); done == stalled {
			t.Errorf("stalled %v, done %v", stalled, done)
		}
	}
}
