package transport

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/chunk"
)

const block = chunk.BlockSize

// offering offers on a goroutine of its own, as it may have to wait.
func offering(t *testing.T, in *Inbox, o Offer) <-chan *Arrival {
	offered := make(chan *Arrival)
	go func() {
		a, err := in.Offer(t.Context(), o)
		if err != nil {
			t.Error(err)
		}
		offered <- a
	}()
	return offered
}

// What is held is told in few runs, as it is in order.
func TestHeldIsAscending(t *testing.T) {
	const blocks = 12
	content := picture(1, blocks*block)
	s := &Server{Store: &MemStore{}}
	bubble(t, s, func(t *testing.T) {
		in := inbox(t, s, "10.0.0.1:1000")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: int64(len(content)), Attempt: 1, Resume: true}
		a := mustOffer(t, in, o)
		for i := blocks - 1; i > 0; i-- { // never the first
			mustWrite(t, a, content[i*block:(i+1)*block], int64(i*block))
		}
		for _, abort := range []bool{false, true} { // taken over, and from the Store
			if abort {
				a.Abort(nil)
			}
			o.Attempt++
			a = mustOffer(t, in, o)
			held := a.Held()
			if len(held) != blocks-1 || !slices.IsSortedFunc(held, func(x, y chunk.Block) int { return int(x.Index - y.Index) }) {
				t.Errorf("held: %v", held)
			}
			if err := a.Use(nil); err != nil {
				t.Fatal(err)
			}
			for i := blocks - 1; i > 0; i-- {
				mustWrite(t, a, content[i*block:(i+1)*block], int64(i*block))
			}
		}
		a.Abort(nil)
	})
}

// Whoever has given up, or closed its Conn, may send again under the same ID in the same second.
func TestEqualAttemptWaitsForTheOneBefore(t *testing.T) {
	content := picture(1, 1000)
	s := &Server{Store: &MemStore{}}
	bubble(t, s, func(t *testing.T) {
		one, two := inbox(t, s, "10.0.0.1:1000"), inbox(t, s, "10.0.0.2:2000")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: int64(len(content)), Attempt: 5}
		old := mustOffer(t, one, o)
		again := offering(t, two, o)
		synctest.Wait()
		old.Abort(context.Canceled)
		a := <-again
		mustWrite(t, a, content, 0)
		if _, err := a.Finish(t.Context(), -1, chunk.Digest{}); err != nil {
			t.Error(err)
		}
	})
}

