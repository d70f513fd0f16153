package transport

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A partial file that cannot be removed, as somebody reads the image by its name, keeps no receipt back, and brings no
// image back that its owner has moved away.
func TestDirStorePartialFileIsInUse(t *testing.T) {
	inUse := true
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), step: func(op, name string, n int) (int, error) {
		if inUse && op == "remove" && strings.HasSuffix(name, contentExt) {
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EBUSY}
		}
		return 0, nil
	}})
	id := NewID()
	wantReceipt(t, s, id, false)
	log := s.opened.log
	write, writes := log.sync.run, 0
	log.sync.run = func(entries []logEntry) error {
		err := write(entries)
		if writes++; writes == 2 { // the log says that it is stored, as one does that is compacted now
			for _, payload := range log.live() {
				if in, _, _ := parseLog(payload); in.token != "" {
					t.Error("a compacted log has the intent again")
				}
			}
		}
		return err
	}
	if final := mustDeliver(t, s, id, "a.jpg", small); final != "a.jpg" || writes != 2 {
		t.Errorf("stored as %q, with %d writes to the log", final, writes)
	}
	if err := os.Remove(filepath.Join(s.Dir, "a.jpg")); err != nil {
		t.Fatal(err)
	}
	inUse = false
	s = reopen(t, s)
	if r, ok, err := s.Receipt(t.Context(), id); err != nil || !ok || r != receiptOf(id, small) {
		t.Errorf("receipt %v, %t, %v", r, ok, err)
	}
	wantOnly(t, s.Dir, nil)
	wantNothingLeft(t, s.Dir)
}

// Such a file keeps the space of an image that is read and then removed only for a minute, too.
func TestDirStorePartialFileWasInUse(t *testing.T) {
	inUse, now := true, time.Now()
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), now: func() time.Time { return now }, step: func(op, name string, n int) (int, error) {
		if inUse && op == "remove" && strings.HasSuffix(name, contentExt) {
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EBUSY}
		}
		return 0, nil
	}})
	mustDeliver(t, s, NewID(), "a.jpg", small)
	for _, inUse = range []bool{true, false} {
		if left := leftovers(t, s.Dir); len(left) != 1 {
			t.Errorf("left over: %v", left)
		}
		now = now.Add(expireEvery)
		s.opened.evict()
	}
	wantNothingLeft(t, s.Dir)
	wantOnly(t, s.Dir, map[string][]byte{"a.jpg": small})
}
