package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
)

// world is what all parts of one simulation share.
type world struct {
	clock *Clock
	rand  *rand.Rand
	log   func(format string, a ...any)
	fail  func(format string, a ...any)
}

func newWorld(seed uint64) *world {
	return &world{clock: NewClock(), rand: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)),
		log: func(string, ...any) {}, fail: func(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }}
}

func (w *world) cid() wire.ConnID { return wire.ConnID(w.rand.Uint64() | 1) }

// upTo returns a random time up to d.
func (w *world) upTo(d time.Duration) time.Duration {
	return time.Duration(w.rand.Float64() * float64(d))
}

// endpoint is an address: it takes messages from the path, in batches, hands them to the sessions and
// drives those.
type endpoint struct {
	w    *world
	name string
	out  *Link
	peer *endpoint

	batch time.Duration // messages wait up to so long for others
	late  time.Duration // timers fire up to so late
	inbox [][]byte
	flush *Timer

	sessions map[wire.ConnID]*session
	order    []*session // for reproducible iteration
	listen   func(h *wire.Header) *session
	down     bool  // crashed: what arrives is lost
	room     int64 // the medium takes more while less than this is queued in it; 0: always
	free     [][]byte
}

// session is an engine, its timer and its owner.
type session struct {
	*arq.Engine
	ep    *endpoint
	timer *Timer
	again bool // it is polled when the medium takes more
	ids   []wire.ConnID
	owner func(arq.Event)
	gone  bool
}

func (ep *endpoint) add(cfg arq.Config, owner func(arq.Event)) *session {
	s := &session{Engine: arq.New(cfg, ep.w.clock.Now()), ep: ep, owner: owner, ids: []wire.ConnID{cfg.LocalCID}}
	if cfg.FirstCID != 0 {
		s.ids = append(s.ids, cfg.FirstCID)
	}
	for _, id := range s.ids {
		ep.sessions[id] = s
	}
	ep.order = append(ep.order, s)
	return s
}

func (s *session) remove() {
	if s.gone {
		return
	}
	s.gone = true
	s.timer.Stop()
	for _, id := range s.ids {
		if s.ep.sessions[id] == s {
			delete(s.ep.sessions, id)
		}
	}
	s.ep.order = slices.DeleteFunc(s.ep.order, func(o *session) bool { return o == s })
}

// crash forgets every session at once.
func (ep *endpoint) crash() {
	ep.down = true
	for _, s := range slices.Clone(ep.order) {
		s.remove()
	}
	ep.inbox = nil
}

// write sends a message on the path.
func (ep *endpoint) write(msg []byte) {
	var arrivals [4]Delivery
	for _, d := range ep.out.Transmit(ep.w.clock.Now(), len(msg), arrivals[:0]) {
		copied := append(ep.peer.buffer(), msg...)
		if d.Corrupt {
			copied[ep.w.rand.IntN(len(copied))] ^= byte(1 + ep.w.rand.IntN(255))
		}
		ep.w.clock.At(d.At, func() { ep.peer.arrive(copied) })
	}
}

func (ep *endpoint) buffer() []byte {
	if n := len(ep.free); n > 0 {
		b := ep.free[n-1]
		ep.free = ep.free[:n-1]
		return b[:0]
	}
	return make([]byte, 0, 1500)
}

func (ep *endpoint) arrive(msg []byte) {
	if ep.down {
		return
	}
	ep.inbox = append(ep.inbox, msg)
	if ep.flush == nil {
		ep.flush = ep.w.clock.After(ep.w.upTo(ep.batch), ep.deliver)
	}
}

// deliver hands a batch to the sessions.
func (ep *endpoint) deliver() {
	ep.flush = nil
	batch := ep.inbox
	ep.inbox = nil
	var touched []*session
	for _, msg := range batch {
		s := ep.find(msg)
		if s == nil {
			continue
		}
		s.Receive(ep.w.clock.Now(), msg)
		s.drain()
		if !slices.Contains(touched, s) {
			touched = append(touched, s)
		}
	}
	for _, s := range touched {
		s.pump()
	}
	ep.free = append(ep.free, batch...)
}

// find returns the session of a message: a known one, a new one, or none and a RESET.
func (ep *endpoint) find(msg []byte) *session {
	id, long, ok := wire.PeekDest(msg)
	if !ok {
		return nil
	}
	if s := ep.sessions[id]; s != nil {
		return s
	}
	h, _, err := wire.Parse(msg)
	if err != nil {
		return nil
	}
	if !long {
		if ep.listen != nil {
			answer := wire.Header{Long: true, Version: wire.VersionNone}
			ep.write(wire.Seal((&wire.Reset{Dest: id, Number: h.Number}).Append(answer.Append(nil))))
		}
		return nil
	}
	if h.Version == wire.VersionNone {
		for _, s := range ep.order {
			s.Receive(ep.w.clock.Now(), msg)
			s.pump()
			break
		}
		return nil
	}
	if ep.listen == nil {
		return nil
	}
	return ep.listen(&h)
}

// drain hands the events to the owner.
func (s *session) drain() {
	for {
		ev := s.NextEvent()
		if ev == nil || s.gone {
			return
		}
		s.owner(*ev)
	}
}

// pump does what is to be done after anything has happened.
func (s *session) pump() {
	if s.gone {
		return
	}
	var buf [9000]byte
	now := s.ep.w.clock.Now()
	s.drain()
	for !s.gone && !s.full() {
		n := s.Poll(now, buf[:])
		if n == 0 {
			break
		}
		s.ep.write(buf[:n])
		s.drain()
	}
	if s.gone {
		return
	}
	s.timer.Stop()
	s.timer = nil
	if at := s.Deadline(); !at.IsZero() {
		s.timer = s.ep.w.clock.At(at.Add(s.ep.w.upTo(s.ep.late)), s.fire)
	}
}

// full reports whether the medium takes no more, and has the session polled again when it does.
func (s *session) full() bool {
	ep := s.ep
	if ep.room == 0 {
		return false
	}
	queued := ep.out.Queued(ep.w.clock.Now())
	if queued < ep.room {
		return false
	}
	if !s.again {
		s.again = true
		ep.w.clock.After(time.Duration(float64(queued-ep.room+1)/float64(ep.out.Config().Rate)*float64(time.Second)), func() {
			s.again = false
			s.pump()
		})
	}
	return true
}

func (s *session) fire() {
	if s.gone {
		return
	}
	now := s.ep.w.clock.Now()
	s.Advance(now)
	if at := s.Deadline(); !at.IsZero() && !at.After(now) {
		s.ep.w.fail("%s: the deadline is %v before Advance has run", s.ep.name, now.Sub(at))
	}
	s.pump()
}

// path joins two endpoints.
func (w *world) path(there, back Config) (a, b *endpoint) {
	a = &endpoint{w: w, name: "a", out: NewLink(there, w.rand), sessions: map[wire.ConnID]*session{}}
	b = &endpoint{w: w, name: "b", out: NewLink(back, w.rand), sessions: map[wire.ConnID]*session{}}
	a.peer, b.peer = b, a
	return a, b
}
