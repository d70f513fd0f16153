package arq

import (
	"time"

	"github.com/pixferry/pixferry/internal/arq/cc"
	"github.com/pixferry/pixferry/internal/wire"
)

// path is the peer's address, after it has changed (SPEC.md section 11).
type path struct {
	challenge      *control // PATH_CHALLENGE; nil: the address is proven, or the first
	data           uint64   // in it
	received, sent int64    // bytes before the change
	answer         *control // PATH_RESPONSE to the peer's newest challenge
}

// Newest returns the highest number of a message that was accepted, -1 for none.
func (e *Engine) Newest() int64 { return e.acks.largest }

// Moved says that the newest message, of size bytes, came from another address than those
// before, to which everything goes from now on. Until the peer has repeated data, which is
// random, it gets at most three times what comes from there.
func (e *Engine) Moved(now time.Time, size int, data uint64) {
	e.step(now)
	if e.ending.over() {
		return
	}
	p := e.moved()
	e.controls.drop(p.challenge)
	p.data, p.received, p.sent = data, e.stats.ReceivedBytes-int64(size), e.stats.SentBytes
	p.challenge = e.controls.add(&control{frame: &wire.Path{Data: data}})
}

// Rehomed says after Moved that the peer's host has changed, not only its port: what is known of the
// path is another one's (RFC 9000, section 9.4).
func (e *Engine) Rehomed() {
	e.settle() // what has been acknowledged was over the old path
	if e.recovery != nil {
		e.recovery.abandon(e)
	}
	e.rtt, e.sampled = rtt{}, e.sent.next-1
	e.size.current, e.size.next = e.size.least(), 0
	if r := e.recovery; r != nil && r.cc != nil {
		r.cc.Begin(e.size.current, cc.Path{})
		r.ask(e.size.current)
	}
}

// Roamed says that this side has another address: what is known of the path is another one's, and the peer is to
// see the new address at once.
func (e *Engine) Roamed(now time.Time) {
	e.step(now)
	e.Rehomed()
	e.ping = true
}

// Unanswered reports whether the peer has acknowledged nothing though the probe timer has asked it again: what was
// sent last is often lost alone.
func (e *Engine) Unanswered() bool { return e.recovery != nil && e.recovery.timeouts > 1 }

func (e *Engine) moved() *path {
	if e.path == nil {
		e.path = new(path)
	}
	return e.path
}

// onChallenge answers a peer that wants to know whether this side is where it seems to be.
func (e *Engine) onChallenge(body []byte) error {
	var f wire.Path
	if err := f.Parse(body); err != nil {
		return err
	}
	p := e.moved()
	e.controls.drop(p.answer)
	p.answer = e.controls.add(&control{frame: &wire.Path{Response: true, Data: f.Data}})
	return nil
}

func (e *Engine) onResponse(body []byte) error {
	f := wire.Path{Response: true}
	if err := f.Parse(body); err != nil {
		return err
	}
	if p := e.path; p != nil && f.Data == p.data {
		e.controls.drop(p.challenge)
		p.challenge = nil
	}
	return nil
}

// challenging reports whether PATH_CHALLENGE is to be sent.
func (e *Engine) challenging() bool {
	return e.path != nil && e.path.challenge != nil && e.path.challenge.due()
}

// allowance returns how many bytes may be sent to an address that is not proven, and false if it
// is.
func (e *Engine) allowance() (bytes int64, limited bool) {
	p := e.path
	switch {
	case p != nil && p.challenge != nil:
	case !e.handshake.unproven:
		return 0, false
	case p == nil:
		return 3*e.stats.ReceivedBytes - e.stats.SentBytes, true
	}
	return 3*(e.stats.ReceivedBytes-p.received) - (e.stats.SentBytes - p.sent), true
}
