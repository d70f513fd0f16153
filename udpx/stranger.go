package udpx

import (
	"fmt"
	"net"
	"time"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/wire"
)

// minAnswered is the shortest message that is answered, so that the answer is
// less than three times as long.
const minAnswered = 20

// stranger handles a message that went to no session.
func (r *reader) stranger(from net.Addr, key addrKey, msg []byte, now time.Time) {
	h, frames, err := wire.Parse(msg)
	if err == nil && h.Long {
		if h.Version == wire.VersionNone {
			r.reset(msg, frames, now)
		} else {
			r.begin(from, firstID{key, h.Dest}, msg, frames, now)
		}
		return
	}
	answer := session.Refuse(msg) // none to noise and port scanners
	if answer == nil || len(msg) < minAnswered || !r.refusals.Allowed(now, msg) {
		return
	}
	r.answer(answer, from)
}

// answer sends a message that no session sends. If it is lost the peer asks again.
func (r *reader) answer(msg []byte, to net.Addr) {
	if r.conn.Connected() {
		to = nil
	}
	_ = r.conn.WriteOne(msg, to)
}

// begin starts a session for a peer that says HELLO, if there is a Listener for it.
func (r *reader) begin(from net.Addr, first firstID, msg, frames []byte, now time.Time) {
	f := wire.NewReader(frames)
	if !f.Next() || f.Type != wire.TypeHello {
		return
	}
	r.mu.Lock()
	l, full := r.listener, len(r.sessions.byID) >= r.peers
	r.mu.Unlock()
	switch {
	case l == nil:
	case !full:
		l.begin(from, first, msg)
	case r.refusals.Allowed(now, msg):
		r.answer(session.RefuseBusy(msg, fmt.Sprintf("the receiver has %d peers already: try again later, or raise udpx.Transport.MaxPeers there", r.peers)), from)
	}
}

// reset gives a peer's word that it does not know a session to that session, which
// judges it.
func (r *reader) reset(msg, frames []byte, now time.Time) {
	f := wire.NewReader(frames)
	var reset wire.Reset
	if !f.Next() || f.Type != wire.TypeReset || reset.Parse(f.Body) != nil {
		return
	}
	if c, s := r.findRemote(reset.Dest); s != nil {
		s.Deliver(now, nil, msg)
		r.later(c)
	}
}
