package transport

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/chunk"
)

func TestOfferJoinsARunningHandler(t *testing.T) {
	content := picture(1, 1000)
	for _, fail := range []bool{false, true} {
		calls := 0
		answer := make(chan error)
		s := &Server{Store: &MemStore{}, Handler: func(context.Context, *Incoming) error {
			calls++
			return <-answer
		}}
		synctest.Test(t, func(t *testing.T) {
			answer = make(chan error)
			in := inbox(t, s, "p")
			o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: 1000, Attempt: 5}
			type result struct {
				r   Receipt
				err error
			}
			results := make(chan result, 4)
			finish := func(a *Arrival) {
				r, err := a.Finish(context.Background(), -1, chunk.Digest{})
				results <- result{r, err}
			}
			a := mustOffer(t, in, o)
			mustWrite(t, a, content, 0)
			go finish(a)
			synctest.Wait()
			for _, attempt := range []uint32{6, 4} {
				o.Attempt = attempt
				b := mustOffer(t, inbox(t, s, "q"), o)
				if _, done := b.Done(); done || !b.Joined() || b.Missing(1) != nil {
					t.Error("a joined Arrival wants bytes, or is done")
				}
				mustWrite(t, b, []byte("other bytes"), 0) // ignored
				go finish(b)
			}
			quitter := mustOffer(t, in, o)
			quitter.Abort(nil) // does not end the others
			synctest.Wait()
			if len(results) != 0 {
				t.Error("a Finish returned before the Handler")
			}
			var refusal error
			if fail {
				refusal = Reject("no")
			}
			answer <- refusal
			reused := int64(0)
			for range 3 {
				got := <-results
				if (got.err != nil) != fail || !fail && (got.r.Bytes != 1000 || got.r.Digest != digestOf(XXH3, content)) {
					t.Errorf("%+v", got)
				}
				reused += got.r.Reused
			}
			if want := int64(2000); !fail && reused != want { // by those who joined
				t.Errorf("%d bytes reused, want %d", reused, want)
			}
			if err := s.Shutdown(context.Background()); err != nil || calls != 1 {
				t.Errorf("%d calls; %v", calls, err)
			}
		})
	}
}

// A sender that does not wait for the receipt finds it later.
func TestFinishContextBoundsOnlyTheWaiting(t *testing.T) {
	var answer chan error
	store := &MemStore{}
	var seen error
	s := &Server{Store: store, Handler: func(ctx context.Context, in *Incoming) error {
		err := <-answer
		seen = ctx.Err()
		return err
	}}
	bubble(t, s, func(t *testing.T) {
		answer = make(chan error)
		in, conn := inboxConn(t, s, "p")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: 1}
		a := mustOffer(t, in, o)
		mustWrite(t, a, []byte("x"), 0)
		giveUp(t, a)
		conn.Close() // the whole Conn ends
		synctest.Wait()
		answer <- nil
		synctest.Wait()
		if seen != nil {
			t.Error("the Handler's context ended with the Conn:", seen)
		}
		a = mustOffer(t, inbox(t, s, "p"), o)
		if r, done := a.Done(); !done || r.Bytes != 1 || countKept(store) != 1 {
			t.Errorf("%+v, %v", r, done)
		}
	})
}

// giveUp ends a wait for the receipt.
func giveUp(t *testing.T, a *Arrival) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	result := async(func() error { _, err := a.Finish(ctx, -1, chunk.Digest{}); return err })
	synctest.Wait()
	cancel()
	if err := <-result; err != context.Canceled {
		t.Error(err)
	}
}

// A protocol that gives up while the Handler runs has not given the image up: that is kept, and the hooks hear so.
func TestAbortWhileFinishing(t *testing.T) {
	var answer chan error
	store := &MemStore{}
	var heard []error
	s := &Server{Store: store, Handler: func(context.Context, *Incoming) error { return <-answer }, Hooks: Hooks{
		Finished: func(_ TransferInfo, _ Receipt, err error) { heard = append(heard, err) },
	}}
	bubble(t, s, func(t *testing.T) {
		answer = make(chan error)
		a := mustOffer(t, inbox(t, s, "p"), Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: 1})
		mustWrite(t, a, []byte("x"), 0)
		giveUp(t, a)
		a.Abort(errors.New("the link was lost"))
		answer <- nil
		synctest.Wait()
		if r, err := a.Finish(t.Context(), -1, chunk.Digest{}); err != nil || r.Bytes != 1 || countKept(store) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		if len(heard) != 1 || heard[0] != nil {
			t.Errorf("the hook hears %v", heard)
		}
	})
}

