package arq

import (
	"errors"
	"time"

	"github.com/pixferry/pixferry/internal/arq/cc"
	"github.com/pixferry/pixferry/internal/wire"
)

// Config describes a session and its link. It is not kept by reference.
type Config struct {
	// Initiator says that this side begins: it sends the first HELLO.
	Initiator bool
	// Ordered and Reliable are the link's promises (native.LinkInfo). With both, loss
	// recovery, congestion control, pacing and size probing do not exist. Ordered
	// alone: a gap is loss, there is no pacing and no congestion control, and the
	// probe timer sends a PING instead of data. Otherwise RFC 9002.
	Ordered, Reliable bool
	// Unproven says that a responder's peer address is not proven: until a short message
	// arrives at most three times the received bytes are sent.
	Unproven bool
	// Crowd is how many other peers were unproven when this one came: the more, the fewer transfers each
	// of them may begin before it is proven, lest false addresses take all places for transfers.
	Crowd uint16
	// MaxMessage is the message size to begin with, in bytes, at least 256.
	MaxMessage int
	// Sizes are larger message sizes, ascending, to probe for.
	Sizes []int
	// PadHello is the length that messages with an initiator's HELLO are padded to (1,200 on UDP).
	PadHello int

	// Local is what this side can take, as its HELLO states it.
	Local wire.Hello
	// FirstWindow is how much of Local's window, or SetWindow's, is given at first, in bytes. On an unordered
	// link with a round trip of 50 ms or more the rest follows as the owner consumes: the window is
	// eight times what it does in a round trip. 0: all is given at once.
	FirstWindow int
	// MostSent is how many bytes of payload may be sent and neither acknowledged nor lost, however large
	// the peer's window is: on a link that loses they are kept so long. 0: as many as the window allows.
	MostSent int64

	// LocalCID is random and names this side in messages to it. RemoteCID is, for an initiator,
	// random; for a responder, the source connection ID of the first message, whose
	// destination connection ID is FirstCID.
	LocalCID, RemoteCID, FirstCID wire.ConnID

	// Idle ends the session when nothing arrives for so long while transfers run or a
	// handshake does (ErrIdle); the smaller of both sides' counts. 0: 30 s.
	Idle time.Duration
	// Linger ends the session without transfers when nothing happens for so long; 0: never.
	Linger time.Duration
	// ReadAhead is how many unsent bytes Want asks for in each transfer. 0: 128 KiB.
	ReadAhead int
	// Controller is the congestion control of an unordered link, this session's alone, which begins it; nil: cc.Rate.
	Controller cc.Controller
	// Coder repairs small images on an unordered link; nil: they are not repaired.
	Coder Coder
	// Path is what is known of an unordered link from an earlier session, for cc.Rate; zero: nothing.
	Path cc.Path
}

// Errors of a Closed event. A peer's CLOSE is a *CloseError.
var (
	ErrClosed    = errors.New("arq: closed by this side")
	ErrIdle      = errors.New("arq: nothing heard from the peer within the idle time")
	ErrHandshake = errors.New("arq: the peer does not answer")
	ErrReset     = errors.New("arq: the peer has lost the session, probably by a restart")
)

// Errors of methods.
var (
	// ErrHandle: the transfer is over, or was never there. Harmless where it raced with an event.
	ErrHandle = errors.New("arq: no such transfer")
	// ErrOrder: Supply went back or over the size, or Finish does not fit what was supplied.
	ErrOrder = errors.New("arq: supplied bytes out of order")
	// ErrTooLarge: a frame does not fit the peer's largest message or its HELLO's limits.
	ErrTooLarge = errors.New("arq: over the peer's limit")
)
