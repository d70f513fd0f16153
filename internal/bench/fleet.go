package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pixferry/pixferry/internal/arq/sim"
	"github.com/pixferry/pixferry/transport"
)

const (
	fleetImage = 10_000
	// fleetRate is how many images a second all sessions together send on loopback.
	fleetRate = 1000
	// fleetPeriod is how often a session sends in virtual time.
	fleetPeriod = 10 * time.Second
	// fleetWant is how much an image may cost, beside one of the smallest fleet.
	fleetWant = 1.2
)

func fleetSuite(ctx context.Context, o *options, r *report) error {
	images := 5000
	if o.quick {
		images = 2000
	}
	err := fleets(o, r, "sessions on loopback, 10 KB images", []int{10, 100, 1000}, o.runs, func(n int) (float64, error) {
		return realFleet(ctx, n, images)
	})
	if err != nil {
		return err
	}
	return fleets(o, r, "sessions of the engine in virtual time, 10 KB every 10 s", []int{10, 100, 1000, 10_000}, o.runs, func(n int) (float64, error) {
		return modelFleet(n, max(4*images, 10*n)) // with collections of garbage, and longer than the heap grows
	})
}

// fleets measures what an image costs in fleets of different sizes, which take turns.
func fleets(o *options, r *report, name string, sizes []int, runs int, cost func(n int) (float64, error)) error {
	if !o.only.MatchString(name + ": pixferry") {
		return nil
	}
	if err := o.startProfile(); err != nil {
		return err
	}
	costs := make([][]float64, len(sizes))
	for range runs {
		for i, n := range sizes {
			c, err := cost(n)
			if err != nil {
				return fmt.Errorf("%d %s: %w", n, name, err)
			}
			costs[i] = append(costs[i], c)
		}
	}
	// The least is what the work costs; the rest is what else the machine does.
	_, first, _ := spread(costs[0])
	for i, n := range sizes {
		w := row{Suite: "fleet", Case: name, System: fmt.Sprintf("pixferry, %d", n), Role: ours, Unit: "µs of CPU an image"}
		w.Median, w.Min, w.Max = spread(costs[i])
		if i > 0 {
			w.Ratio, w.Want, w.AtMost = w.Min/first, fleetWant, true
		}
		r.figure(w)
	}
	return nil
}

// realFleet has sessions with one udpx listener send images in turn, and returns the CPU time
// that each image takes, in microseconds.
func realFleet(ctx context.Context, n, images int) (float64, error) {
	var kept atomic.Int64
	p, err := openUDPParty(ctx, &transport.Server{Store: nowhere{}, Handler: func(context.Context, *transport.Incoming) error {
		kept.Add(1)
		return nil
	}}, n)
	if err != nil {
		return 0, err
	}
	defer p.close()
	if err := p.sendEach(ctx, fleetImage); err != nil {
		return 0, err
	}
	kept.Store(0)
	group, ctx := errgroup.WithContext(ctx)
	period := time.Duration(n) * time.Second / fleetRate
	began, cpu := time.Now(), cpuTime()
	for i, c := range p.conns {
		group.Go(func() error {
			due := began.Add(period * time.Duration(i) / time.Duration(n))
			for range share(images, n, i) {
				time.Sleep(time.Until(due))
				if _, err := c.Send(ctx, &transport.Image{Name: "image", MediaType: "image/jpeg", Body: transport.Bytes(image(fleetImage))}, nil); err != nil {
					return err
				}
				due = due.Add(period)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	if kept.Load() != int64(images) {
		return 0, fmt.Errorf("%d of %d images are kept", kept.Load(), images)
	}
	return float64((cpuTime() - cpu).Microseconds()) / float64(images), nil
}

// modelFleet is the same for engines on one clock. It returns the time in the engines alone: the
// simulation around them costs more with each one.
func modelFleet(n, images int) (float64, error) {
	clock, r := sim.NewClock(), rand.New(rand.NewPCG(1, 2))
	link := sim.Config{Delay: 25 * time.Millisecond}
	flows, kept, shared := make([]*flow, n), 0, new(medium)
	for i := range flows {
		f := newFlow(clock, r, sim.NewLink(link, r), sim.NewLink(link, r), nil)
		f.ends[0].medium, f.ends[1].medium = shared, shared
		flows[i] = f
		clock.After(fleetPeriod*time.Duration(i)/time.Duration(n), func() {
			every(clock, fleetPeriod, func() { f.send(fleetImage, func() { kept++ }) })
		})
	}
	run := func(rounds int) {
		for end := clock.Now().Add(time.Duration(rounds) * fleetPeriod); clock.Step(end); {
		}
	}
	run(1)
	clock.After(time.Second, func() {}) // between two images of a session
	clock.Step(clock.Now().Add(time.Second))
	kept = 0
	for _, f := range flows {
		f.spent = 0
	}
	rounds := images / n
	run(rounds)
	var spent time.Duration
	for _, f := range flows {
		spent += f.spent
	}
	if off := kept - rounds*n; off < -n/10 || off > n/10 {
		return 0, fmt.Errorf("%d of %d images are kept", kept, rounds*n)
	}
	return spent.Seconds() * 1e6 / float64(kept), nil
}