func TestOfferWaitsOnlyAsLongAsItsContext(t *testing.T) {
	store := &hungStore{open: true}
	s := &Server{Store: store}
	bubble(t, s, func(t *testing.T) {
		store.back = make(chan struct{})
		in := inbox(t, s, "p")
		first := offering(t, in, Offer{ID: MakeID(1, 1)})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := in.Offer(ctx, Offer{ID: MakeID(1, 1), Attempt: 2})
		if err != context.DeadlineExceeded {
			t.Error(err)
		}
		_, err = in.Offer(ctx, Offer{ID: MakeID(1, 2)}) // the Store itself heeds the context
		if err != context.DeadlineExceeded {
			t.Error(err)
		}
		close(store.back)
		if a := <-first; a != nil {
			a.Abort(nil)
		}
	})
}

// A Conn ends while the Store opens its image: nothing of that is left, and hooks hear once of the end.
func TestConnEndsDuringAnOffer(t *testing.T) {
	store := &hungStore{open: true}
	offered, finished := 0, 0
	s := &Server{Store: store, Hooks: Hooks{
		Offered:  func(TransferInfo) { offered++ },
		Finished: func(TransferInfo, Receipt, error) { finished++ },
	}}
	bubble(t, s, func(t *testing.T) {
		store.back = make(chan struct{})
		in, conn := inboxConn(t, s, "p")
		result := async(func() error { _, err := in.Offer(context.Background(), Offer{ID: MakeID(1, 1)}); return err })
		synctest.Wait()
		conn.Close()
		synctest.Wait()
		close(store.back)
		wantReason(t, <-result, ReasonCanceled, true)
		if len(s.assemblies) != 0 || len(in.arrivals) != 0 {
			t.Error("the Arrival was left behind")
		}
		if synctest.Wait(); offered != 1 || finished != 1 {
			t.Errorf("offered %d times, finished %d times", offered, finished)
		}
	})
}

// hungStore is one whose disk is away: its calls hang until their context ends, or for good.
type hungStore struct {
	MemStore
	open, write bool          // which hangs
	hangs       chan struct{} // has a token when a call does
	back        chan struct{} // closed when the disk is
}

type hungPartial struct {
	Partial
	s *hungStore
}

func (s *hungStore) Open(ctx context.Context, o PartialOffer) (Partial, error) {
	if s.open {
		s.hang()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.back:
		}
	}
	p, err := s.MemStore.Open(ctx, o)
	return &hungPartial{p, s}, err
}

func (s *hungStore) hang() {
	select {
	case s.hangs <- struct{}{}:
	default:
	}
}

func (p *hungPartial) WriteAt(b []byte, off int64) (int, error) {
	if p.s.write {
		p.s.hang()
		<-p.s.back
	}
	return p.Partial.WriteAt(b, off)
}

func TestShutdownEndsThoughTheStoreHangs(t *testing.T) {
	for name, store := range map[string]*hungStore{"Open": {open: true}, "WriteAt": {write: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store.hangs, store.back = make(chan struct{}, 1), make(chan struct{})
				s := &Server{Store: store}
				a, b := Pipe()
				served := async(func() error { return s.ServeConn(t.Context(), b) })
				sent := async(func() error {
					_, err := a.Send(t.Context(), &Image{Name: "x", Body: Bytes([]byte("x"))}, nil)
					return err
				})
				<-store.hangs
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began := time.Now()
				err := s.Shutdown(ctx)
				if took := time.Since(began) - time.Minute; !errors.Is(err, context.DeadlineExceeded) || took > 3*lastTime {
					t.Errorf("%v after the context, %v", took, err)
				}
				close(store.back)
				a.Close()
				<-served
				if err := <-sent; err == nil {
					t.Error("sent to a store that was away")
				}
			})
		})
	}
}

// Metrics are complete when Shutdown returns; a hook that hangs, or calls Shutdown, does not hold it up for long.
func TestShutdownWaitsForHooks(t *testing.T) {
	for name, c := range map[string]struct {
		hook func(*Server, chan struct{})
		told bool
		took time.Duration
	}{
		"slow":           {func(*Server, chan struct{}) { time.Sleep(lastTime / 2) }, true, lastTime / 2},
		"hangs":          {func(_ *Server, end chan struct{}) { <-end }, false, lastTime},
		"calls Shutdown": {func(s *Server, _ chan struct{}) { _ = s.Shutdown(context.Background()) }, true, lastTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told atomic.Bool
				end := make(chan struct{})
				s := &Server{Store: &MemStore{}}
				s.Hooks.ConnClosed = func(Info, error) {
					c.hook(s, end)
					told.Store(true)
				}
				a, b := Pipe()
				served := async(func() error { return s.ServeConn(t.Context(), b) })
				synctest.Wait()
				began := time.Now()
				if err := s.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took != c.took || c.told != told.Load() && name != "calls Shutdown" {
					t.Errorf("after %v; the hook has returned: %v", took, told.Load())
				}
				close(end)
				<-served
				a.Close()
			})
		})
	}
}
