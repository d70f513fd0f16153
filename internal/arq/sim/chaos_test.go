package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/parity"
	"github.com/pixferry/pixferry/internal/wire"
)

// TestChaos lets both ends of a session send, cancel and refuse at random over links of every kind whose limits
// change meanwhile, with windows of any size. Every transfer ends once the faults stop, with the right bytes, and
// nothing is left of it. A failing seed N replays with
//
//	go test ./internal/arq/sim -run TestChaos -seed N -v
func TestChaos(t *testing.T) {
	t.Parallel()
	if *seedFlag != 0 {
		runChaos(t, *seedFlag, true)
		return
	}
	for i := range *seedsFlag / 2 {
		runChaos(t, *firstFlag+i, false)
	}
}

func runChaos(t *testing.T, seed uint64, verbose bool) {
	w := newWorld(seed)
	began := w.clock.Now()
	w.fail = func(f string, a ...any) { panic(failure(fmt.Sprintf(f, a...))) }
	if verbose {
		w.log = func(f string, a ...any) { t.Logf("%12v  %s", w.clock.Now().Sub(began), fmt.Sprintf(f, a...)) }
	}
	defer func() {
		if f, ok := recover().(failure); ok {
			t.Errorf("at %v: %s\nreplay: go test ./internal/arq/sim -run TestChaos -seed %d -v", w.clock.Now().Sub(began), string(f), seed)
		}
	}()
	m := newMess(w)
	limit, steps := began.Add(m.until+6*time.Hour), 0
	w.clock.After(m.until, func() {})
	for !m.a.idle() || !m.b.idle() || w.clock.Now().Before(began.Add(m.until)) {
		if steps++; !w.clock.Step(limit) || steps > 1_000_000 {
			w.fail("%d steps, and not at its end:\n%+v\n%+v", steps, m.a, m.b)
		}
	}
	w.log("done: %+v\n%+v", m.a.Stats(), m.b.Stats())
}

// mess is two ends, and what happens to their link.
type mess struct {
	a, b  *member
	until time.Duration // faults stop
}

func newMess(w *world) *mess {
	r := w.rand
	chance := func(p float64) bool { return r.Float64() < p }
	m := &mess{a: &member{w: w, name: "a"}, b: &member{w: w, name: "b"}, until: w.upTo(20 * time.Second)}
	cfg := Config{Rate: int64(mbit * (0.3 + 20*r.Float64()*r.Float64())), Delay: time.Millisecond + w.upTo(time.Duration(r.Float64()*float64(200*time.Millisecond)))}
	cfg.Queue = max(int64(float64(cfg.BDP())*(0.5+4*r.Float64())), 20_000)
	ordered, reliable := chance(0.4), false
	if reliable = ordered && chance(0.4); reliable {
		cfg.Queue = 1 << 30
	} else {
		cfg.Loss = Bernoulli(0.3 * r.Float64() * r.Float64())
	}
	if !ordered {
		cfg.Jitter, cfg.Duplicate, cfg.Corrupt = w.upTo(cfg.Delay/4), 0.2*r.Float64(), 0.05*r.Float64()
		cfg.Reorder, cfg.ReorderBy = 0.2*r.Float64(), w.upTo(3*cfg.Delay)
	}
	ea, eb := w.path(cfg, cfg)
	ea.late, eb.late, ea.batch, eb.batch = w.upTo(5*time.Millisecond), w.upTo(5*time.Millisecond), w.upTo(2*time.Millisecond), w.upTo(2*time.Millisecond)
	base := 1200
	if ordered {
		base = []int{256, 1200, 4000, 9000}[r.IntN(4)]
	}
	if reliable {
		ea.room, eb.room = 20_000, 20_000
	}
	side := func() arq.Config {
		c := arq.Config{Ordered: ordered, Reliable: reliable, MaxMessage: base, Local: hello(), ReadAhead: 1 + r.IntN(64<<10)}
		l := &c.Local
		l.Window, l.Transfers = uint32(2000+float64(1<<20)*r.Float64()*r.Float64()*r.Float64()), uint16(1+r.IntN(8))
		if chance(0.3) {
			l.Messages = uint16(1 + r.IntN(10))
		}
		if chance(0.3) {
			l.AckRanges = uint16(1 + r.IntN(4))
		}
		if chance(0.2) {
			l.Reorder = uint32(r.IntN(20_000))
		}
		if chance(0.3) {
			c.FirstWindow = 1 + r.IntN(100_000)
		}
		if !reliable && chance(0.5) {
			c.Sizes = []int{1400, 8900}
		}
		if !ordered && chance(0.7) {
			c.Coder = &parity.Coder{}
		}
		return c
	}
	ca, cb := side(), side()
	if !ordered {
		ca.PadHello, cb.Unproven = 1200, true
	}
	ca.Initiator, ca.LocalCID, ca.RemoteCID = true, w.cid(), w.cid()
	m.a.begin(ea, ca)
	cb.LocalCID = w.cid()
	eb.listen = func(h *wire.Header) *session {
		if m.b.session != nil { // a late copy of the first message
			return m.b.session
		}
		cb.RemoteCID, cb.FirstCID = h.Source, h.Dest
		m.b.begin(eb, cb)
		return m.b.session
	}
	w.log("ordered %v, reliable %v, %+v\n%+v\n%+v", ordered, reliable, cfg, ca, cb)
	for range 1 + r.IntN(20) {
		x := m.a
		if chance(0.5) {
			x = m.b
		}
		w.clock.After(w.upTo(m.until), x.send)
	}
	if !reliable {
		m.faults(w, base)
	}
	m.a.pump()
	return m
}

// faults plans what comes and goes.
func (m *mess) faults(w *world, base int) {
	r := w.rand
	links := [...]*Link{m.a.ep.out, m.a.ep.peer.out}
	at := func(f func()) { w.clock.After(w.upTo(m.until), f) }
	for range r.IntN(4) {
		which := r.IntN(3)
		at(func() {
			w.log("blackout %d", which)
			links[0].Down(which != 1)
			links[1].Down(which != 0)
			w.clock.After(w.upTo(5*time.Second), func() {
				links[0].Down(false)
				links[1].Down(false)
			})
		})
	}
	for range r.IntN(3) {
		told := r.IntN(2) == 0 || base < 2400
		most := 1200 + r.IntN(8000)
		if told {
			most = 256 + r.IntN(2000)
		}
		at(func() {
			for _, l := range links {
				c := l.Config()
				if c.MTU == 0 || most < c.MTU {
					c.MTU = most
				}
				l.Change(c)
			}
			w.log("nothing over %d bytes, told: %v", most, told)
			for _, x := range [...]*member{m.a, m.b} {
				if told {
					x.limit(most)
				}
			}
		})
	}
	w.clock.After(m.until, func() {
		w.log("faults stop")
		for _, l := range links {
			c := l.Config()
			c.Corrupt, c.Duplicate, c.Reorder, c.Loss = 0, 0, 0, Bernoulli(0.01)
			l.Change(c)
		}
	})
}
