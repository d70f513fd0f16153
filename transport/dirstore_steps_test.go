package transport

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/pixferry/pixferry/chunk"
)

// A name is looked at again for the whole image. What is refused then is not stored.
func TestDirStoreRefusesTheWholeImage(t *testing.T) {
	for _, c := range []struct {
		what   string
		s      *DirStore
		reason Reason
	}{
		{"taken by now", &DirStore{Existing: Refuse}, ReasonExists},
		{"without a place", &DirStore{Path: func(img *Image) string { return map[bool]string{true: "a.jpg"}[img.MediaType == ""] }}, ReasonName},
	} {
		s := newDirStore(t, c.s)
		p := mustOpen(t, s, offerOf(smallID, "a.jpg", small))
		mustFill(t, p, small)
		os.WriteFile(filepath.Join(s.Dir, "a.jpg"), foreign, 0o644)
		name, err := p.Commit(t.Context(), &Image{Name: "a.jpg", MediaType: "image/png"}, receiptOf(smallID, small))
		if wantReason(t, err, c.reason, false); name != "" {
			t.Errorf("%s: stored as %s", c.what, name)
		}
		if _, ok, err := s.Receipt(t.Context(), smallID); ok || err != nil {
			t.Errorf("%s: receipt %t, %v", c.what, ok, err)
		}
		wantOnly(t, s.Dir, map[string][]byte{"a.jpg": foreign})
		if c.s.Existing == Refuse { // and the next one in time
			_, err := s.Open(t.Context(), offerOf(deepID, "a.jpg", deep))
			wantReason(t, err, ReasonExists, false)
		}
	}
}

// Somebody removes the partial file when it is to get its name: there is no receipt, and another try is as good as
// the first.
func TestDirStorePartialFileIsRemoved(t *testing.T) {
	for _, existing := range []Existing{KeepBoth, Replace} {
		s, removed := newDirStore(t, &DirStore{Existing: existing}), false
		s.step = func(op, name string, n int) (int, error) {
			if (op == "link" || op == "rename") && !removed {
				removed = true
				os.Remove(contentOf(t, s.Dir))
			}
			return 0, nil
		}
		_, _, err := deliver(s, smallID, "a.jpg", small)
		wantReason(t, err, ReasonDisk, true)
		wantReceipt(t, s, smallID, false)
		mustDeliver(t, s, smallID, "a.jpg", small)
		wantOnly(t, s.Dir, map[string][]byte{"a.jpg": small})
	}
}

// Where there are no links a name that is taken at the last moment stays its owner's.
func TestDirStoreNameTakenLateWithoutLinks(t *testing.T) {
	for _, existing := range []Existing{KeepBoth, Refuse} {
		s := newDirStore(t, &DirStore{Existing: existing})
		s.step = func(op, name string, n int) (int, error) {
			if op != "link" {
				return 0, nil
			}
			os.WriteFile(filepath.Join(s.Dir, "a.jpg"), foreign, 0o644)
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EPERM}
		}
		_, _, err := deliver(s, smallID, "a.jpg", small)
		want := map[string][]byte{"a.jpg": foreign}
		if existing == Refuse {
			if wantReason(t, err, ReasonExists, false); strings.Contains(err.Error(), "later") {
				t.Errorf("the sender is told %q", err)
			}
		} else if want["a (1).jpg"] = small; err != nil {
			t.Error(err)
		}
		if wantOnly(t, s.Dir, want); len(s.opened.reserved) > 0 {
			t.Errorf("names that nobody gets: %v", s.opened.reserved)
		}
	}
}

// A free number cannot be looked for, before the intent is logged or after: the image is not stored, and its ID is not
// busy for ever.
func TestDirStoreNoFreeNumber(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a name below a file is a free one there, until its directory is to be made")
	}
	for _, at := range []string{"sync", "link"} {
		s, broken := newDirStore(t, &DirStore{}), true
		dir := filepath.Join(s.Dir, "a")
		os.Mkdir(dir, 0o755)
		s.step = func(op, name string, n int) (int, error) {
			if broken && op == at && !strings.HasSuffix(name, logFile) {
				os.Remove(dir)
				os.WriteFile(dir, nil, 0o644) // a file where the directory was
				if op == "link" {
					return 0, &fs.PathError{Op: op, Path: name, Err: fs.ErrExist}
				}
			}
			return 0, nil
		}
		_, _, err := deliver(s, smallID, "a/b.jpg", small)
		wantReason(t, err, ReasonDisk, true)
		broken = false
		os.Remove(dir)
		if _, kept, err := s.Receipt(t.Context(), smallID); kept != (at == "link") || err != nil { // which finishes what is logged
			t.Errorf("%s: receipt %t, %v", at, kept, err)
		}
		mustDeliver(t, s, smallID, "a/b.jpg", small)
		wantOnly(t, s.Dir, map[string][]byte{"a/b.jpg": small})
	}
}

// Once a write has failed nothing is built on the partial image.
func TestDirStoreFailedPartial(t *testing.T) {
	content := picture(1, 3*chunk.BlockSize)
	failing := false
	s := newDirStore(t, &DirStore{step: func(op, name string, n int) (int, error) {
		if failing && op == "write" {
			return n / 2, &fs.PathError{Op: op, Path: name, Err: syscall.EIO}
		}
		return 0, nil
	}})
	keepPartial(t, s, "a.jpg", content[:2*chunk.BlockSize+1])
	p, err := s.Open(t.Context(), offerOf(smallID, "a.jpg", content[:2*chunk.BlockSize+1]))
	if err != nil || len(p.Held()) != 2 {
		t.Fatalf("held %v, %v", p.Held(), err)
	}
	failing = true
	_, err = p.WriteAt(content[2*chunk.BlockSize:][:1], 2*chunk.BlockSize)
	wantReason(t, err, ReasonDisk, true)
	failing = false
	_, err = p.WriteAt(content[2*chunk.BlockSize:][:1], 2*chunk.BlockSize)
	wantReason(t, err, ReasonDisk, true)
	wantReason(t, p.Checkpoint(p.Held()), ReasonDisk, true)
	wantReason(t, p.Drop([]int64{0}), ReasonDisk, true)
	_, err = p.Commit(t.Context(), &Image{Name: "a.jpg"}, receiptOf(smallID, content[:2*chunk.BlockSize+1]))
	wantReason(t, err, ReasonDisk, true)
	if err := p.Keep(); err != nil || len(leftovers(t, s.Dir)) > 0 {
		t.Errorf("left over %v, %v", leftovers(t, s.Dir), err)
	}
	wantOnly(t, s.Dir, nil)
}

// Bytes behind the end, of an attempt that was longer, are cut off, or the image is not stored.
func TestDirStoreCutsContent(t *testing.T) {
	failing := true
	s := newDirStore(t, &DirStore{step: func(op, name string, n int) (int, error) {
		if failing && op == "truncate" {
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EIO}
		}
		return 0, nil
	}})
	for _, failing = range []bool{true, false} {
		p := mustOpen(t, s, PartialOffer{ID: smallID, Image: Image{Name: "a.jpg"}, Size: -1, Algorithm: chunk.SHA256})
		if _, err := p.WriteAt(append(small[:len(small):len(small)], foreign...), 0); err != nil {
			t.Fatal(err)
		}
		_, err := p.Commit(t.Context(), &Image{Name: "a.jpg"}, receiptOf(smallID, small))
		if !failing && err == nil {
			break
		}
		wantReason(t, err, ReasonDisk, true)
		wantOnly(t, s.Dir, nil)
		p.Discard()
	}
	wantOnly(t, s.Dir, map[string][]byte{"a.jpg": small})
}
