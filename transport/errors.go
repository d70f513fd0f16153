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

// Errors to match with errors.Is. Their texts say what to do.
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
	// ErrConfig is a mistake in the program's own settings, which no retry mends: a missing
	// field, an invalid address, an image without a body.
	ErrConfig = errors.New("configuration mistake")

	// ErrServerClosed is returned by Serve after Shutdown. It matches net.ErrClosed.
	ErrServerClosed error = closedError("the server was shut down")
	// ErrClosed is the end of a Conn or Listener by its own Close. It matches net.ErrClosed.
	ErrClosed error = closedError("closed on this side")
	// ErrPeerClosed is the orderly end of a Conn by the peer: its Close, or its shutdown if this
	// side cannot dial again. It matches net.ErrClosed.
	ErrPeerClosed error = closedError("closed by the peer")
	// ErrPeerRestarted is the end of a session that the peer no longer knows. It matches
	// net.ErrClosed.
	ErrPeerRestarted error = closedError("the peer was restarted")
)

type closedError string

func (e closedError) Error() string        { return string(e) }
func (e closedError) Is(target error) bool { return target == net.ErrClosed }

func configError(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrConfig}, a...)...)
}

// An Outcome says what became of the image at the peer when an operation failed.
type Outcome uint8

const (
	NotKept  Outcome = iota // the peer did not keep the image
	Rejected                // the peer, or this side on its behalf, refused it; the error wraps a *RejectedError
	Unknown                 // the Conn ended between the last byte and the receipt: ask again under the same ID
)

func (o Outcome) String() string {
	return [...]string{"not kept", "rejected", "unknown whether kept"}[min(o, Unknown)]
}

// An Error is the failure of one operation on a Transport, Listener or Conn.
type Error struct {
	Op string // "send", "message", "dial", "listen", "accept", "serve"
	// ID is zero if there is none. Send again under it if Outcome is Unknown. One that Send has made
	// itself and not offered yet is over with its failure: the receiver may refuse it (ReasonStale).
	ID      ID
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

// A Reason is why a receiver refuses. The numbers go over the wire (SPEC.md).
type Reason uint8

const (
	ReasonOther      Reason = iota
	ReasonTooLarge          // over the receiver's limit
	ReasonName              // a name that cannot be stored
	ReasonMeta              // metadata over the limit or malformed
	ReasonExists            // the name exists and the receiver refuses to replace it
	ReasonBusy              // too many transfers or too little memory at the moment
	ReasonGoingAway         // the receiver is shutting down
	ReasonDisk              // the receiver's disk is full or fails
	ReasonDigest            // the bytes that arrived do not match the digest
	ReasonHandler           // the receiver's Handler refused it
	ReasonStale             // the sender has declared the ID finished
	ReasonMoved             // another attempt under the same ID goes on instead
	ReasonNotServing        // the peer's program does not receive
	ReasonCanceled          // given up, by its sender or with its Conn
	ReasonMalformed         // a violation of the protocol
	ReasonIncomplete        // the transfer ended before all bytes had come
)

var reasonTexts = [...]string{"refused", "too large", "bad name", "bad metadata", "name exists", "busy", "going away", "disk failure",
	"digest mismatch", "refused by the handler", "stale ID", "moved to a newer attempt", "peer does not receive", "canceled", "malformed", "incomplete"}

func (r Reason) String() string {
	if int(r) < len(reasonTexts) {
		return reasonTexts[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// A RejectedError is a receiver's refusal. A Handler returns one to say whether trying again can
// help; any other error of a Handler counts as retryable.
type RejectedError struct {
	Reason    Reason
	Retryable bool
	Text      string        // for people, at most 1,024 bytes
	After     time.Duration // wait at least this long before the next try

	cause error // what hooks and log of this side hear too; nil: nothing more
}

func (e *RejectedError) Error() string {
	if e.Text == "" {
		return e.Reason.String()
	}
	return e.Reason.String() + ": " + e.Text
}

// Is makes an error with ReasonDigest match ErrDigest.
func (e *RejectedError) Is(target error) bool {
	return target == ErrDigest && e.Reason == ReasonDigest
}

// Reject returns a permanent refusal, for a Handler to return.
func Reject(format string, a ...any) error {
	return &RejectedError{Reason: ReasonHandler, Text: fmt.Sprintf(format, a...)}
}

// A TooLargeError says that an image, message or name is over a limit. Size and Max are in bytes.
type TooLargeError struct {
	What      string // "image", "message", "name", ...
	Size, Max int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s of %d bytes is over the limit of %d", e.What, e.Size, e.Max)
}

// Retryable reports whether the same operation may succeed later without a change by the caller.
// A [RejectedError] says so itself. Not retryable are: an ended context, a missing or unreadable
// file, a consumed body, a changed source, anything too large, an unsupported operation or level,
// a name or ID in use, a superseded or too old frame, a second Serve, the end by this side's own
// Close or Shutdown, and [ErrConfig], which includes a TLS certificate that does not fit. All
// other errors, such as those of the network, are retryable.
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
