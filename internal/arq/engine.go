package arq

import (
	"math"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq/cc"
	"github.com/pixferry/pixferry/internal/wire"
)

// Engine is one side of one session. Not safe for concurrent use; it never blocks.
// After the Closed event all methods but NextEvent do nothing.
type Engine struct {
	epoch time.Time
	now   time.Duration // since epoch, of the last call
	idle  idle

	recovery *recovery // nil on an ordered reliable link
	acks     ackTracker
	batch    batch // what was received since the last settle
	sent     sentRing
	rtt      rtt
	controls controls
	schedule scheduler
	credit   sendCredit
	window   receiveCredit
	outs     table[outgoing]
	ins      table[incoming]
	waiting  waitingOffers
	over     handles // the peer's transfers that are over

	events  eventQueue
	running int   // transfers to the peer that have started
	ping    bool  // send a PING
	sampled int64 // number of the newest message with a round-trip sample
	stats   Counters
	few     few

	ending    ending
	persist   persist
	size      sizer
	handshake handshake
	path      *path // nil: the peer has never moved
	cfg       Config
}

// few is the memory for what there is of most things at once. It lies beside what uses it: an engine that
// was idle among thousands is in no cache, and each place of its own would be one more to wait for.
type few struct {
	due, again [2]*control
	outs       [1]entry[outgoing]
	ins        [1]entry[incoming]
	waiting    [1]*outgoing
	got, over  [1]chunk.Range
}

// New returns the engine of a new session. A responder's engine is made for a first
// long message, which is then passed to Receive.
func New(cfg Config, now time.Time) *Engine {
	if cfg.Idle <= 0 {
		cfg.Idle = 30 * time.Second
	}
	if cfg.ReadAhead <= 0 {
		cfg.ReadAhead = 128 << 10
	}
	if cfg.MostSent <= 0 {
		cfg.MostSent = math.MaxUint32
	}
	if cfg.Local.Repairs = 0; cfg.Coder != nil && !cfg.Ordered {
		cfg.Local.Repairs = maxRepaired
	}
	// Times count from a second before now, so that zero is no time.
	e := newEngine(&cfg)
	e.cfg, e.epoch, e.now = cfg, now.Add(-time.Second), time.Second
	e.acks = newAckTracker(e.few.got[:0])
	e.controls.due, e.controls.again = e.few.due[:0], e.few.again[:0]
	e.outs.list, e.ins.list, e.waiting.bulk = e.few.outs[:0], e.few.ins[:0], e.few.waiting[:0]
	e.credit = newSendCredit()
	e.window = newReceiveCredit(&cfg)
	e.size = newSizer(cfg.MaxMessage, cfg.Sizes, wire.InitialMessage)
	e.over = newHandles(e.few.over[:0])
	if e.recovery != nil {
		e.recovery.begin(&cfg, e.size.current)
	}
	e.idle.heard, e.sampled = e.now, -1
	e.batch.largest = -1
	e.startHandshake()
	return e
}

// newEngine returns memory for an engine, with that for loss recovery behind it if the link needs it.
func newEngine(cfg *Config) *Engine {
	if cfg.Ordered && cfg.Reliable {
		return new(Engine)
	}
	e := new(struct {
		Engine
		recovery recovery
	})
	e.Engine.recovery = &e.recovery
	return &e.Engine
}

// Receive takes one message from the link. Messages that are malformed, changed on
// their way, duplicates, or not for this session are dropped with an error that is
// for counting only; on a reliable link, where none comes again, they end the session
// by an event, as a peer does that violates the protocol.
func (e *Engine) Receive(now time.Time, msg []byte) error {
	e.step(now)
	if e.ending.over() {
		return e.receiveClosing()
	}
	return e.receive(msg)
}

// Poll builds the next message to send in buf and returns its length, 0 if there is
// none now. buf holds MaxMessage() bytes or more; messages of data have exactly
// MaxMessage() bytes but the last, and a probe for a larger size is built only if buf
// has room for it. A message that was polled counts as sent.
func (e *Engine) Poll(now time.Time, buf []byte) int {
	e.step(now)
	e.settle()
	return e.poll(buf)
}

