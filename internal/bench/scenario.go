package main

import (
	"fmt"
	"time"

	"github.com/pixferry/pixferry/internal/arq/sim"
)

const mbit = 1e6 / 8 // bytes a second

// maxDatagram is what an Ethernet frame takes.
const maxDatagram = 1472

// A scenario is a simulated link, what goes over it, and how long that may take.
type scenario struct {
	name   string
	rate   float64 // bytes a second
	back   float64 // of the way back; 0: the same
	rtt    time.Duration
	loss   float64
	bursts float64 // length of the losses; 0: each by itself
	faults func(*sim.Config)
	change func(t time.Duration) linkState // for links that change; nil: they do not
	size   int64
	state  state
	want   float64 // the time over the bound; 0: nothing is asked
	window int     // native.Config.Window of pixferry; 0: the default
	wire   float64 // bytes on the wire that are allowed beyond 1.06/(1-loss) + 0.01 of the image's, in parts of it
}

// state is what pixferry knows of the path when it begins.
type state uint8

const (
	cold       state = iota // a new session, whose handshake counts
	live                    // a session that has sent such an image before
	remembered              // a new session between ends that had one before
)

func (s state) String() string { return [...]string{"", ", live session", ", path remembered"}[s] }

// linkState is how a link is at some time.
type linkState struct {
	factor float64 // of the rate
	down   bool
}

var scenarios = []scenario{
	{name: "A 20 Mbit/s 50 ms 0 %", rate: 20 * mbit, rtt: 50 * time.Millisecond, size: 10e6, want: 1.08},
	{name: "B 20 Mbit/s 50 ms 1 %", rate: 20 * mbit, rtt: 50 * time.Millisecond, loss: 0.01, size: 10e6, want: 1.09},
	{name: "C 20 Mbit/s 50 ms 5 %", rate: 20 * mbit, rtt: 50 * time.Millisecond, loss: 0.05, size: 10e6, want: 1.12},
	{name: "D 20 Mbit/s 50 ms 10 %", rate: 20 * mbit, rtt: 50 * time.Millisecond, loss: 0.10, size: 10e6, want: 1.15},
	{name: "G 20 Mbit/s 50 ms 30 %", rate: 20 * mbit, rtt: 50 * time.Millisecond, loss: 0.30, size: 10e6, want: 1.25},
	{name: "E 100 Mbit/s 200 ms 1 %", rate: 100 * mbit, rtt: 200 * time.Millisecond, loss: 0.01, size: 10e6, want: 2.6, wire: 0.04},
	{name: "E 100 Mbit/s 200 ms 1 %", rate: 100 * mbit, rtt: 200 * time.Millisecond, loss: 0.01, size: 10e6, state: live, want: 1.25},
	{name: "E 100 Mbit/s 200 ms 1 %", rate: 100 * mbit, rtt: 200 * time.Millisecond, loss: 0.01, size: 10e6, state: remembered, want: 1.5},
	{name: "F 2 Mbit/s 600 ms 2 %", rate: 2 * mbit, rtt: 600 * time.Millisecond, loss: 0.02, size: 10e6, want: 1.10},
	{name: "H 1 Gbit/s 1 ms 0.1 %", rate: 1000 * mbit, rtt: time.Millisecond, loss: 0.001, size: 10e6, want: 1.15},
	{name: "LAN 1 Gbit/s 300 us 0.1 %, queue of 128 KiB", rate: 1000 * mbit, rtt: 300 * time.Microsecond, loss: 0.001, size: 10e6, want: 1.15,
		faults: func(c *sim.Config) { c.Queue = 128 << 10 }},
	{name: "LAN 100 Mbit/s 300 us, queue of 64 KiB", rate: 100 * mbit, rtt: 300 * time.Microsecond, size: 10e6, want: 1.15,
		faults: func(c *sim.Config) { c.Queue = 64 << 10 }},
	{name: "LAN 100 Mbit/s 300 us, queue of 16 KiB", rate: 100 * mbit, rtt: 300 * time.Microsecond, size: 10e6, want: 1.15,
		faults: func(c *sim.Config) { c.Queue = 16 << 10 }},
	{name: "LAN 20 Mbit/s 900 us 1 %, queue of 32 KiB", rate: 20 * mbit, rtt: 900 * time.Microsecond, loss: 0.01, size: 10e6, want: 1.15,
		faults: func(c *sim.Config) { c.Queue = 32 << 10 }},
	{name: "LAN 20 Mbit/s 900 us, queue of 8 KiB", rate: 20 * mbit, rtt: 900 * time.Microsecond, size: 10e6, want: 1.15,
		faults: func(c *sim.Config) { c.Queue = 8 << 10 }},
	{name: "20 Mbit/s 50 ms 5 % in bursts of 4", rate: 20 * mbit, rtt: 50 * time.Millisecond, loss: 0.05, bursts: 4, size: 10e6, want: 1.25},
	{name: "satellite 250/3 Mbit/s 600 ms 1.5 %, 100 MB", rate: 250 * mbit, back: 3 * mbit, rtt: 600 * time.Millisecond, loss: 0.015, size: 100e6, want: 2.0},
	{name: "satellite, as above, Window 40 MiB", rate: 250 * mbit, back: 3 * mbit, rtt: 600 * time.Millisecond, loss: 0.015, size: 100e6, want: 2.0, window: 40 << 20},
	{name: "20 Mbit/s 50 ms, 10 % up to 10 ms late", rate: 20 * mbit, rtt: 50 * time.Millisecond, size: 10e6,
		faults: func(c *sim.Config) { c.Reorder, c.ReorderBy = 0.1, 10*time.Millisecond }},
	{name: "20 Mbit/s 50 ms, 10 % twice", rate: 20 * mbit, rtt: 50 * time.Millisecond, size: 10e6, faults: func(c *sim.Config) { c.Duplicate = 0.1 }},
	{name: "125 ms", rate: 20 * mbit, rtt: 125 * time.Millisecond, loss: 0.01, size: 10e6, want: 1.5},
	{name: "300 ms", rate: 20 * mbit, rtt: 300 * time.Millisecond, loss: 0.01, size: 10e6, want: 1.5},
	{name: "blackout of 5 s after 2 s, 125 ms", rate: 20 * mbit, rtt: 125 * time.Millisecond, size: 10e6, want: 1.5,
		change: func(t time.Duration) linkState {
			return linkState{1, t >= 2*time.Second && t < 7*time.Second}
		}},
	{name: "half the rate after 2 s, 125 ms", rate: 20 * mbit, rtt: 125 * time.Millisecond, size: 10e6, want: 1.5,
		change: func(t time.Duration) linkState { return linkState{factor: after(t, 2*time.Second, 0.5)} }},
	{name: "twice the rate after 2 s, 125 ms", rate: 20 * mbit, rtt: 125 * time.Millisecond, size: 20e6, want: 1.5,
		change: func(t time.Duration) linkState { return linkState{factor: after(t, 2*time.Second, 2)} }},
}

