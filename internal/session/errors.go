package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pixferry/pixferry/framing"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// errGoingAway is the end of a session whose peer shuts down, and may come back: whoever
// has dialled dials again, as after the loss of a link.
var errGoingAway error = &transport.RejectedError{Reason: transport.ReasonGoingAway, Retryable: true, Text: "the peer shuts down: try again later"}

// errUnanswered is transport.ErrIdle as a peer tells it that hears nothing of what leaves here.
type errUnanswered struct{}

func (errUnanswered) Error() string {
	return "the peer hears no answer of this side, and has given up: check what stands between, such as a firewall or the rules of a broker"
}

func (errUnanswered) Unwrap() error { return transport.ErrIdle }

// hindered adds to an error for want of an answer why nothing leaves this side, if the carrier knows that.
func (s *Session) hindered(err error) error {
	c, ok := s.carrier.(hindered)
	if !ok {
		return err
	}
	if why := c.Hindrance(); why != nil {
		return fmt.Errorf("%w, while nothing can be sent: %s", err, why.Error()) // in words: it is no answer of the peer's
	}
	return err
}

// endError is the end of a session in the words of package transport.
func endError(err error) error {
	var closed *arq.CloseError
	switch {
	case err == nil, errors.Is(err, arq.ErrClosed):
		return transport.ErrClosed
	case errors.Is(err, arq.ErrIdle):
		return transport.ErrIdle
	case errors.Is(err, arq.ErrHandshake):
		return fmt.Errorf("%w (nothing has come back)", transport.ErrNoReceiver)
	case errors.Is(err, arq.ErrReset):
		return transport.ErrPeerRestarted
	case errors.As(err, &closed):
		switch closed.Code {
		case wire.CodeDone:
			if closed.Text != "" {
				return fmt.Errorf("%w: %q", transport.ErrPeerClosed, closed.Text)
			}
			return transport.ErrPeerClosed
		case wire.CodeGoingAway:
			return errGoingAway
		case wire.CodeIdle:
			return fmt.Errorf("%w, says the peer", transport.ErrIdle)
		case wire.CodeVersion: // which no other attempt changes
			return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		case wire.CodeUnanswered:
			return errUnanswered{}
		case wire.CodeBusy:
			return &transport.RejectedError{Reason: transport.ReasonBusy, Retryable: true, Text: closed.Text}
		}
	}
	return err
}

// failure is what the peer hears of a medium that has failed, if it can be reached yet.
func failure(err error) (wire.Code, string) {
	tooLong, busy := (*framing.TooLongError)(nil), (*transport.RejectedError)(nil)
	switch {
	case errors.As(err, &tooLong):
		return wire.CodeLimit, tooLong.Error()
	case errors.As(err, &busy) && busy.Reason == transport.ReasonBusy:
		return wire.CodeBusy, busy.Text
	case errors.Is(err, transport.ErrNoReceiver):
		return wire.CodeUnanswered, ""
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return wire.CodeInternal, "the stream has ended without CLOSE"
	}
	return wire.CodeInternal, ""
}

// Unanswered adds to an error of Dial where nothing has answered since it began, if it is for want of an answer.
func Unanswered(err error, protocol, peer string, began time.Time) error {
	waited, at := time.Since(began).Round(time.Millisecond), strings.TrimSpace(protocol+" "+peer) // a byte stream may have no name
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("nothing answers at %s within %v: %w (%w)", at, waited, transport.ErrNoReceiver, err)
	case errors.Is(err, transport.ErrNoReceiver):
		return fmt.Errorf("nothing answers at %s (after %v): %w", at, waited, err)
	}
	return err
}

// refusal is an error as a REJECT carries it.
func refusal(err error) *wire.Reject {
	r := &transport.RejectedError{Reason: transport.ReasonOther, Retryable: transport.Retryable(err), Text: err.Error()}
	errors.As(err, &r)
	w := &wire.Reject{
		Reason:      uint8(r.Reason),
		AfterMillis: uint32(max(0, min(r.After.Milliseconds(), 1<<32-1))),
		Text:        wire.CutText(r.Text, wire.MaxText),
	}
	if r.Retryable {
		w.Flags |= wire.RejectRetryable
	}
	return w
}
