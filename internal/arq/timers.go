package arq

import (
	"slices"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// idle watches for silence.
type idle struct {
	heard  time.Duration // when the last message arrived
	partly time.Duration // when it was last noted that a message is arriving
	since  time.Duration // when the first transfer began after a pause, or the last one ended, or this side went on
	active bool          // transfers run, or the handshake does
	attend bool          // silence counts without transfers too
	pinged bool          // a keep-alive was sent since the latest of these
	stood  bool          // until since this side stood still
	pings  int32         // keep-alives since the peer had something to say
}

// firstKeepAlive is when a sender that has nothing left to send asks whether the peer that owes it
// a receipt is still the same: one that was restarted says so.
const firstKeepAlive = time.Second

// persist asks for the window when it is shut and no acknowledgement can be expected, lest
// a lost window update is waited for by both sides.
type persist struct {
	at       time.Duration // 0: not waiting
	interval time.Duration
}

// Attend says whether the peer's silence ends the session while no transfer runs, too: this side waits for what the
// peer may send, and would not notice that it is gone.
func (e *Engine) Attend(now time.Time, on bool) {
	e.step(now)
	e.idle.attend, e.idle.since, e.idle.pinged = on, e.now, false
}

// Partly says that bytes of a message have come, which is not whole yet: over a slow link a large one takes longer than the
// idle time. The peer lives, and hears by a PING that this side does.
func (e *Engine) Partly(now time.Time) {
	e.step(now)
	if i := &e.idle; !e.ending.over() && e.now-max(i.heard, i.partly) >= e.cfg.Idle/3 {
		i.partly, i.pinged, e.ping = e.now, false, true
	}
}

// heard notes a valid message. eliciting: it was more than an acknowledgement.
func (e *Engine) heard(eliciting bool) {
	e.idle.heard, e.idle.pinged = e.now, false
	if eliciting {
		e.idle.pings = 0
	}
}

// goOn notes that nobody has called for longer than any timer of a session lasts whose peer is known, as when the program
// was frozen: the peer's silence in that time says nothing about the peer, which is asked first.
func (i *idle) goOn(now time.Duration) { i.stood, i.since, i.pinged = true, now, false }

// Stood reports whether this side has stood still of late, so that the peer may have given it up for its silence.
func (e *Engine) Stood() bool { return e.idle.stood && e.now-e.idle.since < e.cfg.Idle }

// watch notes whether transfers run.
func (e *Engine) watch() {
	active := e.outs.len() > 0 || e.ins.len() > 0 || !e.handshake.known
	if active != e.idle.active {
		e.idle = idle{heard: e.idle.heard, partly: e.idle.partly, since: e.now, active: active, attend: e.idle.attend}
	}
	if !active {
		e.events.rest()
		if len(e.sent.buf) > 0 {
			e.sent.shrink(e.now)
		}
	}
}

// silence returns when a keep-alive is to be sent and when the session ends.
func (e *Engine) silence() (ping, end time.Duration) {
	i := &e.idle
	from := max(i.heard, i.partly, i.since)
	switch {
	case i.active, i.attend:
	case e.cfg.Linger > 0:
		return never, from + e.cfg.Linger
	default:
		return never, never
	}
	if i.pinged || !e.handshake.known {
		return never, from + e.cfg.Idle
	}
	return from + e.keepAlive(), from + e.cfg.Idle
}

// keepAlive returns the silence after which a PING is sent. Only where the loss of the peer does not
// end the link it is needed early, and then ever less often, as a Handler may take its time.
func (e *Engine) keepAlive() time.Duration {
	if r := e.recovery; r == nil || r.inFlight > 0 || e.outs.len() == 0 { // what is in flight has its own timer
		return e.cfg.Idle / 3
	}
	return min(firstKeepAlive<<min(e.idle.pings, 8), e.cfg.Idle/3)
}

// deadline returns when advance has something to do.
func (e *Engine) deadline() time.Duration {
	if n := &e.ending; n.over() {
		if n.until > e.now {
			return n.until
		}
		return never
	}
	e.watch()
	ping, at := e.silence()
	at = min(at, ping)
	if a := &e.acks; !a.now {
		if a.due > 0 {
			at = min(at, a.due)
		}
		if e.repeatsAcks() {
			at = min(at, a.again)
		}
	}
	if repeat := e.controls.repeatAt(); repeat > 0 {
		at = min(at, repeat)
	}
	if e.persist.at > 0 {
		at = min(at, e.persist.at)
	}
	if r := e.recovery; r != nil {
		at = min(at, r.deadline(e))
		if r.wake > 0 && !r.woken {
			at = min(at, r.wake)
		}
	}
	return at
}

// repeatsAcks reports whether the last ACK is to be sent again at acks.again: a sender may wait for it. One that
// has its answer does not, and the copies of an answer take the ACK along.
func (e *Engine) repeatsAcks() bool {
	return e.acks.again > 0 && e.recovery != nil && e.receiving()
}

// receiving reports whether a transfer from the peer waits for its answer.
func (e *Engine) receiving() bool {
	return slices.ContainsFunc(e.ins.list, func(in entry[incoming]) bool { return !in.value.answered })
}

func (e *Engine) advance() {
	if e.ending.over() {
		return
	}
	e.watch()
	if r := e.recovery; r != nil {
		r.advance(e)
	}
	if a := &e.acks; a.due > 0 && a.due <= e.now || e.repeatsAcks() && a.again <= e.now {
		a.now = true
	}
	if e.controls.advance(e.now) {
		e.acks.now = e.acks.now || e.acks.largest >= 0
	}
	if p := &e.persist; p.at > 0 && p.at <= e.now {
		p.at = 0
		p.interval = min(2*p.interval, maxPTO)
		e.ping = true
	}
	ping, end := e.silence()
	switch {
	case end <= e.now:
		e.silent()
	case ping <= e.now:
		e.idle.pinged, e.ping = true, true
		e.idle.pings++
	}
}

// silent ends a session that has heard nothing for too long.
func (e *Engine) silent() {
	if !e.handshake.known {
		e.end(ErrHandshake)
		return
	}
	e.ending.frame = &wire.Close{Code: wire.CodeIdle}
	e.end(ErrIdle)
}
