package sim

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/parity"
	"github.com/pixferry/pixferry/internal/wire"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "replay one seed of TestSim or TestChaos, with its timeline")
	seedsFlag = flag.Uint64("seeds", 60, "how many seeds TestSim runs; TestChaos half of them")
	firstFlag = flag.Uint64("first", 1, "the first of them")
	longFlag  = flag.Bool("long", false, "all paths and queues, five seeds each, in the tests of speed and fairness")
)

// scenario is what a seed stands for.
type scenario struct {
	there, back Config
	ordered     bool // a link in order that drops, as a broker
	faults      bool // other than loss
	until       time.Duration
	sender      *sender
	receiver    *receiver
	a, b        *endpoint
}

// TestSim runs whole sessions over bad links, with crashes and restarts of both sides, and checks: no
// image is ever delivered partial or wrong, each completes exactly once, little is sent twice, memory is
// bounded, and everything completes once the faults stop. A failing seed N replays with
//
//	go test ./internal/arq/sim -run TestSim -seed N -v
func TestSim(t *testing.T) {
	t.Parallel()
	if *seedFlag != 0 {
		simulate(t, *seedFlag, true)
		return
	}
	for i := range *seedsFlag {
		simulate(t, *firstFlag+i, false)
	}
}

type failure string

func simulate(t *testing.T, seed uint64, verbose bool) {
	w := newWorld(seed)
	began := w.clock.Now()
	w.fail = func(f string, a ...any) { panic(failure(fmt.Sprintf(f, a...))) }
	if verbose {
		w.log = func(f string, a ...any) {
			t.Logf("%12v  %s", w.clock.Now().Sub(began), fmt.Sprintf(f, a...))
		}
	}
	defer func() {
		if f, ok := recover().(failure); ok {
			t.Errorf("at %v: %s\nreplay: go test ./internal/arq/sim -run TestSim -seed %d -v", w.clock.Now().Sub(began), string(f), seed)
		}
	}()
	s := w.scenario()
	w.log("there %+v, back %+v, ordered %v, faults until %v, %d images", s.there, s.back, s.ordered, s.until, len(s.sender.images))
	s.sender.boot()
	limit := began.Add(s.until + 30*time.Minute)
	for !s.sender.done() {
		if !w.clock.Step(limit) {
			w.fail("not complete: %+v", s.sender.images)
		}
		s.check(w)
	}
	s.finish(w)
}

// scenario draws a link, its faults, and what is sent.
func (w *world) scenario() *scenario {
	r := w.rand
	chance := func(p float64) bool { return r.Float64() < p }
	s := &scenario{ordered: chance(0.2)}
	s.there = Config{Rate: int64(mbit * (1 + 49*r.Float64()*r.Float64())), Delay: time.Millisecond + w.upTo(time.Duration(r.Float64()*float64(300*time.Millisecond)))}
	s.there.Queue = max(int64(float64(s.there.BDP())*(0.25+4*r.Float64())), 10_000)
	loss := 0.0
	if chance(0.8) {
		loss = 0.3 * r.Float64() * r.Float64()
	}
	s.back = s.there
	s.there.Loss, s.back.Loss = Bernoulli(loss), Bernoulli(loss)
	if chance(0.3) {
		s.there.Loss, s.back.Loss = Bursts(loss, 1+5*r.Float64()), Bursts(loss, 1+5*r.Float64())
	}
	if chance(0.3) {
		s.back.Rate /= 50
	}
	s.faults = chance(0.8)
	if s.faults && !s.ordered {
		for _, c := range [...]*Config{&s.there, &s.back} {
			if chance(0.4) {
				c.Reorder, c.ReorderBy = 0.2*r.Float64(), w.upTo(3*c.Delay)
			}
			if chance(0.4) {
				c.Duplicate = 0.2 * r.Float64()
			}
			if chance(0.4) {
				c.Corrupt = 0.05 * r.Float64()
			}
			if chance(0.3) {
				c.LossIn = Bernoulli(0.1 * r.Float64())
			}
			c.Jitter = w.upTo(c.Delay / 4)
		}
	}
	s.a, s.b = w.path(s.there, s.back)
	s.program(w)
	if s.faults {
		s.plan(w)
	}
	return s
}

