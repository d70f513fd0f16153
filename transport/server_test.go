package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/chunk"
)

func TestShutdownFinishesWhatIsActive(t *testing.T) {
	var answer chan error
	store := &MemStore{}
	s := &Server{Store: store, Handler: func(context.Context, *Incoming) error { return <-answer }}
	synctest.Test(t, func(t *testing.T) {
		answer = make(chan error)
		in, conn := inboxConn(t, s, "p")
		o := Offer{ID: MakeID(1, 1), Size: 10, Attempt: 1, Image: Image{Name: "x"}}
		a := mustOffer(t, in, o)
		mustWrite(t, a, make([]byte, 5), 0)
		down := async(func() error { return s.Shutdown(context.Background()) })
		synctest.Wait()

		_, err := in.Offer(t.Context(), Offer{})
		wantReason(t, err, ReasonGoingAway, true)
		// But what is active goes on, even over a new attempt.
		o.Attempt = 2
		a = mustOffer(t, in, o)
		mustWrite(t, a, make([]byte, 10), 0)
		result := async(func() error { _, err := a.Finish(t.Context(), -1, chunk.Digest{}); return err })
		synctest.Wait()
		if len(down) != 0 || isClosed(conn.closed) {
			t.Fatal("Shutdown did not wait for the Handler")
		}
		answer <- nil
		if err := <-result; err != nil {
			t.Error(err)
		}
		if err := <-down; err != nil || !isClosed(conn.closed) || countKept(store) != 1 {
			t.Error(err)
		}
	})
}

func TestShutdownRefusesMessages(t *testing.T) {
	var answer chan error
	s := &Server{Message: func(context.Context, Conn, Message) error { return <-answer }}
	synctest.Test(t, func(t *testing.T) {
		answer = make(chan error)
		in := inbox(t, s, "p")
		result := async(func() error { return in.Message(t.Context(), Message{}) })
		synctest.Wait()
		down := async(func() error { return s.Shutdown(context.Background()) })
		synctest.Wait()
		wantReason(t, in.Message(t.Context(), Message{}), ReasonGoingAway, true)
		if len(down) != 0 {
			t.Error("Shutdown did not wait for the message")
		}
		answer <- nil
		if err := errors.Join(<-result, <-down); err != nil {
			t.Error(err)
		}
	})
}

