package mqttx

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// A baseParty is one end of a simulated transfer: it is given messages and the time, and
// says something.
type baseParty interface {
	receive(p []byte, now time.Time) [][]byte
	tick(now time.Time) [][]byte
	deadline() time.Time // zero: none
}

// A baseSim moves messages between a server and a BASE in virtual time, in order, unless
// a fault is put on one.
type baseSim struct {
	testing.TB
	now          time.Time
	latency      time.Duration
	server, base baseParty
	queue        []simMessage // by time
	said         [2]int       // messages so far, by direction
	fault        func(toBase bool, n int, p []byte) (copies int, late time.Duration, changed []byte)
	log          []string
}

type simMessage struct {
	at     time.Time
	toBase bool
	p      []byte
}

func newBaseSim(t testing.TB, server, base baseParty) *baseSim {
	return &baseSim{TB: t, now: time.Unix(1e9, 0), latency: time.Millisecond, server: server, base: base}
}

// put has messages arrive at the other side.
func (s *baseSim) put(toBase bool, messages [][]byte) {
	for _, p := range messages {
		s.log = append(s.log, fmt.Sprintf("%v %v %.16x", s.now.Sub(time.Unix(1e9, 0)), toBase, p))
		i := 0
		if toBase {
			i = 1
		}
		n := s.said[i]
		s.said[i]++
		copies, late := 1, time.Duration(0)
		if s.fault != nil {
			copies, late, p = s.fault(toBase, n, p)
		}
		for range copies {
			m := simMessage{s.now.Add(s.latency + late), toBase, p}
			i := len(s.queue)
			for i > 0 && s.queue[i-1].at.After(m.at) {
				i--
			}
			s.queue = append(s.queue[:i], append([]simMessage{m}, s.queue[i:]...)...)
		}
	}
}

// run goes on until nothing is left to do, or for a time, and reports whether it was the
// former.
func (s *baseSim) run(most time.Duration) bool {
	s.Helper()
	for end := s.now.Add(most); ; {
		next, who := time.Time{}, baseParty(nil)
		for _, p := range []baseParty{s.server, s.base} {
			if at := p.deadline(); !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next, who = at, p
			}
		}
		message := len(s.queue) > 0 && (next.IsZero() || !s.queue[0].at.After(next))
		if message {
			next = s.queue[0].at
		}
		switch {
		case next.IsZero():
			return true
		case next.After(end):
			s.now = end
			return false
		case next.After(s.now):
			s.now = next
		}
		switch {
		case s.said[0]+s.said[1] > 1_000_000:
			s.Fatal("a storm of messages")
		case message:
			m := s.queue[0]
			s.queue = s.queue[1:]
			if m.toBase {
				s.put(false, s.base.receive(m.p, s.now))
			} else {
				s.put(true, s.server.receive(m.p, s.now))
			}
		default:
			s.put(who == s.server, who.tick(s.now))
		}
	}
}

// A simServer is pixferry's sender.
type simServer struct {
	*baseSender
	name  string
	image []byte
	size  int
	order []int // packages as they were first said
	dones int   // how often finished was said
}

func newSimServer(b *Base, name string, image []byte, now time.Time) *simServer {
	size := b.packageSize()
	return &simServer{baseSender: b.newSender((len(image)+size-1)/size, now), name: name, image: image, size: size}
}

func (s *simServer) say(send bool) [][]byte {
	if !send {
		return nil
	}
	m := BaseMessage{Function: s.newest.function}
	switch m.Function {
	case BaseBegin:
		m.Data = fmt.Appendf(nil, "%s;%d", s.name, len(s.image))
	case BaseData:
		m.Number = s.newest.index
		s.order = append(s.order, m.Number)
		m.Data = s.image[m.Number*s.size : min((m.Number+1)*s.size, len(s.image))]
	case BaseFinished:
		s.dones++
	}
	p, _ := m.Append(nil)
	return [][]byte{p}
}

func (s *simServer) receive(p []byte, now time.Time) [][]byte {
	return s.say(s.baseSender.receive(p, now))
}
func (s *simServer) tick(now time.Time) [][]byte { return s.say(s.baseSender.tick(now)) }
func (s *simServer) deadline() time.Time {
	if s.ended() {
		return time.Time{}
	}
	return s.baseSender.deadline()
}

// A simBase is pixferry's BASE, which keeps what is whole.
type simBase struct {
	*baseReceiver
	refuse bool          // every begin
	slow   time.Duration // to keep an image
	ready  time.Time     // when the image that is finishing is kept
	image  []byte
	kept   [][]byte
	lost   []error
	prefix [][]byte
	asks   []time.Time
	overs  int
}

