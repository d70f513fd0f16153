package wire

import (
	"fmt"

	"github.com/pixferry/pixferry/framing"
)

// Code says why a session ends, in CLOSE, or what is wrong with a message.
type Code uint8

// The codes of SPEC.md section 12.
const (
	CodeDone       Code = iota // orderly end
	CodeInternal               // the peer's own failure
	CodeGoingAway              // the peer shuts down: come back later
	CodeIdle                   // nothing was heard for the idle time
	CodeBusy                   // no room for one more session
	CodeRefused                // the peer does not want this session, for example without protection
	CodeVersion                // no version in common
	CodeChecksum               // a message was changed on its way
	CodeTruncated              // a message or frame ends inside a field
	CodeMalformed              // a field has a value it cannot have
	CodeUnknown                // a frame or field below 0x80 that version 1 does not have
	CodeLimit                  // more than the HELLO allowed
	CodeState                  // a frame where it cannot be
	CodeUnanswered             // what was sent was not acknowledged in time
)

var codeNames = [...]string{"done", "internal", "going away", "idle", "busy", "refused", "version", "checksum",
	"truncated", "malformed", "unknown", "limit", "state", "unanswered"}

func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Error is what is wrong with a message or a frame, and the code to close the
// session with where SPEC.md section 12 says that it ends.
type Error struct {
	Code  Code
	Frame Type   // where it was found; NoFrame: in the header or trailer
	Text  string // for people
}

func (e *Error) Error() string {
	if e.Frame == NoFrame {
		return fmt.Sprintf("message (%v): %s", e.Code, e.Text)
	}
	return fmt.Sprintf("%v frame (%v): %s", e.Frame, e.Code, e.Text)
}

func malformed(t Type, format string, a ...any) error {
	return &Error{CodeMalformed, t, fmt.Sprintf(format, a...)}
}

// finish returns the error of a body that c has read and that must be used up.
func finish(c *framing.Cursor, t Type) error {
	switch {
	case c.Err() != nil:
		return &Error{CodeTruncated, t, "the body ends inside a field"}
	case c.Len() > 0:
		return malformed(t, "%d bytes too many", c.Len())
	}
	return nil
}
