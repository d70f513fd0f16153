package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"

	"github.com/pixferry/pixferry/chunk"
)

// Sentinels, for errors.Is. Each says in its text what to do.
var (
	ErrUnconfirmed   = errors.New("this protocol cannot confirm that level: lower SendOptions.Require or use a transport that can")
	ErrBodyConsumed  = errors.New("the stream was already read: use File, Bytes, Content or OpenFunc for bodies that may be sent again")
	ErrSourceChanged = errors.New("the source changed while it was sent: send it again when it is complete")
	ErrSuperseded    = errors.New("a newer frame of the same live source took its place")
	ErrTooOld        = errors.New("the live frame has no receipt within its MaxAge, and was given up")
	ErrNoReceiver    = errors.New("no receiver answers: check that it runs, its name or address, and what stands between, such as a firewall")
	ErrNameTaken     = errors.New("another program uses that name on the broker: give each its own")
	ErrClientIDTaken = errors.New("another client uses that MQTT client ID: give each client its own")
	ErrIdle          = errors.New("the peer has been silent for the idle time")
	ErrServed        = errors.New("Serve was called already: a Conn serves once")
	ErrDigest        = errors.New("the bytes do not match their digest")
	ErrIDUsed        = errors.New("another image was kept under this ID: send this one under a new ID")
	// ErrConfig is a mistake of the program's own, which no other try mends: a
	// field that is not set, an address that is none, an image without a body.
	ErrConfig = errors.New("configuration mistake")

	// ErrServerClosed is what Serve returns after Shutdown. Matches net.ErrClosed.
	ErrServerClosed error = closedError("the server was shut down")
	// ErrClosed is the end of a Conn or Listener by Close. Matches net.ErrClosed.
	ErrClosed error = closedError("closed on this side")
	// ErrPeerClosed is the orderly end of a Conn by the peer's Close, or by its
	// shutdown where nobody here can dial again. Matches net.ErrClosed.
	ErrPeerClosed error = closedError("closed by the peer")
	// ErrPeerRestarted is the end of a session whose peer has lost it. Matches net.ErrClosed.
	ErrPeerRestarted error = closedError("the peer was restarted")
)

type closedError string

func (e closedError) Error() string        { return string(e) }
func (e closedError) Is(target error) bool { return target == net.ErrClosed }

func configError(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrConfig}, a...)...)
}

// An Outcome is what an error leaves behind at the peer.
type Outcome uint8

const (
	NotKept  Outcome = iota // the peer did not keep the image
	Rejected                // the peer, or this side on its behalf, refused it; the cause is a *RejectedError
	Unknown                 // the Conn ended between the last byte and the receipt: ask again under the same ID
)

func (o Outcome) String() string {
	return [...]string{"not kept", "rejected", "unknown whether kept"}[min(o, Unknown)]
}

// An Error is the failure of one operation on a Conn.
type Error struct {
	Op      string // "send", "message", "dial", "listen", "accept", "serve"
	ID      ID     // zero where none was given or made
	Outcome Outcome
	Err     error // the cause
}

func (e *Error) Error() string {
	if e.ID.IsZero() {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s %v (%v): %v", e.Op, e.ID, e.Outcome, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// A Reason is why a receiver refuses. The numbers are on the wire (SPEC.md).
type Reason uint8

const (
	ReasonOther      Reason = iota
	ReasonTooLarge          // over the receiver's limit
	ReasonName              // a name that cannot be stored
	ReasonMeta              // metadata over the limit or malformed
	ReasonExists            // the name exists and the receiver refuses to replace it
	ReasonBusy              // too many transfers, or too little memory, at the moment
	ReasonGoingAway         // the receiver shuts down
	ReasonDisk              // the receiver's disk is full or fails
	ReasonDigest            // the bytes that arrived do not match the digest
	ReasonHandler           // the receiver's Handler refuses
	ReasonStale             // the ID is older than what the sender has declared finished
	ReasonMoved             // a newer attempt has taken the transfer over
	ReasonNotServing        // the peer's program does not receive
	ReasonCanceled          // given up by its owner
	ReasonMalformed         // violates the protocol
	ReasonIncomplete        // ended before all bytes were there
)

var reasonTexts = [...]string{"refused", "too large", "bad name", "bad metadata", "name exists", "busy", "going away", "disk failure",
	"digest mismatch", "refused by the handler", "stale ID", "moved to a newer attempt", "peer does not receive", "canceled", "malformed", "incomplete"}

func (r Reason) String() string {
	if int(r) < len(reasonTexts) {
		return reasonTexts[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// A RejectedError is a receiver's refusal. A Handler returns one to say whether
// trying again can help; any other error from a Handler counts as retryable.
type RejectedError struct {
	Reason    Reason
	Retryable bool
	Text      string        // for people, at most 1,024 bytes
	After     time.Duration // wait at least this long before the next try; 0: no wish

	cause error // what hooks and log of this side hear too; nil: nothing more
}

func (e *RejectedError) Error() string {
	if e.Text == "" {
		return e.Reason.String()
	}
	return e.Reason.String() + ": " + e.Text
}

// Is makes a digest mismatch match ErrDigest.
func (e *RejectedError) Is(target error) bool {
	return target == ErrDigest && e.Reason == ReasonDigest
}

// Reject is a permanent refusal for a Handler to return.
func Reject(format string, a ...any) error {
	return &RejectedError{Reason: ReasonHandler, Text: fmt.Sprintf(format, a...)}
}

// TooLargeError says that an image or message is over a limit.
type TooLargeError struct {
	What      string // "image", "message", "name", ...
	Size, Max int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s of %d bytes is over the limit of %d", e.What, e.Size, e.Max)
}

// Retryable reports whether the same operation may succeed later without a
// change by the caller. It is known for every error: refusals say so
// themselves; ended contexts, missing and unreadable files, consumed bodies,
// changed sources, oversize, taken names and [ErrConfig], as which a peer's certificate that
// does not fit is told, are final; whatever the network does is not.
func Retryable(err error) bool {
	if err == nil || errors.Is(err, ErrBodyConsumed) {
		return false
	}
	if r := (*RejectedError)(nil); errors.As(err, &r) {
		return r.Retryable
	}
	if t := (*TooLargeError)(nil); errors.As(err, &t) {
		return false
	}
	if p := (*fs.PathError)(nil); errors.As(err, &p) && (errors.Is(p, fs.ErrNotExist) || errors.Is(p, fs.ErrPermission) || errors.Is(p, fs.ErrInvalid)) {
		return false // a local file; a network's errors are of other types
	}
	for _, final := range []error{context.Canceled, context.DeadlineExceeded, ErrUnconfirmed, ErrSourceChanged,
		ErrSuperseded, ErrTooOld, ErrNameTaken, ErrClientIDTaken, ErrServed, ErrClosed, ErrServerClosed, ErrIDUsed, ErrConfig, errors.ErrUnsupported,
		chunk.ErrSourceShort, chunk.ErrSourceLong} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}
