package arq

import (
	"fmt"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// CloseError is the end of a session by CLOSE.
type CloseError struct {
	Code   wire.Code
	Remote bool // the peer's CLOSE, or else this side's because of what the peer did
	Text   string
}

func (e *CloseError) Error() string {
	who := "this side"
	if e.Remote {
		who = "the peer"
	}
	if e.Text == "" {
		return fmt.Sprintf("session closed by %s (%v)", who, e.Code)
	}
	return fmt.Sprintf("session closed by %s (%v): %s", who, e.Code, e.Text)
}

// closeCopies is how often CLOSE is sent at once on a link that loses.
const closeCopies = 3

// ending is the end of the session. After the Closed event a CLOSE of this side's is
// sent again for each few messages that still arrive, for a while.
type ending struct {
	err    error
	frame  *wire.Close // to tell the peer; nil: nothing to tell
	due    bool        // frame is to be sent
	copies int32       // more of it, as nobody acknowledges it
	heard  int32       // messages since
	resend int32       // answer after so many
	until  time.Duration
}

func (n *ending) over() bool { return n.err != nil }

// Close tells the peer and ends the session; the Closed event is there at once. Poll then gives
// the CLOSE. Until Deadline is zero the engine repeats it to a peer that goes on sending;
// the owner need not wait for that.
func (e *Engine) Close(now time.Time, code wire.Code, text string) {
	e.step(now)
	if !e.ending.over() {
		e.ending.frame = &wire.Close{Code: code, Text: wire.CutText(text, wire.MinMessage/2)}
		e.end(ErrClosed)
	}
}

// violated ends the session because of what the peer sent.
func (e *Engine) violated(err *wire.Error) {
	e.ending.frame = &wire.Close{Code: err.Code, Text: wire.CutText(err.Error(), wire.MinMessage/2)}
	e.end(&CloseError{Code: err.Code, Text: err.Error()})
}

// end ends the session, silently unless ending.frame is set.
func (e *Engine) end(err error) {
	n := &e.ending
	if n.over() {
		return
	}
	n.err = err
	if n.frame != nil {
		n.due, n.resend = true, 1
		if e.recovery != nil {
			n.copies = closeCopies - 1
			n.until = e.now + 3*e.rtt.probeTimeout()
		}
	}
	e.sent.clear(e.sent.next)
	e.controls, e.schedule, e.waiting = controls{}, scheduler{}, waitingOffers{}
	e.outs, e.running, e.ins = table[outgoing]{}, 0, table[incoming]{}
	e.events.push(Event{Kind: Closed, Err: err})
}

// receiveClosing answers a peer that goes on sending, ever more rarely.
func (e *Engine) receiveClosing() error {
	n := &e.ending
	if n.until != 0 && e.now < n.until {
		if n.heard++; n.heard >= n.resend {
			n.heard, n.due = 0, true
			n.resend *= 2
		}
	}
	return n.err
}

func (e *Engine) onClose(body []byte) error {
	var f wire.Close
	if err := f.Parse(body); err != nil {
		return err
	}
	e.end(&CloseError{Code: f.Code, Remote: true, Text: f.Text})
	return nil
}
