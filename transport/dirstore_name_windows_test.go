package transport

import (
	"os"
	"path/filepath"
	"testing"
)

// Names that other systems have and Windows has not are refused for good: no repetition helps.
func TestDirStoreNamesOfOtherSystems(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: t.TempDir()})
	mustDeliver(t, s, MakeID(1, 0), "file", small)
	if err := os.WriteFile(filepath.Join(s.Dir, "other"), small, 0o644); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"what?.jpg", "a*.jpg", "<a>.jpg", `"a".jpg`, "a|b.jpg", "12:30.jpg", "con", "dir/what?.jpg", "file/x", "file/x/y", "other/x"} {
		t.Run(name, func(t *testing.T) {
			_, _, err := deliver(s, MakeID(2, uint64(i)), name, small)
			wantReason(t, err, ReasonName, false)
		})
	}
	wantOnly(t, s.Dir, map[string][]byte{"file": small, "other": small})
}
