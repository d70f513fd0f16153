package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq/cc"
	"github.com/pixferry/pixferry/internal/arq/sim"
)

// modelled lets the engine do a scenario with another congestion control.
func modelled(control func() cc.Controller) func(*scenario, *testing.T, uint64) (outcome, error) {
	return func(s *scenario, _ *testing.T, seed uint64) (outcome, error) {
		there, back := s.links()
		clock, r := sim.NewClock(), rand.New(rand.NewPCG(seed, 2))
		links := [2]*sim.Link{sim.NewLink(there, r), sim.NewLink(back, r)}
		f := newFlow(clock, r, links[0], links[1], control())
		if s.state == live {
			if err := finish(clock, f, s.size); err != nil {
				return outcome{}, err
			}
		}
		began, sent := clock.Now(), links[0].Stats.SentBytes
		if s.change != nil {
			every(clock, 10*time.Millisecond, func() {
				now := s.change(clock.Now().Sub(began))
				now.apply(links[0], there)
				now.apply(links[1], back)
			})
		}
		err := finish(clock, f, s.size)
		return s.outcome(clock.Now().Sub(began), links[0].Stats.SentBytes-sent), err
	}
}

// finish runs until an image has its receipt.
func finish(clock *sim.Clock, f *flow, size int64) error {
	done := false
	f.send(size, func() { done = true })
	for limit := clock.Now().Add(10 * time.Hour); !done; {
		if !clock.Step(limit) {
			return fmt.Errorf("no receipt: %+v", f.ends[0].Stats())
		}
	}
	return nil
}

func every(clock *sim.Clock, d time.Duration, f func()) {
	f()
	clock.After(d, func() { every(clock, d, f) })
}

// fairness measures what two endless flows get of one link, and how long `rate` makes its queue.
func fairness(o *options, r *report) {
	for _, queue := range []float64{1, 2, 4} {
		name := fmt.Sprintf("beside cubic, 20 Mbit/s 50 ms, queue of %v BDP", queue)
		if o.only.MatchString(name) {
			mine, other := shareLink(queue)
			for i, part := range []float64{mine, other} {
				r.figure(row{Suite: "lossy", Case: name, System: []string{"pixferry's rate", "cubic"}[i], Role: ours, Unit: "of the link",
					Median: part, Min: part, Max: part, Want: 0.3})
			}
		}
	}
	if name := "queueing delay, 20 Mbit/s 50 ms 0 %, queue of 4 BDP"; o.only.MatchString(name) {
		p95 := queueDelay(4)
		r.figure(row{Suite: "lossy", Case: name, System: "pixferry's rate", Role: ours, Unit: "RTT (95th percentile)", Median: p95, Min: p95, Max: p95, Want: 1, AtMost: true})
	}
}

func fairLink(queue float64) sim.Config {
	c := sim.Config{Rate: 20 * mbit, Delay: 25 * time.Millisecond}
	c.Queue = int64(queue * float64(c.BDP()))
	return c
}

// shareLink returns what part of a link pixferry's congestion control and CUBIC get beside each
// other, from 10 s after the second has begun to 60 s.
func shareLink(queue float64) (mine, other float64) {
	cfg := fairLink(queue)
	clock, r := sim.NewClock(), rand.New(rand.NewPCG(1, 2))
	there := sim.NewLink(cfg, r)
	flows := [2]*flow{}
	for i, control := range []cc.Controller{nil, newCubic()} {
		flows[i] = newFlow(clock, r, there, sim.NewLink(cfg, r), control)
		clock.After(time.Duration(i)*370*time.Millisecond, func() { flows[i].send(1<<40, func() {}) })
	}
	var from [2]int64
	clock.After(10*time.Second, func() { from = [2]int64{flows[0].received, flows[1].received} })
	for end := clock.Now().Add(60 * time.Second); clock.Step(end); {
	}
	all := 50 * float64(cfg.Rate)
	return float64(flows[0].received-from[0]) / all, float64(flows[1].received-from[1]) / all
}

// queueDelay returns the 95th percentile of the time that messages wait for the link, in round
// trips.
func queueDelay(queue float64) float64 {
	cfg := fairLink(queue)
	clock, r := sim.NewClock(), rand.New(rand.NewPCG(1, 2))
	there := sim.NewLink(cfg, r)
	f := newFlow(clock, r, there, sim.NewLink(cfg, r), nil)
	f.send(1<<40, func() {})
	var delays []float64
	every(clock, 10*time.Millisecond, func() {
		delays = append(delays, float64(there.Queued(clock.Now()))/float64(cfg.Rate)/(2*cfg.Delay).Seconds())
	})
	for end := clock.Now().Add(30 * time.Second); clock.Step(end); {
	}
	slices.Sort(delays)
	return delays[len(delays)*95/100]
}
