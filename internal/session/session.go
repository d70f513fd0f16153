package session

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/arq/cc"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// A Session is one engine, its lock, and the transfers that run on it. Deliver,
// Poll, Deadline, Advance and Fail are for its [Carrier].
type Session struct {
	conn    *Conn
	carrier Carrier
	cid     wire.ConnID
	info    LinkInfo // as of the start
	crew    *crew
	apart   bool // the carrier calls PollApart

	established chan struct{} // closed once the peer's HELLO is known
	ctx         context.Context
	cancel      context.CancelCauseFunc // at the end, with the reason

	mu   sync.Mutex
	eng  *arq.Engine
	out  map[uint16]*sending
	in   map[uint16]*receiving
	peer wire.Hello // once established

	heard  time.Time // when the peer's newest message came
	newest int64     // its number
	unsure bool      // nothing has come since a transfer began after a long silence
	passed bool      // the peer has ended it for want of traffic, while that was unsure or this side stood still; fixed once Err is set

	ready     func(*Conn) // to be called once established
	closing   bool        // close when all is quiet
	closeCode wire.Code
	ended     bool
	failed    bool // it has ended because the medium has
	why       error
	buried    bool        // all were told
	coming    int64       // bytes of the transfers that run to this side
	pooled    atomic.Bool // it has a share of the pool

	fresh *receiving // to be told, after the mutex, which it will want, that there is something to write
}

// newSession returns a session of c that answers the peer whose first message had
// the header first, or with nil begins one itself.
func (c *Conn) newSession(carrier Carrier, first *wire.Header) *Session {
	s := &Session{
		conn: c, carrier: carrier, info: carrier.Info(), cid: wire.ConnID(randomUint64()),
		established: make(chan struct{}),
		out:         make(map[uint16]*sending),
		in:          make(map[uint16]*receiving),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.crew = &c.ep.crew
	s.crew.join()
	cfg := arq.Config{
		Initiator: first == nil,
		Ordered:   s.info.Ordered, Reliable: s.info.Reliable,
		MaxMessage: s.info.MaxMessage, Sizes: s.info.Sizes,
		Local: c.ep.hello(s.info), FirstWindow: c.ep.cfg.Window,
		LocalCID: s.cid, RemoteCID: wire.ConnID(randomUint64()),
		Idle:      c.ep.cfg.IdleTimeout,
		ReadAhead: readAhead(s.info),
		Coder:     c.ep.cfg.Coder,
		Path:      c.ep.paths.recall(s.info.Peer, time.Now()),
	}
	if c.ep.cfg.Cubic {
		cfg.Controller = new(cc.Cubic)
	}
	if !s.info.reliable() { // where what was sent is kept
		cfg.MostSent = int64(max(c.ep.cfg.largest, largestWindow))
	}
	rand.Read(cfg.Local.ResetToken[:])
	if !s.info.Ordered { // datagrams, with a sender's address that anybody can write
		cfg.PadHello, cfg.Unproven = wire.InitialMessage, true
		if crowd, ok := carrier.(crowded); ok {
			cfg.Crowd = uint16(min(crowd.Unproven(), math.MaxUint16))
		}
	}
	if !s.info.Ordered || s.info.reliable() {
		cfg.FirstWindow -= cfg.FirstWindow / 5 // the rest is for what is read ahead, and kept beside the payload, at both ends
	}
	if first != nil {
		cfg.RemoteCID, cfg.FirstCID = first.Source, first.Dest
		if !s.info.reliable() {
			cfg.Linger = max(lingerIdle*cfg.Idle, leastLinger)
		}
	}
	s.heard = time.Now()
	s.eng = arq.New(cfg, s.heard)
	return s
}

// CID is the connection ID that the peer puts into messages to this session.
func (s *Session) CID() wire.ConnID { return s.cid }

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.ctx.Done() }

// Err is why the session has ended, nil before.
func (s *Session) Err() error { return context.Cause(s.ctx) }

// deliverTogether is how many messages are delivered while others wait for the mutex.
const deliverTogether = 64

// Deliver takes messages that arrived together. They lie in the memory of from,
// which Deliver retains if it needs them longer; with a nil from it copies. The
// carrier then looks at Poll and Deadline again. It never blocks.
func (s *Session) Deliver(now time.Time, from *Buffer, msgs ...[]byte) {
	for some := range slices.Chunk(msgs, deliverTogether) {
		s.mu.Lock()
		for _, m := range some {
			_ = s.eng.Receive(now, m) // what it drops it counts
		}
		s.drain(from)
		s.hear(now)
		s.unlock()
	}
}