func after(t, from time.Duration, factor float64) float64 {
	if t < from {
		return 1
	}
	return factor
}

// bound is the time that no protocol can beat.
func (s *scenario) bound() time.Duration {
	rate := s.rate * (1 - s.loss)
	if s.change == nil {
		return time.Duration(float64(s.size)/rate*float64(time.Second)) + s.rtt
	}
	const step = time.Millisecond
	at := time.Duration(0)
	for left := float64(s.size); left > 0; at += step {
		if now := s.change(at); !now.down {
			left -= rate * now.factor * step.Seconds()
		}
	}
	return at + s.rtt
}

// mostWire is how many bytes may be sent for each of the image.
func (s *scenario) mostWire() float64 { return 1.06/(1-s.loss) + 0.01 + s.wire }

// links returns the configurations of both directions, each with a queue of one
// bandwidth-delay product.
func (s *scenario) links() (there, back sim.Config) {
	make := func(rate float64) sim.Config {
		c := sim.Config{Rate: int64(rate), Delay: s.rtt / 2, MTU: maxDatagram, Loss: sim.Bernoulli(s.loss)}
		if s.bursts > 0 {
			c.Loss = sim.Bursts(s.loss, s.bursts)
		}
		if s.faults != nil {
			s.faults(&c)
		}
		return c
	}
	if s.back == 0 {
		return make(s.rate), make(s.rate)
	}
	there, back = make(s.rate), make(s.back)
	back.Queue = max(back.BDP(), 64<<10)
	return there, back
}

// apply sets a link to its state.
func (s linkState) apply(l *sim.Link, normal sim.Config) {
	c := normal
	if c.Queue == 0 {
		c.Queue = c.BDP()
	}
	c.Rate = int64(float64(c.Rate) * s.factor)
	l.Change(c)
	l.Down(s.down)
}

// outcome is what one transfer took.
type outcome struct {
	ratio float64 // the time over the bound
	wire  float64 // bytes sent over those of the image
}

func (s *scenario) outcome(took time.Duration, sent int64) outcome {
	return outcome{took.Seconds() / s.bound().Seconds(), float64(sent) / float64(s.size)}
}

func (s *scenario) title() string { return fmt.Sprint(s.name, s.state) }