func (b *simBase) do(t baseTurn, now time.Time) (out [][]byte) {
	if t.lost != nil {
		b.lost = append(b.lost, t.lost)
		b.prefix = append(b.prefix, bytes.Clone(b.image[:t.prefix]))
	}
	switch {
	case t.begin && b.refuse:
		t = b.ended(false, now)
	case t.begin:
		b.image = make([]byte, b.head.Size)
	case t.data != nil:
		copy(b.image[t.offset:], t.data)
	case t.finish:
		b.ready = now.Add(b.slow)
	}
	switch {
	case t.answer.Function == 0:
		return nil
	case t.answer.Function == BaseFinished:
		b.overs++
	case !t.answer.Whole:
		b.asks = append(b.asks, now)
	}
	return [][]byte{t.answer.Append(nil)}
}

func (b *simBase) receive(p []byte, now time.Time) [][]byte {
	t, _ := b.baseReceiver.receive(p, now)
	return b.do(t, now)
}

func (b *simBase) tick(now time.Time) [][]byte {
	if b.state == baseFinishing {
		b.kept = append(b.kept, b.image)
		return b.do(b.ended(true, now), now)
	}
	return b.do(b.baseReceiver.tick(now), now)
}

func (b *simBase) deadline() time.Time {
	if b.state == baseFinishing {
		return b.ready
	}
	return b.baseReceiver.deadline()
}

// transfer runs one image of pixferry's sender to a BASE, and returns the sender.
func (s *baseSim) transfer(b *Base, name string, image []byte, most time.Duration) *simServer {
	s.Helper()
	server := newSimServer(b, name, image, s.now)
	s.server = server
	s.put(true, server.say(true))
	for end := s.now.Add(most); !server.ended(); {
		if s.now.Equal(end) || s.run(time.Second) && !server.ended() {
			s.Fatalf("the sender has not ended after %v", most)
		}
	}
	return server
}

func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestBaseBothSides(t *testing.T) {
	for _, b := range []*Base{{}, {ZeroBased: true}, {LastFirst: true}, {LastFirst: true, ZeroBased: true}, {PackageSize: 1}, {PackageSize: 32767}} {
		for _, n := range []int{1, 2, 1399, 1400, 1401, 2800, 30_000} {
			base := &simBase{baseReceiver: b.newReceiver()}
			s := newBaseSim(t, nil, base)
			image := pattern(uint64(n), n)
			server := s.transfer(b, "a.jpg", image, time.Hour)
			if server.err != nil || len(base.kept) != 1 || !bytes.Equal(base.kept[0], image) || len(base.lost) > 0 {
				t.Fatalf("%+v, %d bytes: %v, kept %d, lost %v", b, n, server.err, len(base.kept), base.lost)
			}
			extra := 0
			if b.LastFirst {
				extra = 1
			}
			if len(server.order) != server.packages+extra || server.dones != 1 {
				t.Errorf("%+v, %d bytes: %d packages of %d were sent, %d times finished", b, n, len(server.order), server.packages, server.dones)
			}
		}
	}
}

