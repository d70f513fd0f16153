package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// contender is a system that can do a scenario.
type contender struct {
	name   string
	role   role
	run    func(s *scenario, t *testing.T, seed uint64) (outcome, error)
	states []state
}

var contenders = []contender{
	{"pixferry", ours, bubbled((*scenario).ferry), []state{cold, live, remembered}},
	{"quic-go", peer, bubbled((*scenario).quic), []state{cold, live}},
	{"the engine with cubic", peer, modelled(newCubic), []state{cold, live}},
	{"the engine with Reno", peer, modelled(newReno), []state{cold, live}},
}

// bubbled runs f in virtual time of its own.
func bubbled(f func(s *scenario, t *testing.T, seed uint64) (outcome, error)) func(*scenario, *testing.T, uint64) (outcome, error) {
	return func(s *scenario, t *testing.T, seed uint64) (o outcome, err error) {
		err = inBubble(t, func(t *testing.T) (err error) { o, err = f(s, t, seed); return err })
		return o, err
	}
}

func lossySuite(ctx context.Context, o *options, r *report) error {
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	for i := range scenarios {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := scenarios[i].measure(o, r); err != nil {
			return err
		}
	}
	if err := smallImages(o, r); err != nil {
		return err
	}
	fairness(o, r)
	return nil
}

// seeds is how often a scenario is run, with the seeds from 1 on.
func (o *options) seeds() uint64 {
	if o.quick {
		return 3
	}
	return 5
}

func (s *scenario) measure(o *options, r *report) error {
	var mine float64
	for _, c := range contenders {
		if !slices.Contains(c.states, s.state) || c.role != ours && s.window > 0 || !o.only.MatchString(s.title()+": "+c.name) {
			continue
		}
		var all []outcome
		for seed := uint64(1); seed <= o.seeds(); seed++ {
			one, err := c.run(s, o.t, seed)
			if err != nil {
				return fmt.Errorf("%s, seed %d: %s: %w", s.title(), seed, c.name, err)
			}
			all = append(all, one)
		}
		w := row{Suite: "lossy", Case: s.title(), System: c.name, Role: c.role, Unit: "x the bound", AtMost: true}
		w.Median, w.Min, w.Max = spread(each(all, func(o outcome) float64 { return o.ratio }))
		wire := row{Suite: "lossy", Case: s.title(), System: c.name, Role: c.role, Unit: "bytes sent a byte", AtMost: true}
		wire.Median, wire.Min, wire.Max = spread(each(all, func(o outcome) float64 { return o.wire }))
		if c.role == ours {
			mine = w.Median
			w.Want = s.want
			if s.change == nil {
				wire.Want = s.mostWire()
			}
			r.figure(wire)
		} else {
			w.Note = fmt.Sprintf("%.3g bytes sent a byte", wire.Median)
			if mine > 0 {
				w.Ratio = w.Median / mine // as a ratio of speeds
			}
		}
		r.figure(w)
	}
	return nil
}

// smallImages measures images of 10 KB on a live session over a link that loses 5 %.
func smallImages(o *options, r *report) error {
	const size = 10_000
	s := scenario{name: "10 KB images, live session, 50 ms, 5 %", rate: 20 * mbit, rtt: 50 * time.Millisecond, loss: 0.05, size: size}
	if !o.only.MatchString(s.name + ": pixferry") {
		return nil
	}
	count := 1000
	if o.quick {
		count = 300
	}
	var rounds, wires []float64 // by seed
	for seed := uint64(1); seed <= o.seeds(); seed++ {
		err := inBubble(o.t, func(t *testing.T) error {
			p99, wire, err := s.sendSmall(t, seed, count)
			rounds, wires = append(rounds, p99), append(wires, wire)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s, seed %d: %w", s.name, seed, err)
		}
	}
	w := row{Suite: "lossy", Case: s.name, System: "pixferry", Role: ours, Unit: "RTT (99th percentile)", Want: 2, AtMost: true}
	w.Median, w.Min, w.Max = spread(rounds)
	r.figure(w)
	w.Unit = "bytes sent a byte"
	w.Median, w.Min, w.Max = spread(wires)
	r.figure(w)
	return nil
}

func (s *scenario) sendSmall(t *testing.T, seed uint64, count int) (p99, wire float64, err error) {
	there, back := s.links()
	f, err := newSimFerry(t.Context(), there, back, 0, seed)
	if err != nil {
		return 0, 0, err
	}
	defer f.close()
	conn, err := f.dial(t.Context())
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	img := &transport.Image{Name: "image", MediaType: "image/jpeg", Body: transport.Bytes(image(s.size))}
	const warm = 20
	var times []float64
	var sent int64
	for i := range warm + count {
		if i == warm {
			sent = f.sockets[0].sent()
		}
		began := time.Now()
		if _, err := conn.Send(t.Context(), img, nil); err != nil {
			return 0, 0, err
		}
		if i >= warm {
			times = append(times, time.Since(began).Seconds()/s.rtt.Seconds())
		}
		time.Sleep(100 * time.Millisecond)
	}
	slices.Sort(times)
	return times[len(times)*99/100], float64(f.sockets[0].sent()-sent) / float64(count) / float64(s.size), nil
}