// An equal attempt that waits for the one before shares its receipt, if that has begun to finish meanwhile, however long its
// Handler takes.
func TestEqualAttemptJoinsTheOneBefore(t *testing.T) {
	content := picture(1, 1000)
	s := &Server{Store: &MemStore{}, Handler: func(context.Context, *Incoming) error {
		time.Sleep(2 * leaveTime)
		return nil
	}}
	bubble(t, s, func(t *testing.T) {
		one, two := inbox(t, s, "10.0.0.1:1000"), inbox(t, s, "10.0.0.2:2000")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: int64(len(content)), Attempt: 5}
		old := mustOffer(t, one, o)
		mustWrite(t, old, content, 0)
		again := offering(t, two, o)
		time.Sleep(leaveTime / 2)
		go old.Finish(t.Context(), -1, chunk.Digest{})
		a := <-again
		if a == nil {
			return
		}
		if r, err := a.Finish(t.Context(), -1, chunk.Digest{}); err != nil || r.Level != Kept {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// slowEnd is a Store that takes its time to let go of an image.
type slowEnd struct{ *MemStore }

type slowEndPartial struct{ Partial }

func (s slowEnd) Open(ctx context.Context, o PartialOffer) (Partial, error) {
	p, err := s.MemStore.Open(ctx, o)
	return slowEndPartial{p}, err
}

func (p slowEndPartial) Discard() error {
	time.Sleep(leaveTime)
	return p.Partial.Discard()
}

// Nor is it refused if the one before ends just when the second is over.
func TestEqualAttemptAfterALateEnd(t *testing.T) {
	s := &Server{Store: slowEnd{&MemStore{}}}
	bubble(t, s, func(t *testing.T) {
		one, two := inbox(t, s, "10.0.0.1:1000"), inbox(t, s, "10.0.0.2:2000")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: 10, Attempt: 5}
		old := mustOffer(t, one, o)
		again := offering(t, two, o)
		time.Sleep(leaveTime / 2)
		old.Abort(nil)
		if a := <-again; a != nil {
			a.Abort(nil)
		}
	})
}

func TestHigherAttemptTakesOver(t *testing.T) {
	content := picture(1, 3*block+100)
	store := &MemStore{}
	s := &Server{Store: store, Limits: Limits{MaxActive: 1}}
	bubble(t, s, func(t *testing.T) {
		one, two := inbox(t, s, "10.0.0.1:1000"), inbox(t, s, "10.0.0.2:2000")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: int64(len(content)), Attempt: 5, Resume: true}
		old := mustOffer(t, one, o)
		mustWrite(t, old, content[:block+10], 0) // one block and a bit
		mustWrite(t, old, content[3*block:], 3*block)

		for _, attempt := range []uint32{5, 4, 0} {
			o.Attempt = attempt
			_, err := two.Offer(t.Context(), o)
			wantReason(t, err, ReasonMoved, true)
		}
		mustWrite(t, old, content[block+10:block+20], block+10) // still the owner

		o.Attempt = 6
		a := mustOffer(t, two, o)
		_, err := old.WriteAt(content[:10], 0)
		wantReason(t, err, ReasonMoved, false)
		wantReason(t, old.Use(nil), ReasonMoved, false)
		_, err = old.Finish(t.Context(), -1, chunk.Digest{})
		wantReason(t, err, ReasonMoved, false)
		old.Abort(nil) // a late cancel of a dead link
		if old.Joined() || old.Missing(1) != nil {
			t.Error("the old Arrival answers")
		}

		held := a.Held()
		if len(held) != 2 || held[0].Index != 0 || held[1].Index != 3 {
			t.Fatal("held:", held)
		}
		if held[0].Digest != chunk.NewBlockHasher(XXH3).Sum(content[:block]) {
			t.Error("wrong digest of block 0")
		}
		if err := a.Use([]int64{0, 3}); err != nil {
			t.Fatal(err)
		}
		if a.Received() != block+100 {
			t.Error("received:", a.Received())
		}
		if got := a.Missing(5); len(got) != 1 || got[0] != (chunk.Range{Start: block, End: 3 * block}) {
			t.Error("missing:", got)
		}
		mustWrite(t, a, content[block:3*block], block)
		if a.Missing(1) != nil {
			t.Error("not whole")
		}
		r, err := a.Finish(t.Context(), -1, digestOf(XXH3, content))
		if err != nil || r.Reused != block+100 || r.Resent != 20 {
			t.Errorf("%+v, %v", r, err)
		}
		if !bytes.Equal(kept(t, store, "x"), content) {
			t.Error("other bytes were kept")
		}
	})
}

func TestTakeOverByAnotherImageStartsAfresh(t *testing.T) {
	content := picture(1, 2*block)
	for name, change := range map[string]func(*Offer){
		"size":      func(o *Offer) { o.Size++ },
		"name":      func(o *Offer) { o.Image.Name = "y" },
		"algorithm": func(o *Offer) { o.Digest = chunk.SHA256 },
	} {
		t.Run(name, func(t *testing.T) {
			s := &Server{Store: &MemStore{MaxBytes: 3 * block}} // two at once do not fit
			bubble(t, s, func(t *testing.T) {
				in := inbox(t, s, "p")
				o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: int64(len(content)), Attempt: 1, Resume: true}
				old := mustOffer(t, in, o)
				mustWrite(t, old, content, 0)
				o.Attempt = 2
				change(&o)
				a := mustOffer(t, in, o)
				if len(a.Held()) != 0 || a.Received() != 0 {
					t.Errorf("%d blocks held", len(a.Held()))
				}
				_, err := old.Finish(t.Context(), -1, chunk.Digest{})
				wantReason(t, err, ReasonMoved, false)
				mustWrite(t, a, picture(2, int(o.Size)), 0)
				if _, err := a.Finish(t.Context(), -1, chunk.Digest{}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Who waits for an older attempt to end, and gives up, has no Arrival, and the older one goes on.
func TestEqualAttemptWaitsNoLongerThanItsContext(t *testing.T) {
	content := picture(1, 1000)
	s := &Server{Store: &MemStore{}}
	bubble(t, s, func(t *testing.T) {
		one, two := inbox(t, s, "10.0.0.1:1000"), inbox(t, s, "10.0.0.2:2000")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: int64(len(content)), Attempt: 5}
		old := mustOffer(t, one, o)
		ctx, cancel := context.WithTimeout(t.Context(), leaveTime/2)
		defer cancel()
		if a, err := two.Offer(ctx, o); a != nil || err != context.DeadlineExceeded {
			t.Errorf("%v, %v", a, err)
		}
		mustWrite(t, old, content, 0)
		if _, err := old.Finish(t.Context(), -1, chunk.Digest{}); err != nil {
			t.Error(err)
		}
	})
}

// An attempt ends while a newer one waits to take it over: that one begins anew.
func TestAttemptEndsWhileANewerOneTakesItOver(t *testing.T) {
	content := picture(1, 1000)
	store := &hungStore{write: true}
	s := &Server{Store: store}
	bubble(t, s, func(t *testing.T) {
		store.hangs, store.back = make(chan struct{}, 1), make(chan struct{})
		in := inbox(t, s, "10.0.0.1:1000")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: int64(len(content)), Attempt: 1}
		old := mustOffer(t, in, o)
		go old.WriteAt(content, 0)
		<-store.hangs
		go old.Abort(nil) // first in the queue behind the write
		synctest.Wait()
		o.Attempt = 2
		again := offering(t, in, o)
		synctest.Wait()
		store.write = false
		close(store.back)
		a := <-again
		_, err := old.WriteAt(content, 0) // late
		wantReason(t, err, ReasonCanceled, true)
		mustWrite(t, a, content, 0)
		if _, err := a.Finish(t.Context(), -1, chunk.Digest{}); err != nil || !bytes.Equal(kept(t, &store.MemStore, "x"), content) {
			t.Error(err)
		}
	})
}

// A take-over by another image for which the Store has no room ends the old one too, and the ID is free again.
func TestTakeOverThatTheStoreRefuses(t *testing.T) {
	store := &spyStore{fail: make(map[string]error)}
	s := &Server{Store: store}
	bubble(t, s, func(t *testing.T) {
		in := inbox(t, s, "10.0.0.1:1000")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: 1000, Attempt: 1}
		mustOffer(t, in, o)
		store.fail["open"] = syscall.ENOSPC
		o.Size, o.Attempt = 2000, 2
		_, err := in.Offer(t.Context(), o)
		wantReason(t, err, ReasonDisk, true)
		if len(s.assemblies) != 0 || len(in.arrivals) != 0 {
			t.Errorf("left: %d assemblies, %d Arrivals", len(s.assemblies), len(in.arrivals))
		}
		delete(store.fail, "open")
		o.Attempt = 3
		if _, err := deliverTo(t.Context(), in, o, picture(2, 2000)); err != nil {
			t.Error(err)
		}
	})
}

// Senders that fight over one ID, with aborts and take-overs at any time, leave
// one right image, one receipt and a completion for each offer.
func TestManyAttemptsAtOnce(t *testing.T) {
	const senders = 8
	content := picture(1, 4*block+100)
	digest := digestOf(XXH3, content)
	blocks := chunk.NewBlockHasher(XXH3)
	var tree [5]chunk.Digest
	for i := range tree {
		r := chunk.BlockRange(int64(i), int64(len(content)))
		tree[i] = blocks.Sum(content[r.Start:r.End])
	}
	for _, streaming := range []bool{false, true} {
		seed := rand.Uint64()
		store := &MemStore{}
		var agreed, offered, finished atomic.Int64
		s := &Server{Store: store, Streaming: streaming, Handler: func(ctx context.Context, in *Incoming) error {
			got, err := in.Image.Body.ReadAll(ctx)
			if err == nil && !bytes.Equal(got, content) {
				t.Error("the Handler has read other bytes to the end")
			}
			if err == nil {
				agreed.Add(1)
			}
			return err
		}, Hooks: Hooks{
			Offered:  func(TransferInfo) { offered.Add(1) },
			Finished: func(TransferInfo, Receipt, error) { finished.Add(1) },
		}}
		synctest.Test(t, func(t *testing.T) {
			var attempt atomic.Uint32
			var all sync.WaitGroup
			for n := range senders {
				rng := rand.New(rand.NewPCG(seed, uint64(n)))
				all.Go(func() {
					for {
						in, conn := inboxConn(t, s, fmt.Sprintf("10.0.0.%d:1", n))
						r, err := fight(t, rng, in, attempt.Add(1), content, tree[:])
						conn.Close()
						if err == nil {
							if r.Digest != digest || r.Bytes != int64(len(content)) {
								t.Errorf("receipt %+v", r)
							}
							return
						}
						if !Retryable(err) && asRejected(err, ReasonOther).Reason != ReasonMoved {
							t.Error(err)
							return
						}
						// Virtual time: without it the hooks' queue may overflow.
						time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond)
					}
				})
			}
			all.Wait()
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if agreed.Load() != 1 || countKept(store) != 1 || offered.Load() != finished.Load() {
				t.Errorf("seed %d: %d Handlers have agreed, %d images, %d offers, %d completions",
					seed, agreed.Load(), countKept(store), offered.Load(), finished.Load())
			}
		})
		if !bytes.Equal(kept(t, store, "x"), content) {
			t.Errorf("seed %d: other bytes are kept", seed)
		}
	}
}

// fight is one attempt, which may give up at any point.
func fight(t *testing.T, rng *rand.Rand, in *Inbox, attempt uint32, content []byte, tree []chunk.Digest) (Receipt, error) {
	o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: int64(len(content)), Attempt: attempt, Resume: true}
	a, err := in.Offer(t.Context(), o)
	if err != nil {
		return Receipt{}, err
	}
	var same []int64
	for _, b := range a.Held() {
		if b.Digest != tree[b.Index] {
			t.Errorf("block %d is held with a wrong digest", b.Index)
		}
		if rng.IntN(4) > 0 {
			same = append(same, b.Index)
		}
	}
	if err := a.Use(same); err != nil {
		return Receipt{}, err
	}
	for a.Missing(1) != nil {
		off := rng.IntN(len(content))
		end := min(len(content), off+rng.IntN(block))
		if gaps := a.Missing(1); len(gaps) > 0 && rng.IntN(2) == 0 {
			off, end = int(gaps[0].Start), int(gaps[0].End)
		}
		if _, err := a.WriteAt(content[off:end], int64(off)); err != nil {
			return Receipt{}, err
		}
		if rng.IntN(20) == 0 {
			err := later(ReasonCanceled, "given up")
			a.Abort(err)
			return Receipt{}, err
		}
	}
	return a.Finish(t.Context(), -1, digestOf(XXH3, content))
}