// Wanting reports whether Poll may have a message now: false spares the call.
func (e *Engine) Wanting() bool {
	e.settle()
	if e.ending.over() {
		return e.ending.due
	}
	h, r := e.handshake.hello, e.recovery
	return e.acks.now || e.ping || h != nil && h.due() || r != nil && r.probes > 0 ||
		e.controls.wanting() || e.schedule.next() != nil
}

// Advance runs the timers that are due.
func (e *Engine) Advance(now time.Time) {
	e.step(now)
	e.settle()
	e.advance()
}

// Deadline returns when Advance and then Poll are next to be called though nothing else
// happens, zero for never. It does not cover what Poll has to send at once: after
// every other call Poll comes first, unless the link cannot take more. After Advance
// it is later than now, so a timer never spins while the link is busy.
func (e *Engine) Deadline() time.Time {
	e.settle()
	if at := e.deadline(); at != never {
		return e.epoch.Add(at)
	}
	return time.Time{}
}

// NextEvent returns the oldest event not yet returned, nil if there is none. It is the engine's,
// and valid until the next call.
func (e *Engine) NextEvent() *Event {
	for {
		ev := e.events.pop()
		if ev == nil {
			return nil
		}
		if ev.Kind == Progress {
			o := e.outs.get(ev.Handle)
			if o == nil {
				continue
			}
			o.progress = false
			ev.Offset = o.acked.Covered()
		}
		return ev
	}
}

// MaxMessage returns the size in bytes of full messages at present.
func (e *Engine) MaxMessage() int { return e.size.current }

// LimitMessage lowers the message size to max bytes because the link has refused
// or swallowed a larger one, and ends the probing above it.
func (e *Engine) LimitMessage(max int) {
	e.size.lower(max)
	e.resized()
}

// Peer returns what the peer's HELLO states, and false before it is known.
func (e *Engine) Peer() (wire.Hello, bool) { return e.handshake.peer, e.handshake.known }

// Idle returns how long the peer may be silent while transfers run: the smaller of both sides' idle times, once the peer's
// is known.
func (e *Engine) Idle() time.Duration { return e.cfg.Idle }

// Quiet reports whether nothing is under way: no transfer in either direction and
// nothing of ours unacknowledged, or on a reliable link, where a CLOSE comes last, unsent.
// A clean Close waits for it.
func (e *Engine) Quiet() bool {
	if e.outs.len() > 0 || e.controls.wanting() {
		return false
	}
	if e.recovery == nil {
		return !e.receiving()
	}
	return e.ins.len() == 0 && e.sent.firstOutstanding() == e.sent.next
}

// Path returns what is known of the link's path, to be remembered for the next session; zero: nothing.
func (e *Engine) Path() cc.Path {
	if r := e.recovery; r != nil && r.cc != nil {
		return r.cc.Path()
	}
	return cc.Path{}
}

// Stats returns counters of the session so far.
func (e *Engine) Stats() Stats {
	s := Stats{Counters: e.stats}
	if r := e.recovery; r != nil {
		s.Outstanding = r.inFlight
	}
	return s
}

// Stats are counters of one session, for tests and benchmarks.
type Stats struct {
	Counters
	Outstanding int64 // bytes sent and neither acknowledged nor lost; 0 on a reliable link
}

// Counters count what a session has done.
type Counters struct {
	SentMessages, SentBytes         int64
	ReceivedMessages, ReceivedBytes int64
	LostMessages, SpuriousLosses    int64
	ResentBytes                     int64 // payload sent more than once
}

const never = time.Duration(math.MaxInt64)

// step sets the time, which never goes back.
func (e *Engine) step(now time.Time) {
	at := max(e.now, now.Sub(e.epoch))
	if e.idle.active && e.handshake.known && at-e.now >= e.cfg.Idle-e.cfg.Idle/4 {
		e.idle.goOn(at)
	}
	e.now = at
}

// resized tells the congestion controller of a new message size.
func (e *Engine) resized() {
	if r := e.recovery; r != nil && r.cc != nil {
		r.cc.Resize(e.size.current)
	}
}

// release gives slices back to the owner.
func (e *Engine) release(o *outgoing, done [][]byte) {
	for _, p := range done {
		e.events.push(Event{Kind: Released, Handle: o.handle, Data: p})
	}
}

// scratch is memory on the stack for as many slices as are mostly released at once.
type scratch [4][]byte
