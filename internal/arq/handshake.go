package arq

import (
	"bytes"
	"fmt"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// handshake is who is addressed how, and what the peer's HELLO said.
type handshake struct {
	dest     wire.ConnID // of messages to the peer
	hello    *control    // ours
	long     bool        // messages are long: the peer may not know our ID
	unproven bool        // at most three times the received bytes are sent
	known    bool        // peer is set
	peer     wire.Hello
}

func (e *Engine) startHandshake() {
	h := &e.handshake
	h.dest, h.long = e.cfg.RemoteCID, true
	h.unproven = e.cfg.Unproven && !e.cfg.Initiator
	if e.cfg.Initiator {
		h.hello = e.controls.add(&control{frame: &e.cfg.Local, twice: true})
	}
}

// accepts reports whether a message with this header is for this session, and from the peer that
// it began with: a peer that was restarted may answer the same first message anew.
func (e *Engine) accepts(h *wire.Header) bool {
	if h.Long {
		if h.Version == wire.VersionNone {
			return h.Dest == 0 || h.Dest == e.cfg.LocalCID
		}
		if h.Source != e.handshake.dest && (e.handshake.known || !e.cfg.Initiator) {
			return false
		}
		return h.Dest == e.cfg.LocalCID || !e.cfg.Initiator && h.Dest == e.cfg.FirstCID
	}
	return h.Dest == e.cfg.LocalCID
}

// replacedAfter is the silence after which the HELLO of another session is believed. One that was late in the medium comes
// while its successor is heard.
const replacedAfter = time.Second

// replaced reports whether a message for another session ends this one: on a medium with a single peer, such as a serial
// line, that peer has begun anew and cannot be heard until this session is over.
func (e *Engine) replaced(h *wire.Header, frames []byte) bool {
	if e.cfg.Initiator || h.Version != wire.Version1 || h.Dest == e.cfg.LocalCID || h.Dest == e.cfg.FirstCID || e.now-e.idle.heard < replacedAfter {
		return false
	}
	var hello wire.Hello
	r := wire.NewReader(frames)
	return r.Next() && r.Type == wire.TypeHello && hello.Parse(r.Body) == nil
}

// onHeader notes what a message's header proves.
func (e *Engine) onHeader(h *wire.Header) {
	if !h.Long && !e.cfg.Initiator { // only who has seen our ID can use it
		e.handshake.long, e.handshake.unproven = false, false
	}
}

// onHello takes the peer's HELLO, once.
func (e *Engine) onHello(h *wire.Header, body []byte) error {
	hs := &e.handshake
	var hello wire.Hello
	if err := hello.Parse(body); err != nil || hs.known {
		return err
	}
	if !h.Long {
		return &wire.Error{Code: wire.CodeState, Frame: wire.TypeHello, Text: "in a short message"}
	}
	hs.peer, hs.known = hello, true
	if e.cfg.Initiator {
		hs.dest, hs.long = h.Source, false
	} else {
		hs.hello = e.controls.add(&control{frame: &e.cfg.Local, twice: true})
	}
	e.acks.maxRanges = wire.MaxAckRanges
	e.credit.set(-1, min(int64(hello.Window), e.cfg.MostSent), hello.Messages)
	e.size.setLimit(int(min(hello.MaxMessage, 1<<30)))
	e.resized()
	if peer := time.Duration(hello.IdleMillis) * time.Millisecond; peer > 0 {
		e.cfg.Idle = min(e.cfg.Idle, peer)
	}
	e.events.push(Event{Kind: Established})
	e.checkWaiting()
	return nil
}

// onVersionNone takes an answer from outside any session: VERSIONS or RESET.
func (e *Engine) onVersionNone(h *wire.Header, frames []byte) error {
	r := wire.NewReader(frames)
	for r.Next() {
		switch r.Type {
		case wire.TypeReset:
			return e.onReset(r.Body)
		case wire.TypeVersions:
			var v wire.Versions
			if err := v.Parse(r.Body); err != nil {
				return err
			}
			if h.Dest != e.cfg.LocalCID || h.Source != e.handshake.dest { // which only who has seen our message knows
				return errForged
			}
			if !e.handshake.known && e.cfg.Initiator && !bytes.Contains(v.Spoken, []byte{wire.Version1}) {
				e.end(&CloseError{Code: wire.CodeVersion, Remote: true,
					Text: fmt.Sprintf("the peer speaks versions %v of the protocol, this program %d: update the older", v.Spoken, wire.Version1)})
			}
		}
	}
	return r.Err()
}

// onReset believes a RESET that echoes a message sent lately: who has not seen one knows
// neither the ID nor the number.
func (e *Engine) onReset(body []byte) error {
	var f wire.Reset
	if err := f.Parse(body); err != nil {
		return err
	}
	number := wire.ExpandNumber(f.Number, e.sent.next-1)
	if f.Dest != e.handshake.dest || number < 0 || number < e.sent.next-resetWindow || number >= e.sent.next {
		return errForged
	}
	e.end(ErrReset)
	return nil
}

// resetWindow is how many of the newest messages a RESET may echo.
const resetWindow = 1 << 16