// hear notes that the peer lives if it has said something new. The mutex is held.
func (s *Session) hear(now time.Time) {
	newest := s.eng.Newest()
	if newest == s.newest {
		return
	}
	s.newest, s.heard = newest, now
	if s.unsure {
		s.unsure = false
		for _, x := range s.out {
			notify(x.wake)
		}
	}
}

// DeliverMoved takes one message from another address than those before and reports
// whether the peer has moved there: everything goes to it from now on. host says that
// not only the port is another.
func (s *Session) DeliverMoved(now time.Time, msg []byte, host bool) (moved bool) {
	s.mu.Lock()
	newest := s.eng.Newest()
	_ = s.eng.Receive(now, msg)
	s.drain(nil)
	if moved = !s.ended && s.eng.Newest() > newest; moved {
		s.eng.Moved(now, len(msg), randomUint64())
		if host {
			s.eng.Rehomed()
		}
	}
	s.hear(now)
	s.unlock()
	return moved
}

// Unanswered reports whether the peer may be out of reach: it acknowledges nothing though it was asked twice.
func (s *Session) Unanswered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eng.Unanswered()
}

// Roamed says that messages leave from another address of this host's from now on. The carrier
// then looks at Poll.
func (s *Session) Roamed(now time.Time) {
	s.mu.Lock()
	s.eng.Roamed(now)
	s.unlock()
}

// Poll builds the next message in buf, of at least MaxMessage bytes, and returns
// its length: 0 if there is none now. What was polled counts as sent, so call it
// only when the medium can take a message.
func (s *Session) Poll(now time.Time, buf []byte) int {
	s.mu.Lock()
	n := s.eng.Poll(now, buf)
	s.drain(nil)
	s.unlock()
	return n
}

// PollEach builds messages behind each other in buf while it has room for one of size bytes, or
// of MaxMessage if that is more. It appends their lengths to lengths, and reports whether there may
// be more messages than room.
func (s *Session) PollEach(now time.Time, buf []byte, size int, lengths []int) (_ []int, full bool) {
	s.mu.Lock()
	defer s.unlock()
	defer s.drain(nil)
	size = max(size, s.eng.MaxMessage())
	for len(buf) >= size {
		n := s.eng.Poll(now, buf[:size])
		if n == 0 {
			return lengths, false
		}
		lengths, buf = append(lengths, n), buf[n:]
	}
	return lengths, true
}

// Parts are a message in up to three places. Whoever has written it releases it.
type Parts struct {
	Head    []byte
	Payload []byte // nil: all is in Head
	Tail    []byte

	memory *Buffer // of the payload
}

// Len is the length of the message.
func (p *Parts) Len() int { return len(p.Head) + len(p.Payload) + len(p.Tail) }

// Release gives back what was lent.
func (p *Parts) Release() {
	p.memory.Release()
	*p = Parts{}
}

// Apart says, before anything else, that the carrier will call PollApart.
func (s *Session) Apart() { s.apart = true }

// PollApart is Poll for a carrier that writes a large payload from where it is; the
// rest of the message is in buf, or nothing.
func (s *Session) PollApart(now time.Time, buf []byte) (p Parts) {
	s.mu.Lock()
	m := s.eng.PollApart(now, buf)
	if m.Payload != nil {
		p.Payload, p.memory = m.Payload, s.out[m.Handle].memory(m.Payload)
		p.memory.retain()
	}
	s.drain(nil)
	s.unlock()
	if len(m.Head) > 0 {
		p.seal(&m)
	}
	return p
}

// seal adds the checksum.
func (p *Parts) seal(m *arq.Apart) {
	n := len(m.Head)
	sum := chunk.CRC32C(m.Head[:min(n, m.Covered)])
	if m.Covered > n {
		sum = chunk.JoinCRC32C(sum, p.memory.checksum(p.Payload), len(p.Payload))
	}
	p.Head = binary.LittleEndian.AppendUint32(m.Head, sum)
	if p.Payload != nil {
		p.Head, p.Tail = p.Head[:n], p.Head[n:]
	}
}

// Deadline is when to call Advance and then Poll though nothing else happens; zero:
// never. It may be in the past, but not after Advance.
func (s *Session) Deadline() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eng.Deadline()
}

// look reports whether Poll may have a message now, and if not, Deadline.
func (s *Session) look() (poll bool, deadline time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.eng.Wanting() {
		return true, time.Time{}
	}
	return false, s.eng.Deadline()
}

// Advance runs the timers that are due.
func (s *Session) Advance(now time.Time) {
	s.mu.Lock()
	s.eng.Advance(now)
	s.drain(nil)
	s.unlock()
}

// Partly says that bytes of a message have come, which is not whole yet.
func (s *Session) Partly(now time.Time) {
	s.mu.Lock()
	s.eng.Partly(now)
	s.unlock()
}

