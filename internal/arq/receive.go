package arq

import (
	"cmp"
	"errors"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// Errors of Receive for messages that are dropped.
var (
	errNotOurs   = errors.New("arq: message for another session")
	errDuplicate = errors.New("arq: duplicate message")
	errGap       = errors.New("arq: message missing on a reliable link")
	errForged    = errors.New("arq: RESET or VERSIONS that echoes nothing sent lately")
	errEarly     = errors.New("arq: message before what it refers to")
	errNoRoom    = errors.New("arq: message over this side's window")
)

// batch is what was received since the last settle.
type batch struct {
	any    bool  // anything at all
	urgent bool  // something to acknowledge at once
	soon   bool  // something to acknowledge with its answer, or soon
	newest bool  // the newest of those acknowledged was the largest of its ACK, so it gives a round-trip sample
	lost   bool  // a message that was no probe is believed lost
	least  int32 // bytes of the smallest of these over wire.InitialMessage, 0: none

	acked, packets int64 // newly acknowledged
	largest        int64 // number of the newest of them, -1: none
	at             time.Duration
	delay          time.Duration // of its ACK
	flight         flight        // of it
	run            ackedRun      // of data, not yet noted
	prior          int64         // bytes in flight before the batch
	lowest         int64         // numbers below this were not reported by the newest ACK: unknown
}

// receive handles a message. A message is acknowledged only if nothing in it was refused, so what
// was refused comes again.
func (e *Engine) receive(msg []byte) error {
	parse := wire.Parse
	if e.recovery == nil {
		parse = wire.ParseReliable
	}
	h, frames, err := parse(msg)
	if err != nil {
		return e.dropped(err)
	}
	if !e.accepts(&h) {
		if e.replaced(&h, frames) {
			e.end(ErrReset)
		}
		return e.dropped(errNotOurs)
	}
	if h.Long && h.Version == wire.VersionNone {
		return e.onVersionNone(&h, frames)
	}
	number := wire.ExpandNumber(h.Number, e.acks.largest)
	if number < 0 || e.acks.seen(number) {
		return e.dropped(errDuplicate)
	}
	if e.recovery == nil && number != e.acks.largest+1 {
		return e.dropped(errGap)
	}
	e.stats.ReceivedMessages++
	e.stats.ReceivedBytes += int64(len(msg))
	e.onHeader(&h)
	eliciting, err := e.receiveFrames(&h, number, frames)
	if e.ending.over() {
		return nil
	}
	if err != nil {
		e.refused(err)
		return err
	}
	e.acks.add(number, e.now, eliciting)
	e.heard(eliciting)
	e.batch.any = true
	return nil
}

// refused ends the session if the peer has violated the protocol.
func (e *Engine) refused(err error) {
	if violation := (*wire.Error)(nil); errors.As(err, &violation) {
		e.violated(violation)
	}
	_ = e.dropped(err)
}

// dropped is what becomes of a message that is not obeyed: nothing, as it comes again. On a reliable
// link it does not: there the session ends, so that a new one may begin.
func (e *Engine) dropped(err error) error {
	if e.recovery != nil || e.ending.over() {
		return err
	}
	violation := &wire.Error{Code: wire.CodeState, Frame: wire.NoFrame, Text: err.Error()}
	errors.As(err, &violation)
	e.violated(violation)
	return err
}

// receiveFrames handles the frames of a message, up to the first that violates the protocol. Those behind one that
// comes too early, or for which there is no room, are obeyed: the OFFER that it waits for may be among them.
func (e *Engine) receiveFrames(h *wire.Header, number int64, frames []byte) (eliciting bool, err error) {
	r := wire.NewReader(frames)
	for r.Next() {
		eliciting = eliciting || r.Type.Eliciting()
		switch refused := e.receiveFrame(h, number, r.Type, r.Body); {
		case e.ending.over():
			return false, refused
		case refused == nil:
		case errors.Is(refused, errEarly) || errors.Is(refused, errNoRoom):
			err = refused
		default:
			return false, refused
		}
	}
	return eliciting, cmp.Or(r.Err(), err)
}

func (e *Engine) receiveFrame(h *wire.Header, number int64, t wire.Type, body []byte) error {
	if !e.handshake.known {
		switch t {
		case wire.TypeHello, wire.TypeClose, wire.TypePadding:
		default:
			return errEarly
		}
	}
	switch t {
	case wire.TypeData:
		return e.onData(body)
	case wire.TypeParity:
		return e.onParity(body)
	case wire.TypeAck:
		return e.onAck(number, body)
	case wire.TypeHello:
		e.batch.urgent = true
		return e.onHello(h, body)
	case wire.TypeOffer:
		return e.onOffer(body)
	case wire.TypeAccept:
		return e.onAccept(body)
	case wire.TypeResume:
		return e.onResume(body)
	case wire.TypeFin:
		return e.onFin(body)
	case wire.TypeReceipt:
		return e.onReceipt(body)
	case wire.TypeReject:
		return e.onReject(body)
	case wire.TypeCancel:
		return e.onCancel(body)
	case wire.TypePing:
		e.batch.urgent = true
	case wire.TypePathChallenge:
		return e.onChallenge(body)
	case wire.TypePathResponse:
		return e.onResponse(body)
	case wire.TypeClose:
		return e.onClose(body)
	case wire.TypeReset, wire.TypeVersions:
		return &wire.Error{Code: wire.CodeState, Frame: t, Text: "in a message of a session"}
	}
	return nil
}

// settle does once for a batch of messages what would be waste for each: loss detection,
// the congestion controller's step, and the decision to acknowledge.
func (e *Engine) settle() {
	b := &e.batch
	if !b.any && b.packets == 0 || e.ending.over() {
		return
	}
	if b.packets > 0 {
		e.settleAcks(b)
	}
	e.acks.settle(e.now, e.ackWait(), b.urgent && e.recovery != nil || e.window.used())
	*b = batch{largest: -1}
}
