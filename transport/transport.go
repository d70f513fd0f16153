package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// A Transport is the configuration of an endpoint. Every backend and every
// device protocol is one; changing the transport of a program changes one line.
// Implementations are safe for concurrent use once configured.
type Transport interface {
	// Dial joins the peer. The context bounds the joining only.
	Dial(ctx context.Context) (Conn, error)
	// Listen begins to take peers. The context bounds the beginning only.
	Listen(ctx context.Context) (Listener, error)
}

// A Listener accepts peers. It is safe for concurrent use.
type Listener interface {
	// Accept waits for the next peer. After Close its error matches net.ErrClosed.
	Accept(ctx context.Context) (Conn, error)
	// Addr is where peers find the listener, with the real port for port 0.
	Addr() net.Addr
	// Close stops accepting and returns when the listener holds no resource
	// that its accepted Conns do not need. Accepted Conns live on. It is idempotent.
	Close() error
}

// A Conn is one peer, both ways: either end may send, and either may serve.
// It is safe for concurrent use. Implementers embed [UnimplementedConn].
type Conn interface {
	// Send transfers one image and returns when the level that the options
	// require is reached. Cancelling the context cancels this transfer, tells
	// the peer, and leaves the Conn alone. Errors are *Error.
	Send(ctx context.Context, img *Image, o *SendOptions) (Receipt, error)
	// SendMessage delivers a small text or binary message; nil means that the
	// peer's program has taken it. errors.ErrUnsupported where the protocol
	// has no messages.
	SendMessage(ctx context.Context, m Message) error
	// Serve hands what the peer sends to the inbox until the Conn ends or the
	// context does. At most once for each Conn. It returns nil after an orderly
	// end by the peer, and an error that matches net.ErrClosed after Close.
	// Without it the peer's images are refused ([ReasonNotServing]). When the
	// context ends, what has been answered by the inbox is still handed to the
	// peer before Serve returns: otherwise a Shutdown would lose the last receipts.
	Serve(ctx context.Context, in *Inbox) error
	// Info tells what is known about the peer and the protocol.
	Info() Info
	// Close ends the Conn and frees every call. Partial images on the other
	// side stay for a resume. It is idempotent.
	Close() error
}

// UnimplementedConn answers errors.ErrUnsupported to everything. Embed it so
// that a method added to [Conn] later does not break your type.
type UnimplementedConn struct{}

func (UnimplementedConn) Send(context.Context, *Image, *SendOptions) (Receipt, error) {
	return Receipt{}, &Error{Op: "send", Outcome: NotKept, Err: fmt.Errorf("this protocol, or this side of it, sends no images: %w", errors.ErrUnsupported)}
}

func (UnimplementedConn) SendMessage(context.Context, Message) error {
	return &Error{Op: "message", Err: fmt.Errorf("this protocol has no messages: %w", errors.ErrUnsupported)}
}

func (UnimplementedConn) Serve(context.Context, *Inbox) error {
	return &Error{Op: "serve", Err: fmt.Errorf("this protocol, or this side of it, cannot receive: %w", errors.ErrUnsupported)}
}

func (UnimplementedConn) Info() Info   { return Info{} }
func (UnimplementedConn) Close() error { return nil }

// Info describes a Conn.
type Info struct {
	Protocol    string // for example "tcp", "udp+header"
	Peer        string // the name in its certificate, the one it goes by on an MQTT broker (which only ACLs prove), or its address
	Confirms    Level  // the highest level that the protocol can reach
	Concurrency int    // transfers at once that make sense; at least 1
	MaxImage    int64  // bytes; 0: no limit known
	Messages    bool   // SendMessage takes any Message
	Resumes     bool   // an interrupted image goes on after its last whole block of 1 MiB
}

// SendOptions are the options of one Send; nil means all defaults.
type SendOptions struct {
	// ID names this delivery; zero makes a new one. Receipts and duplicates go
	// by it alone: sending again under the same ID never stores twice.
	ID ID
	// Require is the level at which Send returns; zero means Received, or Sent
	// for a protocol that can confirm nothing. A level above [Info].Confirms is
	// ErrUnconfirmed before a byte leaves.
	Require Level
	// Retry repeats failed attempts under one ID; nil means no repetition.
	Retry *RetryPolicy
	// Live makes the image a frame of a live source.
	Live *Live
	// Priority orders transfers of one Conn.
	Priority Priority
	// Progress is called with the bytes that the peer has acknowledged, in a resumed image those
	// too that it held already, at once, and the size (-1 while unknown). Calls are serial and never go back, not even over
	// retries; it must not block.
	Progress func(acked, total int64)
}

// Live marks a frame of a live source, which has a queue of depth one. A frame begins when the one before has its
// answer, so that none gets old on its way or before a slow Handler, and Handlers of one Conn's source come one after
// the other, unless a frame was given up; this is at most one frame for each round trip. One that waits for its turn
// gives way to a newer one, with ErrSuperseded: call Send for each frame on a goroutine of its own, as it returns with
// the receipt. Newer is what was captured later by Image.Captured, which so corrects the order in which goroutines
// happen to run; without it, what was sent later. Behind a link that was lost meanwhile a frame that has begun may
// arrive after newer ones, so where order counts the receiver too compares Captured.
type Live struct {
	// Source is whose frames supersede each other. It stays here, unlike Image.Source, which it is if empty. Where both
	// are, all such frames of the Conn are one source's.
	Source string
	MaxAge time.Duration // until the receipt: give the frame up after this time, with ErrTooOld; 0: no limit
}

// Priority orders the transfers of one Conn.
type Priority uint8

const (
	Bulk        Priority = iota // files
	Interactive                 // goes before Bulk; live frames and messages always do
)

// A Message is a small text or binary note beside the images: a command, an
// event. At most [Limits].MaxMessage bytes, 64 KiB by default.
type Message struct {
	Type string // a media type or a word of the application's own; may be empty
	Data []byte
}
