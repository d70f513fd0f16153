package transport

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pixferry/pixferry/chunk"
)

// picture returns size bytes that differ from those of another seed in every block.
func picture(seed uint64, size int) []byte {
	b := make([]byte, size)
	chacha := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	chacha.Read(b)
	return b
}

func offerOf(id ID, name string, content []byte) PartialOffer {
	return PartialOffer{ID: id, Key: "camera/" + name, Image: Image{Name: name}, Size: int64(len(content)), Algorithm: chunk.SHA256}
}

func receiptOf(id ID, content []byte) Receipt {
	h := chunk.NewHasher(chunk.SHA256)
	h.Write(content)
	return Receipt{ID: id, Level: Kept, Digest: h.Root(), Bytes: int64(len(content)), Resent: 7, Reused: 9}
}

// deliver stores an image as an Inbox does: it reuses the held blocks that are
// in content, drops the others, writes what is missing and commits. It returns
// the number of blocks that were reused.
func deliver(s Store, id ID, name string, content []byte) (final string, reused int, err error) {
	p, err := s.Open(context.Background(), offerOf(id, name, content))
	if err != nil {
		return "", 0, err
	}
	if reused, err = fill(p, content); err != nil {
		p.Keep()
		return "", reused, err
	}
	final, err = p.Commit(context.Background(), &Image{Name: name}, receiptOf(id, content))
	if err != nil {
		p.Keep()
	}
	return final, reused, err
}

func fill(p Partial, content []byte) (reused int, err error) {
	size := int64(len(content))
	held := make(map[int64]bool)
	hasher := chunk.NewBlockHasher(chunk.SHA256)
	var differ []int64
	for _, b := range p.Held() {
		r := chunk.BlockRange(b.Index, size)
		if held[b.Index] = hasher.Sum(content[r.Start:r.End]) == b.Digest; !held[b.Index] {
			differ = append(differ, b.Index)
		}
	}
	if err := p.Drop(differ); err != nil {
		return 0, err
	}
	for i := range chunk.BlockCount(size) {
		if held[i] {
			reused++
			continue
		}
		r := chunk.BlockRange(i, size)
		half := r.Start + r.Len()/2
		if _, err := p.WriteAt(content[half:r.End], half); err != nil {
			return reused, err
		}
		if _, err := p.WriteAt(content[r.Start:half], r.Start); err != nil {
			return reused, err
		}
		if err := p.Checkpoint([]chunk.Block{{Index: i, Digest: hasher.Sum(content[r.Start:r.End])}}); err != nil {
			return reused, err
		}
	}
	return reused, nil
}

func mustOpen(t *testing.T, s Store, o PartialOffer) Partial {
	t.Helper()
	p, err := s.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustFill(t *testing.T, p Partial, content []byte) {
	t.Helper()
	if _, err := fill(p, content); err != nil {
		t.Fatal(err)
	}
}

func mustDeliver(t *testing.T, s Store, id ID, name string, content []byte) (final string) {
	t.Helper()
	final, _, err := deliver(s, id, name, content)
	if err != nil {
		t.Fatalf("deliver %s: %v", name, err)
	}
	return final
}

// files returns the images below dir by their slash-separated path.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	found := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == metaDir {
			return fs.SkipDir
		}
		if err != nil {
			return err
		}
		if e.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, path)
			found[filepath.ToSlash(rel)], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// leftovers returns the files of partial images.
func leftovers(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, metaDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lock" && e.Name() != "receipts" {
			names = append(names, e.Name())
		}
	}
	return names
}

