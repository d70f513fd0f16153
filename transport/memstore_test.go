package transport

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/pixferry/pixferry/chunk"
)

func TestMemStoreKeepsImages(t *testing.T) {
	var s MemStore
	for i, size := range storedSizes {
		mustDeliver(t, &s, MakeID(1, uint64(i)), fmt.Sprintf("%d.jpg", i), picture(uint64(i), size))
	}
	for i, size := range storedSizes {
		img, ok := s.Get(fmt.Sprintf("%d.jpg", i))
		if !ok || img.Name != fmt.Sprintf("%d.jpg", i) || !bytes.Equal(kept(t, &s, img.Name), picture(uint64(i), size)) {
			t.Errorf("image %d is not there or wrong", i)
		}
		r, ok, err := s.Receipt(t.Context(), MakeID(1, uint64(i)))
		if err != nil || !ok || r != receiptOf(MakeID(1, uint64(i)), picture(uint64(i), size)) {
			t.Errorf("receipt %v, %t, %v", r, ok, err)
		}
	}
	if final := mustDeliver(t, &s, NewID(), "1.jpg", []byte("other")); final != "1 (1).jpg" {
		t.Errorf("stored as %s", final)
	}
	if final := mustDeliver(t, &s, MakeID(1, 1), "1.jpg", picture(1, 1)); final != "" {
		t.Errorf("stored twice, as %s", final)
	}
	n, last := 0, ""
	for img := range s.All() {
		if n++; img.Name <= last {
			t.Errorf("%s after %s", img.Name, last)
		}
		last = img.Name
		if !s.Delete(img.Name) || s.Delete(img.Name) {
			t.Error("Delete")
		}
		if _, err := img.Body.ReadAll(t.Context()); err != nil {
			t.Error("after Delete:", err)
		}
	}
	if _, ok := s.Get("1.jpg"); ok || n != len(storedSizes)+1 || s.used != 0 {
		t.Errorf("%d images, %d bytes in use after all are deleted", n, s.used)
	}
	s.Forget(1, 3)
	if _, ok, _ := s.Receipt(t.Context(), MakeID(1, 2)); ok {
		t.Error("not forgotten")
	}
}

func TestMemStoreBoundsMemory(t *testing.T) {
	const mib = 1 << 20
	s := &MemStore{MaxBytes: 8 * mib}
	_, err := s.Open(t.Context(), offerOf(NewID(), "a.jpg", make([]byte, 8*mib+1)))
	wantReason(t, err, ReasonTooLarge, false)
	p := mustOpen(t, s, PartialOffer{Size: -1})
	for _, off := range []int64{8 * mib, 1 << 62, -1} {
		_, err = p.WriteAt([]byte("xx"), off)
		wantReason(t, err, ReasonTooLarge, false)
	}
	p.Discard()
	keepPartial(t, s, "old.jpg", picture(1, 2*mib+1))
	keepPartial(t, s, "new.jpg", picture(2, 2*mib+1))
	mustDeliver(t, s, NewID(), "kept.jpg", picture(3, 5*mib)) // in the place of old.jpg
	_, _, err = deliver(s, NewID(), "more.jpg", picture(4, 4*mib))
	wantReason(t, err, ReasonBusy, true) // new.jpg has gone too, but kept.jpg stays
	if _, reused, err := deliver(s, NewID(), "more.jpg", picture(4, 4*mib)); reused == 0 {
		t.Errorf("what had come was not kept, %v", err)
	}
	s.Delete("kept.jpg")
	if _, reused, err := deliver(s, NewID(), "more.jpg", picture(4, 4*mib)); reused != 2 || err != nil {
		t.Errorf("reused %d, %v", reused, err)
	}
	s.Delete("more.jpg")
	if s.used != 0 {
		t.Errorf("%d bytes reckoned for nothing", s.used)
	}
}

// The Server's own store while it has no other.
func TestMemStoreReceiptsOnly(t *testing.T) {
	s := &MemStore{receiptsOnly: true, MaxReceipts: 2, MaxBytes: 2 << 20}
	for i := range uint64(5) {
		mustDeliver(t, s, MakeID(1, i), "a.jpg", picture(i, 1<<20))
	}
	for i := range uint64(5) {
		wantReceipt(t, s, MakeID(1, i), i >= 3)
	}
	if len(s.kept) > 0 || s.used != 0 {
		t.Errorf("%d images and %d bytes kept", len(s.kept), s.used)
	}
}

// What both stores owe an Inbox.
func TestStoresEndLeases(t *testing.T) {
	for name, s := range map[string]Store{"dir": newDirStore(t, &DirStore{}), "mem": &MemStore{}} {
		t.Run(name, func(t *testing.T) {
			open := func() Partial {
				p := mustOpen(t, s, PartialOffer{ID: MakeID(1, 1), Key: "k", Image: Image{Name: "a.jpg"}, Size: 3, Algorithm: chunk.SHA256})
				return p
			}
			p := open()
			p.WriteAt([]byte("ab"), 0)
			_, err := p.Commit(t.Context(), &Image{Name: "a.jpg"}, receiptOf(MakeID(1, 1), []byte("abc")))
			wantReason(t, err, ReasonIncomplete, true)
			p.WriteAt([]byte("c-too-much"), 2)
			if _, err := p.Commit(t.Context(), &Image{Name: "a.jpg"}, receiptOf(MakeID(1, 1), []byte("abc"))); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := p.Keep(); err != nil {
					t.Error(err)
				}
				if err := p.Discard(); err != nil {
					t.Error(err)
				}
			}
			if _, err := p.WriteAt([]byte("x"), 0); err == nil {
				t.Error("an image that is stored was changed")
			}
			if _, err := p.Commit(t.Context(), &Image{Name: "b.jpg"}, receiptOf(MakeID(1, 2), nil)); err == nil {
				t.Error("stored twice")
			}
			q := open()
			q.Discard()
			if _, err := q.Commit(t.Context(), &Image{Name: "b.jpg"}, receiptOf(MakeID(1, 3), nil)); err == nil {
				t.Error("stored after it was discarded")
			}
			switch s := s.(type) {
			case *DirStore:
				wantOnly(t, s.Dir, map[string][]byte{"a.jpg": []byte("abc")})
			case *MemStore:
				if string(kept(t, s, "a.jpg")) != "abc" || len(s.kept) != 1 {
					t.Error("wrong content")
				}
			}
		})
	}
}
