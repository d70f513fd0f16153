package transport

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"

	"github.com/pixferry/pixferry/chunk"
)

const block = chunk.BlockSize

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
		if old.Whole() || old.Missing(1) != nil {
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
		if got := a.Missing(5); len(got) != 1 || got[0] != (chunk.Range{Start: block, End: 3 * block}) {
			t.Error("missing:", got)
		}
		mustWrite(t, a, content[block:3*block], block)
		if !a.Whole() {
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

func TestHeldBlocksAreUsedOnlyWhenProven(t *testing.T) {
	content := picture(1, 3*block)
	changed := bytes.Clone(content)
	changed[block]++ // another second block
	for name, c := range map[string]struct {
		use    []int64
		reused int64
	}{
		"those that are equal": {[]int64{0, 2, 77}, 2 * block},
		"none":                 {nil, 0},
		"not asked":            {[]int64{-1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			store := &MemStore{}
			s := &Server{Store: store}
			bubble(t, s, func(t *testing.T) {
				in := inbox(t, s, "p")
				o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: 3 * block, Resume: true}
				a := mustOffer(t, in, o)
				mustWrite(t, a, content, 0)
				a.Abort(nil)
				o.ID = MakeID(1, 2) // the resume key does not need the ID
				a = mustOffer(t, in, o)
				if len(a.Held()) != 3 {
					t.Fatal("held:", a.Held())
				}
				if name != "not asked" {
					if err := a.Use(c.use); err != nil {
						t.Fatal(err)
					}
				}
				for i := range int64(3) {
					mustWrite(t, a, changed[i*block:(i+1)*block], i*block)
				}
				r, err := a.Finish(t.Context(), -1, chunk.Digest{}) // not even a digest to save us
				if err != nil || r.Reused != c.reused || !bytes.Equal(kept(t, store, "x"), changed) {
					t.Errorf("%+v, %v", r, err)
				}
			})
		})
	}
}

func TestResumeKey(t *testing.T) {
	content := picture(1, 2*block)
	offer := func(source, name string, size int64, resume bool) Offer {
		return Offer{Image: Image{Name: name, Source: source}, Size: size, Resume: resume}
	}
	base := offer("", "x", 2*block, true)
	sourced := offer("cam", "x", 2*block, true)
	for name, c := range map[string]struct {
		first, second Offer
		peer          string // of the second; the first comes from 10.0.0.1:1000
		found         bool
	}{
		"same":                   {base, base, "10.0.0.1:1000", true},
		"another port":           {base, base, "10.0.0.1:2000", true},
		"another host":           {base, base, "10.0.0.2:1000", false},
		"another name":           {base, offer("", "y", 2*block, true), "10.0.0.1:1000", false},
		"another size":           {base, offer("", "x", 2*block+1, true), "10.0.0.1:1000", false},
		"no name":                {offer("", "", 2*block, true), offer("", "", 2*block, true), "10.0.0.1:1000", false},
		"not resumable at first": {offer("", "x", 2*block, false), base, "10.0.0.1:1000", false},
		"not resumable later":    {base, offer("", "x", 2*block, false), "10.0.0.1:1000", false},
		"source, another host":   {sourced, sourced, "10.0.0.2:1000", true},
		"another source":         {sourced, offer("mac", "x", 2*block, true), "10.0.0.1:1000", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Server{Store: &MemStore{}}
			bubble(t, s, func(t *testing.T) {
				a := mustOffer(t, inbox(t, s, "10.0.0.1:1000"), c.first)
				mustWrite(t, a, content, 0)
				a.Abort(nil)
				a = mustOffer(t, inbox(t, s, c.peer), c.second)
				if found := len(a.Held()) > 0; found != c.found {
					t.Errorf("found: %v", found)
				}
				a.Abort(nil)
			})
		})
	}
}

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
				if _, done := b.Done(); done || !b.Whole() || b.Missing(1) != nil {
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
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		go func() {
			_, err := a.Finish(ctx, -1, chunk.Digest{})
			result <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-result; err != context.Canceled {
			t.Error(err)
		}
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