// MaxMessage is the size that Poll's buffer must have at present. A larger one
// lets it probe for larger messages.
func (s *Session) MaxMessage() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eng.MaxMessage()
}

// LimitMessage says that the medium has refused a message over limit bytes.
func (s *Session) LimitMessage(limit int) {
	s.mu.Lock()
	s.eng.LimitMessage(limit)
	s.unlock()
}

// Fail ends the session because its medium has failed or ended. The engine ends too:
// what it holds goes back to its owners, and is not to be polled any more.
func (s *Session) Fail(err error) {
	s.mu.Lock()
	s.failed = s.failed || !s.ended
	s.end(err)
	code, text := failure(err)
	s.eng.Close(time.Now(), code, text)
	s.unlock()
}

// Failed reports whether the session has ended by Fail, so that nobody is there to
// whom it could be told.
func (s *Session) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Stats returns the engine's counters.
func (s *Session) Stats() arq.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.eng.Stats()
}

// do runs f with the engine and wakes the carrier if that gives it work. It
// reports false, without a call of f, if the session has ended.
func (s *Session) do(f func(e *arq.Engine)) bool {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return false
	}
	f(s.eng)
	s.drain(nil)
	s.unlock()
	s.carrier.Wake()
	return true
}

// consumed gives credit back, of which the carrier hears only if the peer is to.
func (s *Session) consumed(bytes, events int) {
	s.mu.Lock()
	tell := s.eng.Consumed(bytes, events)
	s.unlock()
	if tell {
		s.carrier.Wake()
	}
}

// drain takes the engine's events to those whom they concern. from is the memory
// of the messages that were received last.
func (s *Session) drain(from *Buffer) {
	var r *receiving // of the last event
	for ev := s.eng.NextEvent(); ev != nil; ev = s.eng.NextEvent() {
		switch ev.Kind {
		case arq.Established:
			s.peer, _ = s.eng.Peer()
			close(s.established)
		case arq.Closed:
			s.end(ev.Err)
		case arq.Offered:
			s.offered(ev)
			r = nil
		case arq.Received, arq.Resumed, arq.Finished, arq.Canceled:
			if r == nil || r.handle != ev.Handle {
				r = s.in[ev.Handle]
			}
			if r != nil {
				r.event(ev, from)
			} else if ev.Kind == arq.Received {
				s.eng.Consumed(len(ev.Data), 1)
			}
		default:
			if x := s.out[ev.Handle]; x != nil {
				x.event(ev)
			}
		}
	}
}

// end marks the session as ended; unlock does the rest.
func (s *Session) end(err error) {
	if !s.ended {
		s.ended, s.why = true, endError(err)
		closed := (*arq.CloseError)(nil)
		s.passed = (s.unsure || s.eng.Stood()) && errors.As(err, &closed) && closed.Code == wire.CodeIdle
	}
}

// unlock releases the mutex, and tells those who wait for the session if it was
// established or ended under it.
func (s *Session) unlock() {
	if s.closing && !s.ended && s.eng.Quiet() {
		s.closing = false
		s.eng.Close(time.Now(), s.closeCode, "")
	}
	ready := s.ready
	if _, known := s.eng.Peer(); known && !s.ended { // what was no beginning may be both at once
		s.ready = nil
	} else {
		ready = nil
	}
	over := s.ended && !s.buried
	var path cc.Path
	if over {
		s.buried = true
		path = s.eng.Path()
		for _, x := range s.out {
			x.lose()
		}
	}
	active := s.conn.ep.pool.needed(s.coming) && !s.ended
	pooled := s.pooled.Swap(active)
	fresh := s.fresh
	s.fresh = nil
	s.mu.Unlock()
	if fresh != nil {
		notify(fresh.wake)
	}
	if active != pooled {
		s.conn.ep.pool.set(s)
	}
	if ready != nil {
		ready(s.conn)
	}
	if over {
		why := s.why
		if errors.Is(why, transport.ErrIdle) || errors.Is(why, transport.ErrNoReceiver) {
			why = s.hindered(why)
		}
		s.conn.ep.paths.keep(s.carrier.Info().Peer, path, time.Now())
		s.cancel(why)
		s.crew.leave()
		s.conn.lost(s, why)
		s.carrier.Wake()
	}
}

// close ends the session in good order: when everything of ours is acknowledged,
// but soon. It returns when the carrier is free.
func (s *Session) close(code wire.Code) {
	s.do(func(*arq.Engine) { s.closing, s.closeCode = true, code })
	select {
	case <-s.Done():
	case <-time.After(flushTime):
		s.do(func(e *arq.Engine) { e.Close(time.Now(), code, "") })
		select {
		case <-s.Done():
		case <-time.After(flushTime):
			s.Fail(transport.ErrClosed)
		}
	}
	s.carrier.Wait()
}