// TestBaseFaultOnEach has each message, either way, suffer each fault in turn. The next
// image must work.
func TestBaseFaultOnEach(t *testing.T) {
	image, other := pattern(1, 5000), pattern(2, 5001)
	faults := map[string]func(p []byte) (int, time.Duration, []byte){
		"lost":       func(p []byte) (int, time.Duration, []byte) { return 0, 0, p },
		"doubled":    func(p []byte) (int, time.Duration, []byte) { return 2, 0, p },
		"late":       func(p []byte) (int, time.Duration, []byte) { return 1, 7 * time.Second, p },
		"a bit late": func(p []byte) (int, time.Duration, []byte) { return 2, 2500 * time.Microsecond, p },
		"cut":        func(p []byte) (int, time.Duration, []byte) { return 1, 0, p[:len(p)-1] },
		"empty":      func(p []byte) (int, time.Duration, []byte) { return 1, 0, nil },
		"long":       func(p []byte) (int, time.Duration, []byte) { return 1, 0, append(bytes.Clone(p), 0) },
		"magic":      func(p []byte) (int, time.Duration, []byte) { return 1, 0, flipped(p, 0) },
		"function":   func(p []byte) (int, time.Duration, []byte) { return 1, 0, flipped(p, 4) },
		"number":     func(p []byte) (int, time.Duration, []byte) { return 1, 0, flipped(p, 6) },
		"status":     func(p []byte) (int, time.Duration, []byte) { return 1, 0, flipped(p, 7) },
	}
	for name, fault := range faults {
		for _, toBase := range []bool{true, false} {
			for at := range 8 {
				for _, b := range []*Base{{}, {LastFirst: true}} {
					base := &simBase{baseReceiver: b.newReceiver()}
					s := newBaseSim(t, nil, base)
					s.fault = func(dir bool, n int, p []byte) (int, time.Duration, []byte) {
						if dir == toBase && n == at {
							return fault(p)
						}
						return 1, 0, p
					}
					server := s.transfer(b, "a.jpg", image, 2*time.Minute)
					if server.err == nil && (len(base.kept) == 0 || !bytes.Equal(base.kept[0], image)) {
						t.Errorf("%s, to BASE %v, message %d: the sender is content, BASE has not kept it", name, toBase, at)
					}
					s.fault = nil
					s.run(2 * time.Minute) // all is quiet then
					next := s.transfer(b, "b.jpg", other, 2*time.Minute)
					if next.err != nil || !bytes.Equal(base.kept[len(base.kept)-1], other) {
						t.Errorf("%s, to BASE %v, message %d: the next image: %v", name, toBase, at, next.err)
					}
					for _, got := range base.kept {
						if !bytes.Equal(got, image) && !bytes.Equal(got, other) {
							t.Errorf("%s, to BASE %v, message %d: BASE keeps a wrong image", name, toBase, at)
						}
					}
				}
			}
		}
	}
}

func flipped(p []byte, i int) []byte {
	p = bytes.Clone(p)
	p[i] ^= 0x55
	return p
}

// TestBaseLoss is a medium that loses, doubles and delays at random.
func TestBaseLoss(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		b := &Base{Attempts: 20, LastFirst: rng.IntN(2) == 0}
		base := &simBase{baseReceiver: b.newReceiver(), slow: time.Duration(rng.IntN(12)) * time.Second}
		s := newBaseSim(t, nil, base)
		loss := rng.Float64() * 0.3
		s.fault = func(_ bool, _ int, p []byte) (int, time.Duration, []byte) {
			switch f := rng.Float64(); {
			case f < loss:
				return 0, 0, p
			case f < loss+0.1:
				return 2, 0, p
			case f < loss+0.15:
				return 1, time.Duration(rng.IntN(8000)) * time.Millisecond, p
			}
			return 1, time.Duration(rng.IntN(1000)) * time.Microsecond, p
		}
		for i := range 3 {
			image := pattern(seed*10+uint64(i), 1+rng.IntN(30_000))
			kept, lost := len(base.kept), len(base.lost)
			server := s.transfer(b, fmt.Sprint(i), image, time.Hour)
			if server.err != nil {
				t.Errorf("seed %d, image %d: %v", seed, i, server.err)
			} else if len(base.lost) == lost && (len(base.kept) == kept || !bytes.Equal(base.kept[len(base.kept)-1], image)) {
				t.Errorf("seed %d, image %d: the sender is content, BASE has neither kept the image nor reported its loss", seed, i)
			}
			for _, got := range base.kept[kept:] {
				if !bytes.Equal(got, image) {
					t.Errorf("seed %d, image %d: BASE keeps a wrong image", seed, i)
				}
			}
			s.run(2 * time.Minute)
		}
	}
}

func TestBaseSilence(t *testing.T) {
	nobody := silent{}
	for _, tt := range []struct {
		attempts int
		want     time.Duration // 0: never
	}{{0, time.Minute}, {1, 5 * time.Second}, {3, 15 * time.Second}, {-1, 0}} {
		b := &Base{Attempts: tt.attempts}
		s := newBaseSim(t, nil, nobody)
		server := newSimServer(b, "a", pattern(1, 10), s.now)
		s.server = server
		began := s.now
		s.put(true, server.say(true))
		s.run(24 * time.Hour)
		switch took := s.now.Sub(began); {
		case tt.want == 0 && (server.ended() || s.said[1] < 17_000):
			t.Errorf("without a limit: %v after %v", server.err, took)
		case tt.want != 0 && (server.err == nil || took != tt.want):
			t.Errorf("%d attempts: %v after %v", tt.attempts, server.err, took)
		}
	}
}

// silent is a party that says nothing.
type silent struct{}

func (silent) receive([]byte, time.Time) [][]byte { return nil }
func (silent) tick(time.Time) [][]byte            { return nil }
func (silent) deadline() time.Time                { return time.Time{} }
