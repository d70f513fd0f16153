package session

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
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

// A peer that takes more than this side keeps, and acknowledges nothing, does not get more.
func TestSentBytesAreBounded(t *testing.T) {
	const size = 2 * largestWindow
	for _, own := range []int{0, size} {
		peer := NewEndpoint(Config{Settings: Settings{Window: 2 * size}})
		a, _ := couple(t, newConn(NewEndpoint(Config{Settings: Settings{Window: own}}), nil), peer, still{})
		buf := make([]byte, 64<<10)
		p := make([]byte, largePiece)
		held := int64(0)
		handle, err := a.eng.Offer(&wire.Offer{Size: wire.UnknownSize, Algorithm: 1})
		for err == nil && a.eng.Want(handle) > 0 && held < 2*size {
			if err = a.eng.Supply(handle, held, p); err == nil {
				held += int64(len(p))
				for a.Poll(time.Now(), buf) > 0 {
				}
			}
		}
		if most := int64(max(own, largestWindow)); err != nil || held < most || held > most+4*largePiece {
			t.Errorf("with a window of its own of %d a sender keeps %d bytes (%v), want %d and some read ahead", own, held, err, most)
		}
	}
}

// A message that the program has refused is shown to it again when it is repeated, and one that it took is not.
func TestRefusedMessageIsRepeated(t *testing.T) {
	var as answers
	no, calls := errors.New("no"), 0
	for i, want := range []error{no, nil, nil} {
		if err := as.once(t.Context(), transport.MakeID(1, 1), func() error { calls++; return want }); !errors.Is(err, want) || calls != min(i+1, 2) {
			t.Errorf("repetition %d: %v after %d calls", i, err, calls)
		}
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