// program sets up both sides.
func (s *scenario) program(w *world) {
	r := w.rand
	local := hello()
	local.Window = uint32(64<<10 + r.IntN(4<<20))
	first := 0
	if r.IntN(3) == 0 {
		first = 64<<10 + r.IntN(1<<20)
	}
	local.Transfers = uint16(1 + r.IntN(8))
	if r.IntN(4) == 0 {
		local.Messages = uint16(8 + r.IntN(500))
	}
	if r.IntN(4) == 0 {
		local.AckRanges = uint16(1 + r.IntN(10))
	}
	cfg := arq.Config{Ordered: s.ordered, MaxMessage: 1200, PadHello: 1200, Local: local, FirstWindow: first, Linger: time.Minute, ReadAhead: 64 << 10}
	if r.IntN(2) == 0 {
		cfg.Sizes = []int{1400, 4000, 8900}
		if r.IntN(2) == 0 {
			s.there.MTU = 1500
			s.a.out.Change(s.there)
		}
	}
	if r.IntN(3) > 0 {
		cfg.Coder = &parity.Coder{}
	}
	s.a.late, s.b.late = w.upTo(5*time.Millisecond), w.upTo(5*time.Millisecond)
	s.a.batch, s.b.batch = w.upTo(2*time.Millisecond), w.upTo(2*time.Millisecond)
	theirs := cfg
	theirs.Unproven = true
	s.receiver = newReceiver(w, s.b, theirs)
	s.receiver.disk, s.receiver.handler = w.upTo(20*time.Millisecond), w.upTo(500*time.Millisecond)
	if r.IntN(10) == 0 {
		s.receiver.handler = time.Minute
	}
	cfg.Initiator = true
	s.sender = &sender{w: w, ep: s.a, cfg: cfg, r: s.receiver, wait: r.IntN(2) == 0, cubic: r.IntN(3) == 0}
	// As much as the slower of link and CUBIC at this loss moves in some seconds.
	budget := min(float64(s.there.Rate)*5, 4e6)
	for i := range 1 + r.IntN(8) {
		im := &image{size: int64(budget * r.Float64() * r.Float64())}
		im.id[0], im.id[15] = 1, byte(i+1)
		switch r.IntN(6) {
		case 0:
			im.size = int64(r.IntN(3))
		case 1:
			im.flags = wire.OfferInteractive
		case 2:
			im.size = min(im.size, 64<<10)
			im.kind = wire.KindMessage
		case 3, 4:
			im.flags = wire.OfferResume
		}
		s.sender.images = append(s.sender.images, im)
	}
}

// plan draws the faults that come and go: crashes, partitions, changes of the path.
func (s *scenario) plan(w *world) {
	r := w.rand
	s.until = 5*time.Second + w.upTo(20*time.Second)
	s.receiver.rot = 0.1 * r.Float64()
	at := func(f func()) { w.clock.After(w.upTo(s.until), f) }
	for range r.IntN(3) {
		at(func() {
			s.receiver.crash()
			w.clock.After(w.upTo(3*time.Second), s.receiver.boot)
		})
	}
	for range r.IntN(3) {
		at(func() {
			s.sender.crash()
			w.clock.After(w.upTo(3*time.Second), s.sender.boot)
		})
	}
	for range r.IntN(3) {
		which := r.IntN(3)
		at(func() {
			w.log("partition %d", which)
			s.a.out.Down(which != 1)
			s.b.out.Down(which != 0)
			w.clock.After(w.upTo(6*time.Second), func() {
				w.log("mended")
				s.a.out.Down(false)
				s.b.out.Down(false)
			})
		})
	}
	for range r.IntN(3) {
		factor := 0.3 + 2*r.Float64()
		at(func() {
			w.log("rate and delay times %.2f", factor)
			for _, l := range [...]*Link{s.a.out, s.b.out} {
				c := l.Config()
				c.Rate = int64(float64(c.Rate) * factor)
				c.Delay = time.Duration(float64(c.Delay) * factor)
				l.Change(c)
			}
		})
	}
	w.clock.After(s.until, func() {
		w.log("faults stop")
		for _, l := range [...]*Link{s.a.out, s.b.out} {
			c := l.Config()
			c.Corrupt, c.Duplicate, c.Reorder, c.LossIn, c.Loss = 0, 0, 0, nil, Bernoulli(0.01)
			l.Change(c)
		}
	})
}

// check looks at what must hold all the time.
func (s *scenario) check(w *world) {
	window := int(s.receiver.cfg.Local.Window)
	for _, x := range s.b.order {
		waiting := 0
		for _, a := range s.receiver.arrivals[x] {
			for _, ev := range a.queue {
				waiting += len(ev.Data)
			}
		}
		if waiting > window {
			w.fail("b: %d bytes wait with a window of %d", waiting, window)
		}
	}
	if x := s.sender.session; x != nil {
		for _, im := range s.sender.images {
			if most := window + 64<<10 + s.sender.cfg.ReadAhead; im.active && im.pieces > most {
				w.fail("a: %d bytes of one image in memory, at most %d", im.pieces, most)
			}
		}
		if out := x.Stats().Outstanding; out > 2*int64(window)+1<<20 {
			w.fail("a: %d bytes outstanding with a window of %d", out, window)
		}
	}
}

// finish ends a run in which everything is complete.
func (s *scenario) finish(w *world) {
	var total int64
	for _, im := range s.sender.images {
		total += im.size
		if size, ok := s.receiver.committed[im.id]; !ok || size != im.size {
			w.fail("image %x is not kept", im.id[15])
		}
	}
	resent := s.sender.resent
	if x := s.sender.session; x != nil {
		resent += x.Stats().ResentBytes
	}
	w.log("done: %d bytes, %d sent twice, there %+v, back %+v", total, resent, s.a.out.Stats, s.b.out.Stats)
	// (With few ranges in an ACK much is unknown.)
	few := s.sender.cfg.Local.AckRanges < 32
	if lost := s.a.out.Stats.LostBytes; !s.faults && !few && float64(resent) > 1.05*float64(lost)+0.05*float64(total)+50_000 {
		w.fail("%d bytes sent twice, %d lost of %d", resent, lost, total)
	}
	// Without transfers sessions end by themselves and leave nothing behind.
	end := w.clock.Now().Add(5 * time.Minute)
	for w.clock.Step(end) {
	}
	if n := len(s.a.sessions) + len(s.b.sessions); n != 0 {
		w.fail("%d session IDs are left", n)
	}
	if !s.receiver.idle() {
		w.fail("arrivals are left")
	}
}
