package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// A Transport is the configuration of an endpoint. Every backend and every device protocol is
// one, so that changing the transport of a program changes one line. Implementations are safe for
// concurrent use once configured.
type Transport interface {
	// Dial joins the peer. The context bounds only the joining.
	Dial(ctx context.Context) (Conn, error)
	// Listen starts to accept peers. The context bounds only the start.
	Listen(ctx context.Context) (Listener, error)
}

// A Listener accepts peers. It is safe for concurrent use.
type Listener interface {
	// Accept waits for the next peer. After Close its error matches net.ErrClosed.
	Accept(ctx context.Context) (Conn, error)
	// Addr is where peers find the listener, with the real port instead of port 0.
	Addr() net.Addr
	// Close stops accepting. It returns when the listener has freed everything that its accepted
	// Conns do not need; those live on. It is idempotent.
	Close() error
}

// A Conn connects to one peer. Either end may send, and either may serve. It is safe for
// concurrent use. Implementers embed [UnimplementedConn].
type Conn interface {
	// Send transfers one image and returns when it has reached the level that the options
	// require. Cancelling the context cancels this transfer, tells the peer, and leaves the Conn
	// usable. It does not wait for the body: a read that blocks, and the Close after it, may end
	// later than Send. Errors are *Error.
	Send(ctx context.Context, img *Image, o *SendOptions) (Receipt, error)
	// SendMessage delivers a small text or binary message. It returns nil when the peer's program
	// has taken the message, or, where the protocol has no answers, when the message has left.
	// Without messages in the protocol the error matches errors.ErrUnsupported. Errors are
	// *Error.
	SendMessage(ctx context.Context, m Message) error
	// Serve passes what the peer sends to the inbox until the Conn or the context ends. It may be
	// called once for each Conn. It returns nil after an orderly end by the peer, and an error
	// that matches net.ErrClosed after Close. A Conn that is not served takes nothing; the native
	// protocol refuses the peer's images then ([ReasonNotServing]).
	//
	// After the end of the context Serve still passes the inbox's last answers to the peer before
	// it returns, so that Shutdown loses no receipt.
	Serve(ctx context.Context, in *Inbox) error
	// Info describes the peer and the protocol.
	Info() Info
	// Close ends the Conn and every call on it. Partial images at the peer stay for a resume. It
	// is idempotent.
	Close() error
}

// UnimplementedConn has a Send, SendMessage and Serve that fail with errors.ErrUnsupported, and
// an Info and Close that do nothing. Embed it so that a method added to [Conn] later does not
// break your type.
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
	Peer        string // the name in its verified certificate, its name on an MQTT broker (proven only by ACLs), or its address
	Confirms    Level  // the highest level that the protocol can reach
	Concurrency int    // how many transfers at once make sense; at least 1
	MaxImage    int64  // largest image in bytes; 0: no known limit
	Messages    bool   // SendMessage is supported
	Resumes     bool   // of an interrupted image, whole blocks of 1 MiB are not sent again
}

// SendOptions are the options of one Send; nil means all defaults.
type SendOptions struct {
	// ID names this delivery; zero makes a new one. Receipts and duplicates go by it alone: an
	// image sent again under the same ID is not stored twice.
	ID ID
	// Require is the level at which Send returns. Zero means Received, or Sent for a protocol
	// that confirms nothing. A level above [Info].Confirms fails with ErrUnconfirmed before a
	// byte leaves.
	Require Level
	// Retry repeats failed attempts under the same ID; nil means one attempt.
	Retry *RetryPolicy
	// Live makes the image a frame of a live source.
	Live *Live
	// Priority orders the transfers of one Conn.
	Priority Priority
	// Progress is called with the number of bytes that the peer has acknowledged, and the size of
	// the image (-1 while unknown). On a resume the bytes that the peer already held are reported
	// at once. Calls come one at a time and never go back, even over retries. It must not block.
	Progress func(acked, total int64)
}

// Live marks an image as a frame of a live source, which has a queue of depth one. A frame is
// sent only when the one before it has been answered; while it waits, a newer one replaces it and
// its Send returns ErrSuperseded. So no frame gets old on its way or in front of a slow Handler,
// at the price of at most one frame per round trip, unless InFlight says more. Call Send for each
// frame on a goroutine of its own, as Send returns with the receipt.
//
// Newer means a later Image.Captured, or, if either frame has none, a later call of Send.
// Handlers for one source of one Conn run one after the other, unless a frame was given up or
// InFlight is over 1. Then, and after the loss of a link, a frame may arrive after newer ones:
// where order matters, the receiver compares Captured too.
type Live struct {
	// Source names the live source, on this side only; empty means Image.Source. If both are
	// empty the frame belongs to the Conn's one source without a name.
	Source string
	// InFlight is how many frames of the source may be on their way at once, at most
	// [Info].Concurrency; 0: 1. It is for paths whose round trip is longer than the time between
	// two frames: 4 are enough for 15 frames a second over 250 ms. On a path that is too slow for
	// its frames, and before a slow Handler, each gets that many times as old.
	InFlight int
	// MaxAge bounds the time from the call of Send to the receipt: then the frame is given up,
	// with ErrTooOld. 0: no limit.
	MaxAge time.Duration
}

// Priority orders the transfers of one Conn.
type Priority uint8

const (
	Bulk        Priority = iota // files
	Interactive                 // goes before Bulk, as live frames and messages always do
)

// A Message is a small text or binary note beside the images, such as a command or an event. It
// may have [Limits].MaxMessage bytes at the receiver, 64 KiB by default.
type Message struct {
	Type string // a media type, or a word of the application's own; may be empty
	Data []byte
}