// wantNothingLeft fails if there are files of partial images.
func wantNothingLeft(t *testing.T, dir string) {
	t.Helper()
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// wantReceipt fails unless the store works, and remembers an ID or does not.
func wantReceipt(t *testing.T, s Store, id ID, want bool) {
	t.Helper()
	if _, ok, err := s.Receipt(t.Context(), id); ok != want || err != nil {
		t.Errorf("receipt of %v: %t, %v; want %t", id, ok, err, want)
	}
}

func newDirStore(t *testing.T, s *DirStore) *DirStore {
	t.Helper()
	if s.Dir == "" {
		s.Dir = t.TempDir()
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// reopen returns a DirStore with the same configuration after the death of s.
func reopen(t *testing.T, s *DirStore) *DirStore {
	t.Helper()
	s.Close()
	return newDirStore(t, &DirStore{Dir: s.Dir, Existing: s.Existing, Path: s.Path, Expire: s.Expire, MaxReceipts: s.MaxReceipts, NoSync: s.NoSync, step: s.step, now: s.now})
}

func wantReason(t *testing.T, err error, reason Reason, retryable bool) {
	t.Helper()
	var r *RejectedError
	if !errors.As(err, &r) || r.Reason != reason || r.Retryable != retryable || r.Text == "" || len(r.Text) > 1024 {
		t.Fatalf("got error %v, want a RejectedError with reason %v, retryable %t", err, reason, retryable)
	}
}

// needDirSync skips a test about the syncs of directories where there are none.
func needDirSync(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("no directory is synced there")
	}
}

// wantOnly fails unless exactly these images are in the directory.
func wantOnly(t *testing.T, dir string, want map[string][]byte) {
	t.Helper()
	got := files(t, dir)
	for name, content := range want {
		if !bytes.Equal(got[name], content) {
			t.Errorf("%s is not there or wrong: %d bytes, want %d", name, len(got[name]), len(content))
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s should not be there", name)
	}
}

var storedSizes = []int{0, 1, 100_000, chunk.BlockSize - 1, chunk.BlockSize, chunk.BlockSize + 1, 2*chunk.BlockSize + 12345}

func TestDirStoreKeepsImagesAndReceipts(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		s := newDirStore(t, &DirStore{Dir: filepath.Join(t.TempDir(), "made", "here"), NoSync: noSync})
		want := make(map[string][]byte)
		for i, size := range storedSizes {
			name, content := string(rune('a'+i))+".jpg", picture(uint64(i), size)
			want[name] = content
			if final := mustDeliver(t, s, MakeID(1, uint64(i)), name, content); final != name {
				t.Errorf("stored as %q, want %q", final, name)
			}
		}
		for range 2 {
			wantOnly(t, s.Dir, want)
			for i, size := range storedSizes {
				id := MakeID(1, uint64(i))
				r, ok, err := s.Receipt(t.Context(), id)
				if err != nil || !ok || r != receiptOf(id, picture(uint64(i), size)) {
					t.Errorf("receipt %v, %t, %v", r, ok, err)
				}
			}
			wantReceipt(t, s, MakeID(1, 99), false)
			wantNothingLeft(t, s.Dir)
			s = reopen(t, s)
		}
	}
}

func TestDirStoreExisting(t *testing.T) {
	old, first, second := []byte("old"), []byte("first"), []byte("second")
	for existing, want := range map[Existing]map[string][]byte{
		KeepBoth: {"a.b.jpg": old, "a.b (1).jpg": first, "a.b (2).jpg": second},
		Replace:  {"a.b.jpg": second},
		Refuse:   {"a.b.jpg": old},
	} {
		s := newDirStore(t, &DirStore{Dir: t.TempDir(), Existing: existing})
		if err := os.WriteFile(filepath.Join(s.Dir, "a.b.jpg"), old, 0o644); err != nil {
			t.Fatal(err)
		}
		for i, content := range [][]byte{first, second} {
			_, _, err := deliver(s, MakeID(1, uint64(i)), "a.b.jpg", content)
			if existing == Refuse {
				wantReason(t, err, ReasonExists, false)
			} else if err != nil {
				t.Error(err)
			}
		}
		wantOnly(t, s.Dir, want)
		wantNothingLeft(t, s.Dir)
	}
}

// A name is taken between the offer and the commit.
func TestDirStoreExistingAppearsLate(t *testing.T) {
	for existing, want := range map[Existing]map[string][]byte{
		KeepBoth: {"a.jpg": []byte("old"), "a (1).jpg": []byte("new")},
		Replace:  {"a.jpg": []byte("new")},
		Refuse:   {"a.jpg": []byte("old")},
	} {
		for _, op := range []string{"sync", "link", "no links"} { // before and after the intent
			s, late := newDirStore(t, &DirStore{Dir: t.TempDir(), Existing: existing}), false
			s.step = func(o, name string, n int) (int, error) {
				if !late && (o == op || o == "link" || o == "rename") {
					late = true
					os.WriteFile(filepath.Join(s.Dir, "a.jpg"), []byte("old"), 0o644)
				}
				if o == "link" && op == "no links" {
					return 0, syscall.EPERM
				}
				return 0, nil
			}
			_, _, err := deliver(s, MakeID(1, 1), "a.jpg", []byte("new"))
			if existing == Refuse {
				wantReason(t, err, ReasonExists, false)
			} else if err != nil {
				t.Error(err)
			}
			wantOnly(t, s.Dir, want)
			s = reopen(t, s)
			_, ok, err := s.Receipt(t.Context(), MakeID(1, 1))
			if err != nil || ok != (existing != Refuse) {
				t.Errorf("existing %v: receipt %t, %v", existing, ok, err)
			}
			wantNothingLeft(t, s.Dir)
			wantOnly(t, s.Dir, want)
		}
	}
}

func TestDirStoreDirectoryInTheWay(t *testing.T) {
	for _, existing := range []Existing{KeepBoth, Replace, Refuse} {
		s := newDirStore(t, &DirStore{Existing: existing})
		os.MkdirAll(filepath.Join(s.Dir, "a.jpg"), 0o755)
		final, _, err := deliver(s, NewID(), "a.jpg", []byte("x"))
		if existing != KeepBoth {
			wantReason(t, err, ReasonExists, false)
		} else if err != nil || final != "a (1).jpg" {
			t.Errorf("%q, %v", final, err)
		}
	}
}

func TestDirStoreManyOfOneName(t *testing.T) {
	s := newDirStore(t, &DirStore{NoSync: true})
	want := make(map[string][]byte)
	done := make(chan error)
	const n = 40
	for i := range n {
		want[numbered("a.jpg", i)] = nil
		go func() {
			_, _, err := deliver(s, MakeID(1, uint64(i)), "a.jpg", []byte{byte(i)})
			done <- err
		}()
	}
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	seen := make(map[byte]bool)
	for name, content := range files(t, s.Dir) {
		if _, ok := want[name]; !ok || len(content) != 1 || seen[content[0]] {
			t.Errorf("%s holds %v", name, content)
		}
		seen[content[0]] = true
	}
	if len(seen) != n {
		t.Errorf("%d images, want %d", len(seen), n)
	}
}

func TestNumbered(t *testing.T) {
	long := strings.Repeat("é", 127) // 254 bytes
	for _, c := range []struct {
		name string
		n    int
		want string
	}{
		{"a.jpg", 0, "a.jpg"}, {"a.jpg", 12, "a (12).jpg"}, {"a", 1, "a (1)"}, {".a", 1, ".a (1)"}, {"d/a.tar.gz", 1, "d/a.tar (1).gz"},
		{"d.x/a", 1, "d.x/a (1)"}, {long, 1, strings.Repeat("é", 125) + " (1)"}, {"x." + long[:250], 1, "x." + long[:248] + " (1)"},
	} {
		if got := numbered(c.name, c.n); got != c.want {
			t.Errorf("numbered(%q, %d) = %q, want %q", c.name, c.n, got, c.want)
		}
	}
}

func TestFreeNumber(t *testing.T) {
	for n := range 200 {
		looks := 0
		got, err := freeNumber(func(i int) (bool, error) { looks++; return i < n, nil })
		if err != nil || got != n || looks > 20 {
			t.Errorf("%d used: got %d after %d looks, %v", n, got, looks, err)
		}
	}
}

func TestDirStorePath(t *testing.T) {
	s := newDirStore(t, &DirStore{Path: func(img *Image) string { return "2024/cam-1/" + img.Name }})
	mustDeliver(t, s, MakeID(1, 1), "a.jpg", []byte("1"))
	mustDeliver(t, s, MakeID(1, 2), "a.jpg", []byte("2"))
	wantOnly(t, s.Dir, map[string][]byte{"2024/cam-1/a.jpg": []byte("1"), "2024/cam-1/a (1).jpg": []byte("2")})

	wrong := newDirStore(t, &DirStore{Path: func(img *Image) string { return img.Source + "/" + img.Name }})
	_, _, err := deliver(wrong, MakeID(1, 3), "a.jpg", []byte("3"))
	wantReason(t, err, ReasonName, false)
	if strings.Contains(err.Error(), "another name") || !strings.Contains(withCause(err).Error(), `DirStore.Path returned "/a.jpg"`) {
		t.Errorf("the sender hears %q, the receiver %q", err, withCause(err))
	}
}

func TestDirStorePathPanics(t *testing.T) {
	s := newDirStore(t, &DirStore{Path: func(img *Image) string { return img.Name[5:] + ".jpg" }})
	_, _, err := deliver(s, MakeID(1, 1), "cam", []byte("1"))
	if r := (*RejectedError)(nil); !errors.As(err, &r) || r.Reason != ReasonName || r.Retryable {
		t.Error(err)
	}
	mustDeliver(t, s, MakeID(1, 2), "cam-1", []byte("2")) // goes to .jpg
	wantOnly(t, s.Dir, map[string][]byte{".jpg": []byte("2")})
}

func TestDirStoreNamesStayInside(t *testing.T) {
	outside := t.TempDir()
	dir := filepath.Join(outside, "store")
	os.Mkdir(dir, 0o755)
	if err := os.Symlink(outside, filepath.Join(dir, "out")); err != nil {
		t.Skip("no symbolic links:", err)
	}
	os.Symlink(filepath.Join(outside, "target"), filepath.Join(dir, "link.jpg"))
	os.Symlink("inner", filepath.Join(dir, "in"))
	os.Mkdir(filepath.Join(dir, "inner"), 0o755)
	os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)
	names := []string{"../x", "/x", "a/../../x", "", ".", "..", "a/", "a//b", "./a", ".pixferry", ".PixFerry/receipts", ".pixferry/x", "out/x", "out/new/x",
		"file/x", strings.Repeat("x", 256), strings.Repeat("x/", 3000) + "x", "a\x00b"}
	if runtime.GOOS == "windows" {
		names = append(names, `..\x`, `C:\x`, "CON", `.pixferry\x`, ".pixferry.")
	}
	for _, existing := range []Existing{KeepBoth, Replace, Refuse} {
		path := ""
		s := newDirStore(t, &DirStore{Dir: dir, Existing: existing, Path: func(*Image) string { return path }})
		for i, name := range names {
			path = name
			_, _, err := deliver(s, MakeID(uint64(existing), uint64(i)), "a.jpg", []byte("x"))
			wantReason(t, err, ReasonName, false)
		}
		if existing == Refuse {
			s.Close()
			continue
		}
		path = "link.jpg" // the link is a name like any other: replaced or kept, never followed
		mustDeliver(t, s, MakeID(uint64(existing), 100), "a.jpg", []byte("x"))
		path = "in/x.jpg" // within the directory links are the user's own
		mustDeliver(t, s, MakeID(uint64(existing), 101), "a.jpg", []byte("x"))
		s.Close()
	}
	entries, _ := os.ReadDir(outside)
	if len(entries) != 1 {
		t.Errorf("something came outside: %v", entries)
	}
	if got := files(t, dir); !slices.Equal(got["inner/x.jpg"], []byte("x")) || !slices.Equal(got["link (1).jpg"], []byte("x")) {
		t.Errorf("%v", got)
	}
}
