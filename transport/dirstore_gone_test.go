//go:build unix

package transport

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pixferry/pixferry/chunk"
)

// A directory that is removed, moved away or loses its inside while it is used is made
// anew: the image on its way may come again, and those after it are taken.
func TestDirStoreGone(t *testing.T) {
	content := picture(1, 2*chunk.BlockSize)
	for name, lose := range map[string]func(dir string) error{
		"removed":        os.RemoveAll,
		"moved away":     func(dir string) error { return os.Rename(dir, dir+".old") },
		"without inside": func(dir string) error { return os.RemoveAll(filepath.Join(dir, metaDir)) },
		"replaced": func(dir string) error {
			if err := os.Rename(dir, dir+".old"); err != nil {
				return err
			}
			return os.MkdirAll(filepath.Join(dir, metaDir), 0o755)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newDirStore(t, &DirStore{Dir: filepath.Join(t.TempDir(), "in")})
			before, id := NewID(), NewID()
			if _, _, err := deliver(s, before, "before.jpg", content); err != nil {
				t.Fatal(err)
			}
			p := mustOpen(t, s, offerOf(id, "a.jpg", content))
			if err := lose(s.Dir); err != nil {
				t.Fatal(err)
			}
			wantReceipt(t, s, before, false)
			_, err := fill(p, content)
			wantReason(t, err, ReasonDisk, true)
			p.Discard()
			if _, _, err := deliver(s, id, "a.jpg", content); err != nil {
				t.Fatal(err)
			}
			want := map[string][]byte{"a.jpg": content}
			if name == "without inside" {
				want["before.jpg"] = content
			}
			wantOnly(t, s.Dir, want)
		})
	}
}

// What follows in the place of a directory may be none: that is said.
func TestDirStoreBecomesFile(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: filepath.Join(t.TempDir(), "in")})
	if _, _, err := deliver(s, NewID(), "a.jpg", nil); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Dir, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := deliver(s, NewID(), "b.jpg", nil); err == nil {
		t.Error("stored in a file")
	} else {
		t.Log(err)
	}
	if err := os.Remove(s.Dir); err != nil {
		t.Fatal(err)
	}
	if _, _, err := deliver(s, NewID(), "b.jpg", []byte{1}); err != nil {
		t.Error(err)
	}
}
