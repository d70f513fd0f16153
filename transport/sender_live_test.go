package transport

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sendFrame begins to send a frame of the source cam, and returns when that waits for something.
func sendFrame(ctx context.Context, s *Sender, attempt func(context.Context, *Outgoing) (Receipt, error)) chan error {
	result := async(func() error {
		_, err := s.Send(ctx, everything, &Image{Source: "cam", Body: Bytes(nil)}, &SendOptions{Live: &Live{}}, attempt)
		return err
	})
	synctest.Wait()
	return result
}

// enterFrame registers such a frame, and no more.
func enterFrame(t *testing.T, s *Sender, info Info, live Live, captured time.Time) (context.Context, *sending) {
	t.Helper()
	ctx, me, err := s.enter(t.Context(), info, &Image{Source: "cam", Captured: captured}, &Outgoing{Options: SendOptions{Live: &live}})
	if err != nil {
		t.Fatal(err)
	}
	return ctx, me
}

// A link that is too slow for a source still delivers some of its frames.
func TestFastLiveSourceOnASlowLinkIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Sender
		var frames sync.WaitGroup
		var kept, superseded int
		var mu sync.Mutex
		for range 100 {
			frames.Go(func() {
				_, err := s.Send(t.Context(), everything, &Image{Source: "cam", Body: Bytes(nil)}, &SendOptions{Live: &Live{}}, func(ctx context.Context, out *Outgoing) (Receipt, error) {
					time.Sleep(30 * time.Millisecond)
					return keep(ctx, out)
				})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					kept++
				} else if errors.Is(err, ErrSuperseded) {
					superseded++
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		frames.Wait()
		if kept < 33 || kept+superseded != 100 {
			t.Errorf("of 100 frames, one each 10 ms, %d were kept and %d superseded where one takes 30 ms", kept, superseded)
		}
	})
}

// A frame that was superseded, and whose goroutine is late to leave, is in nobody's way.
func TestLateSupersededFrame(t *testing.T) {
	var s Sender
	enter := func() *sending {
		_, me := enterFrame(t, &s, everything, Live{}, time.Time{})
		return me
	}
	first, superseded, newest := enter(), enter(), enter()
	s.leave(first)
	s.leave(newest)
	next := enter()
	s.leave(superseded)
	if last := enter(); !isClosed(next.turn) || isClosed(last.turn) {
		t.Errorf("begun %v, want true; while it is on its way %v, want false", isClosed(next.turn), isClosed(last.turn))
	}
}

// A frame that is given up while it waits for its turn leaves that to the next.
func TestWaitingLiveFrameIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Sender
		arrive := make(chan struct{})
		send := func(ctx context.Context) chan error {
			return sendFrame(ctx, &s, func(ctx context.Context, out *Outgoing) (Receipt, error) {
				<-arrive
				return keep(ctx, out)
			})
		}
		first := send(t.Context())
		ctx, cancel := context.WithCancel(t.Context())
		waiting := send(ctx)
		cancel()
		wantOutcome(t, <-waiting, NotKept, context.Canceled)
		close(arrive)
		if err := <-first; err != nil {
			t.Error(err)
		}
		if err := <-send(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestOnlyTheNewestLiveFrameStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Sender
		send := func() chan error {
			return sendFrame(t.Context(), &s, func(ctx context.Context, _ *Outgoing) (Receipt, error) {
				<-ctx.Done()
				return Receipt{}, ctx.Err()
			})
		}
		first, older := send(), send()
		for range 3 {
			newer := send()
			wantOutcome(t, <-older, NotKept, ErrSuperseded)
			older = newer
		}
		if len(first) != 0 {
			t.Error("the frame on its way gave way:", <-first)
		}
		s.Close(ErrClosed)
		wantOutcome(t, <-first, NotKept, ErrClosed)
		wantOutcome(t, <-older, NotKept, ErrClosed)
		if len(s.live) != 0 {
			t.Error(len(s.live), "sources are remembered")
		}
	})
}

// Of frames whose goroutines run in another order than they were captured in, the newest goes.
func TestFrameCapturedEarlierGivesWay(t *testing.T) {
	var s Sender
	enter := func(captured time.Time) (superseded func() bool, me *sending) {
		ctx, me := enterFrame(t, &s, everything, Live{}, captured)
		return func() bool { return errors.Is(context.Cause(ctx), cut{ErrSuperseded}) }, me
	}
	at := func(second int64) time.Time { return time.Unix(second, 0) }
	_, first := enter(at(2))
	if late, me := enter(at(1)); !late() {
		t.Error("a frame older than the one on its way waits")
	} else {
		s.leave(me)
	}
	waits, newest := enter(at(4))
	if late, me := enter(at(3)); !late() || waits() {
		t.Error("a frame older than the one that waits takes its place")
	} else {
		s.leave(me)
	}
	s.leave(first)
	if unknown, _ := enter(time.Time{}); unknown() || waits() {
		t.Error("a frame without a time of capture is older than none")
	}
	s.leave(newest)
	if back, _ := enter(at(1)); back() { // the source's clock was set back
		t.Error("a frame is measured by ones that have ended")
	}
}

// Several frames may be on their way, as many as the caller and the Conn allow; the queue behind them stays
// of depth one.
func TestLiveFramesInFlight(t *testing.T) {
	for _, c := range []struct{ inFlight, concurrency, begin int }{{2, 8, 2}, {3, 8, 3}, {3, 1, 1}, {0, 8, 1}, {-1, 8, 1}} {
		var s Sender
		info := Info{Confirms: Kept, Concurrency: c.concurrency}
		enter := func() (context.Context, *sending) {
			return enterFrame(t, &s, info, Live{InFlight: c.inFlight}, time.Time{})
		}
		var first []*sending
		for range c.begin {
			_, me := enter()
			if !isClosed(me.turn) {
				t.Errorf("%+v: frame %d waits", c, len(first))
			}
			first = append(first, me)
		}
		gone, older := enter()
		stays, newest := enter()
		if isClosed(older.turn) || isClosed(newest.turn) || gone.Err() == nil || stays.Err() != nil {
			t.Errorf("%+v: of two more the newer one waits, and the other gives way", c)
		}
		s.leave(older)
		s.leave(first[len(first)-1])
		if !isClosed(newest.turn) {
			t.Errorf("%+v: a frame waits though one has left", c)
		}
	}
}
