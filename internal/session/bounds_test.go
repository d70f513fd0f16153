package session

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/pixferry/pixferry/transport"
)

// The answers to old messages are forgotten: who has sent many takes no more memory.
func TestAnswersAreBounded(t *testing.T) {
	var as answers
	calls := 0
	take := func(n int) {
		t.Helper()
		if err := as.once(t.Context(), transport.MakeID(1, uint64(n)), func() error { calls++; return nil }); err != nil {
			t.Error(err)
		}
	}
	const more = 10
	for n := range maxAnswers + more {
		take(n)
	}
	if len(as.by) != maxAnswers || len(as.fifo) != maxAnswers {
		t.Errorf("%d and %d are remembered", len(as.by), len(as.fifo))
	}
	take(more) // the oldest of them
	if calls != maxAnswers+more {
		t.Error("a message was taken twice")
	}
}

// A Conn that nobody will accept is closed: when there are too many, and when the listener is.
func TestBacklogClosesWhatItCannotHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, ep := NewBacklog(), NewEndpoint(Config{})
		var conns []*Conn
		ready := func() {
			c := newConn(ep, nil)
			conns = append(conns, c)
			b.Ready(c)
			synctest.Wait()
		}
		open := func() (n int) {
			for _, c := range conns {
				if c.ctx.Err() == nil {
					n++
				}
			}
			return n
		}
		for range maxBacklog + 1 {
			ready()
		}
		if n := open(); n != maxBacklog || conns[maxBacklog].ctx.Err() == nil {
			t.Errorf("%d Conns are open", n)
		}
		b.Close()
		ready()
		if n := open(); n != 0 {
			t.Errorf("%d Conns are open after Close", n)
		}
		if _, err := b.Accept(t.Context()); !errors.Is(err, transport.ErrClosed) {
			t.Error(err)
		}
	})
}