// A message is refused at the end of Shutdown's patience by a function that minds it. Another one may take the message yet,
// so that nobody says it has not.
func TestMessageFuncsAtTheEndOfShutdown(t *testing.T) {
	for _, stubborn := range []bool{false, true} {
		var answer chan error
		s := &Server{Message: func(ctx context.Context, _ Conn, _ Message) error {
			if !stubborn {
				<-ctx.Done()
				return ctx.Err()
			}
			return <-answer
		}}
		synctest.Test(t, func(t *testing.T) {
			answer = make(chan error)
			in := inbox(t, s, "p")
			result := async(func() error { return in.Message(context.Background(), Message{}) })
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := s.Shutdown(ctx); err != context.DeadlineExceeded {
				t.Error(err)
			}
			synctest.Wait()
			if !stubborn {
				wantReason(t, <-result, ReasonGoingAway, true)
				return
			}
			if len(result) != 0 {
				t.Errorf("while the function runs: %v", <-result)
			}
			answer <- nil
			if err := <-result; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestShutdownLosesPatience(t *testing.T) {
	for _, streaming := range []bool{false, true} {
		store := &spyStore{}
		s := &Server{Store: store, Streaming: streaming, Handler: func(ctx context.Context, in *Incoming) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		synctest.Test(t, func(t *testing.T) {
			in, conn := inboxConn(t, s, "p")
			partial := mustOffer(t, in, Offer{Image: Image{Name: "partial"}, Size: 3 * block, Resume: true})
			mustWrite(t, partial, make([]byte, 2*block), 0)
			lost := mustOffer(t, in, Offer{Image: Image{Name: "lost"}, Size: 10})
			mustWrite(t, lost, make([]byte, 5), 0)
			handling := mustOffer(t, in, Offer{Image: Image{Name: "handling"}, Size: 10})
			mustWrite(t, handling, make([]byte, 10), 0)
			result := async(func() error { _, err := handling.Finish(context.Background(), -1, chunk.Digest{}); return err })
			synctest.Wait()

			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			start := time.Now()
			if err := s.Shutdown(ctx); err != context.DeadlineExceeded || time.Since(start) != 5*time.Second {
				t.Error(err, time.Since(start))
			}
			if !isClosed(conn.closed) {
				t.Error("the Conn is open")
			}
			wantReason(t, <-result, ReasonGoingAway, true)
			for _, a := range []*Arrival{partial, lost} {
				_, err := a.WriteAt([]byte("x"), 0)
				wantReason(t, err, ReasonGoingAway, true)
			}
			var ends []string
			for _, e := range store.events {
				if e == "keep" || e == "discard" {
					ends = append(ends, e)
				}
			}
			if slices.Sort(ends); !slices.Equal(ends, []string{"discard", "discard", "keep"}) {
				t.Error(store.events)
			}
		})
	}
}

// A Conn whose Close hangs does not hold up a Shutdown that has lost its patience.
func TestShutdownEndsThoughAConnHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Store: &MemStore{}}
		c := &stuckTap{newTap("p"), make(chan struct{})}
		served := async(func() error { return s.ServeConn(context.Background(), c) })
		mustOffer(t, <-c.inbox, Offer{Size: 10})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := s.Shutdown(ctx); err != context.DeadlineExceeded || time.Since(start) > 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		close(c.free)
		<-served
	})
}

type stuckTap struct {
	*tap
	free chan struct{}
}

func (c *stuckTap) Close() error {
	<-c.free
	return c.tap.Close()
}

// What the Handler has agreed to is committed even if Shutdown hurries.
func TestCommitOutlivesShutdown(t *testing.T) {
	store := &MemStore{}
	s := &Server{Store: store, Handler: func(ctx context.Context, in *Incoming) error {
		<-ctx.Done()
		return nil
	}}
	synctest.Test(t, func(t *testing.T) {
		a := mustOffer(t, inbox(t, s, "p"), Offer{})
		go a.Finish(context.Background(), -1, chunk.Digest{})
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Shutdown(ctx); err != context.Canceled {
			t.Error(err)
		}
		synctest.Wait()
		if countKept(store) != 1 {
			t.Error("not committed")
		}
	})
}

func TestHooks(t *testing.T) {
	var log []string
	note := func(format string, a ...any) { log = append(log, fmt.Sprintf(format, a...)) }
	s := &Server{Store: &MemStore{}, Hooks: Hooks{
		ConnOpened: func(i Info) { note("opened %s", i.Peer) },
		ConnClosed: func(i Info, err error) { note("closed %s: %v", i.Peer, err) },
		Offered:    func(i TransferInfo) { note("offered %s from %s, %d bytes", i.Name, i.Conn.Peer, i.Size) },
		Finished: func(i TransferInfo, r Receipt, err error) {
			var refused *RejectedError
			if errors.As(err, &refused) {
				note("finished %s: %v", i.Name, refused.Reason)
				return
			}
			note("finished %s: %d bytes, duplicate %v", i.Name, r.Bytes, i.Duplicate)
		},
	}}
	bubble(t, s, func(t *testing.T) {
		in, conn := inboxConn(t, s, "p")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "a"}, Size: 4, Attempt: 1}
		for range 2 {
			if _, err := deliverTo(t.Context(), in, o, []byte("1234")); err != nil {
				t.Fatal(err)
			}
		}
		in.Offer(t.Context(), Offer{Image: Image{Name: ".."}})
		b := mustOffer(t, in, Offer{ID: MakeID(1, 2), Image: Image{Name: "b"}, Size: -1, Attempt: 1})
		c := mustOffer(t, in, Offer{ID: MakeID(1, 2), Image: Image{Name: "b"}, Size: -1, Attempt: 2})
		b.Abort(nil)
		c.Abort(nil)
		c.Abort(nil) // completes nothing twice
		mustOffer(t, in, Offer{Image: Image{Name: "d"}})
		conn.Close()
		synctest.Wait()
		want := []string{
			"opened p",
			"offered a from p, 4 bytes", "finished a: 4 bytes, duplicate false",
			"offered a from p, 4 bytes", "finished a: 4 bytes, duplicate true",
			"offered .. from p, 0 bytes", "finished ..: bad name",
			"offered b from p, -1 bytes", "offered b from p, -1 bytes", "finished b: moved to a newer attempt", "finished b: canceled",
			"offered d from p, 0 bytes", "finished d: canceled",
			"closed p: closed on this side",
		}
		if !slices.Equal(log, want) {
			t.Errorf("%s\nwant\n%s", strings.Join(log, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestHookMayShutDown(t *testing.T) {
	down := make(chan error, 1)
	s := &Server{Store: &MemStore{}}
	s.Hooks.Finished = func(TransferInfo, Receipt, error) { down <- s.Shutdown(context.Background()) }
	synctest.Test(t, func(t *testing.T) {
		down = make(chan error, 1)
		in, conn := inboxConn(t, s, "p")
		if _, err := deliverTo(t.Context(), in, Offer{Size: 1}, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := <-down; err != nil || !isClosed(conn.closed) {
			t.Error(err)
		}
	})
}

func TestSlowHookDropsAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls, dropped int
		unblock := make(chan struct{})
		q := hookQueue{lost: func(n int) { dropped += n }}
		q.add(func() { <-unblock })
		synctest.Wait()
		for range maxEvents + 10 {
			q.add(func() { calls++ })
		}
		close(unblock)
		synctest.Wait()
		if calls != maxEvents || dropped != 10 {
			t.Errorf("%d calls, %d dropped", calls, dropped)
		}
		q.add(func() { calls++ })
		synctest.Wait()
		if calls != maxEvents+1 || dropped != 10 || q.running {
			t.Errorf("then %d calls, %d dropped", calls, dropped)
		}
	})
}

func TestLogger(t *testing.T) {
	var out strings.Builder
	var finished error
	s := &Server{Store: &MemStore{}, Logger: slog.New(slog.NewTextHandler(&out, nil)), Handler: func(context.Context, *Incoming) error { panic("oh") }}
	s.Hooks.Finished = func(_ TransferInfo, _ Receipt, err error) { finished = err }
	bubble(t, s, func(t *testing.T) {
		_, err := deliverTo(t.Context(), inbox(t, s, "p"), Offer{Size: 1}, []byte("x"))
		if wantReason(t, err, ReasonHandler, true); strings.Contains(err.Error(), "oh") {
			t.Error("the sender hears of the panic:", err)
		}
		synctest.Wait()
		if wantReason(t, finished, ReasonHandler, true); !strings.Contains(finished.Error(), "panic: oh") {
			t.Error("the hook does not hear of the panic:", finished)
		}
	})
	for _, want := range []string{"conn opened", "peer=p", "handler panicked", "panic=oh", "stack=", "server_test.go", "image not kept", "panic: oh"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, &out)
		}
	}
}
