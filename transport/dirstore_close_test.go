package transport

import (
	"errors"
	"runtime"
	"testing"

	"github.com/pixferry/pixferry/chunk"
)

// Images on their way when the store is closed are refused for now, and go on in
// the next store, which nothing of the old one disturbs.
func TestDirStoreCloseUnderImages(t *testing.T) {
	content := picture(1, 3*chunk.BlockSize)
	s := newDirStore(t, &DirStore{})
	id := NewID()
	p := mustOpen(t, s, offerOf(id, "a.jpg", content))
	mustFill(t, p, content[:2*chunk.BlockSize])
	next := reopen(t, s)
	if _, _, err := next.Receipt(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_, err := p.WriteAt(make([]byte, 5), 0)
	wantReason(t, err, ReasonGoingAway, true)
	_, err = p.ReadAt(make([]byte, 5), 0)
	wantReason(t, err, ReasonGoingAway, true)
	wantReason(t, p.Checkpoint(nil), ReasonGoingAway, true)
	wantReason(t, p.Drop([]int64{0}), ReasonGoingAway, true)
	_, err = p.Commit(t.Context(), &Image{Name: "a.jpg"}, receiptOf(id, content))
	wantReason(t, err, ReasonGoingAway, true)
	_, err = s.Open(t.Context(), offerOf(NewID(), "b.jpg", nil))
	wantReason(t, err, ReasonGoingAway, true)
	if err := p.Keep(); err != nil {
		t.Error(err)
	}
	if _, reused, err := deliver(next, id, "a.jpg", content); err != nil || reused != 2 {
		t.Errorf("%d blocks went on in the next store: %v", reused, err)
	}
	wantOnly(t, s.Dir, map[string][]byte{"a.jpg": content})
}

func TestDirStoreCloseWaitsForCommits(t *testing.T) {
	syncing, goOn := make(chan struct{}), make(chan struct{})
	s := newDirStore(t, &DirStore{})
	content := picture(1, 1000)
	s.step = func(op, _ string, n int) (int, error) {
		if op == "link" {
			close(syncing)
			<-goOn
		}
		return n, nil
	}
	committed := async(func() error { _, _, err := deliver(s, NewID(), "a.jpg", content); return err })
	<-syncing
	d := s.opened
	closed := async(s.Close)
	for d.using.TryRLock() { // until Close waits
		d.using.RUnlock()
		runtime.Gosched()
	}
	if len(closed) > 0 {
		t.Error("Close did not wait for the Commit")
	}
	close(goOn)
	if err := errors.Join(<-committed, <-closed); err != nil {
		t.Error(err)
	}
	wantOnly(t, s.Dir, map[string][]byte{"a.jpg": content})
}
