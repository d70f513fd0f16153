package transport

import (
	"bytes"
	"context"
	"syscall"
	"testing"

	"github.com/pixferry/pixferry/chunk"
)

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

// After a wrong digest the blocks are kept: a resume compares each of them before it is used, and so finds the wrong one.
func TestWhatIsWrongIsNotKeptForAResume(t *testing.T) {
	content := picture(1, 2*block)
	for name, c := range map[string]struct {
		end  func(a *Arrival) error
		kept bool
	}{
		"digest": {func(a *Arrival) error {
			_, err := a.Finish(context.Background(), -1, digestOf(XXH3, nil))
			return err
		}, true},
		"malformed": {func(a *Arrival) error {
			_, err := a.WriteAt(content, 1)
			return err
		}, false},
		"nothing but gaps": {func(a *Arrival) error {
			_, err := a.Finish(context.Background(), 2*block-1, chunk.Digest{})
			return err
		}, true},
	} {
		s := &Server{Store: &MemStore{}}
		bubble(t, s, func(t *testing.T) {
			in := inbox(t, s, "p")
			o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: 2 * block, Resume: true}
			a := mustOffer(t, in, o)
			mustWrite(t, a, content, 0)
			if err := c.end(a); err == nil {
				t.Error("no error")
			}
			a = mustOffer(t, in, o)
			if kept := len(a.Held()) > 0; kept != c.kept {
				t.Errorf("%s: kept is %v", name, kept)
			}
			a.Abort(nil)
		})
	}
}

// A Store that cannot forget blocks which the sender does not have gets no other bytes for them.
func TestStoreThatCannotDropBlocks(t *testing.T) {
	content := picture(1, 2*block)
	for name, next := range map[string]func(t *testing.T, a *Arrival) error{
		"Use":     func(t *testing.T, a *Arrival) error { return a.Use([]int64{1}) },
		"WriteAt": func(t *testing.T, a *Arrival) error { _, err := a.WriteAt(content, 0); return err },
		"Finish":  func(t *testing.T, a *Arrival) error { _, err := a.Finish(t.Context(), -1, chunk.Digest{}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			store := &spyStore{fail: map[string]error{"drop": syscall.EIO}}
			s := &Server{Store: store}
			bubble(t, s, func(t *testing.T) {
				in := inbox(t, s, "p")
				o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: 2 * block, Resume: true}
				a := mustOffer(t, in, o)
				mustWrite(t, a, content, 0)
				a.Abort(nil)
				a = mustOffer(t, in, o)
				if len(a.Held()) != 2 {
					t.Fatal("held:", a.Held())
				}
				wantReason(t, next(t, a), ReasonDisk, true)
				if countKept(&store.MemStore) != 0 {
					t.Error("kept")
				}
			})
		})
	}
}
