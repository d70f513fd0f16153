package transport

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/pixferry/pixferry/chunk"
)

// An image that is refused because its directory may not be written is not stored later, and nothing piles up.
func TestDirStoreDirectoryNotWritable(t *testing.T) {
	denied := true
	why := []syscall.Errno{syscall.EACCES, syscall.EXDEV, syscall.EROFS}
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), NoSync: true, step: func(op, name string, n int) (int, error) {
		if denied && (op == "link" || op == "rename") && !strings.HasPrefix(name, metaDir) {
			return 0, &fs.PathError{Op: op, Path: name, Err: why[0]}
		}
		return 0, nil
	}})
	for i := range uint64(21) {
		_, _, err := deliver(s, MakeID(1, i), "a.jpg", small)
		wantReason(t, err, ReasonDisk, true)
		why = append(why[1:], why[0])
	}
	wantNothingLeft(t, s.Dir)
	denied = false
	s = reopen(t, s)
	wantReceipt(t, s, MakeID(1, 3), false)
	mustDeliver(t, s, MakeID(1, 3), "a.jpg", small)
	wantOnly(t, s.Dir, map[string][]byte{"a.jpg": small})
}

// A file that takes the name of a directory refuses the image, also where the system says no more of it, as Windows does,
// than that the directory is not there.
func TestDirStoreFileInTheWay(t *testing.T) {
	for _, existing := range []Existing{KeepBoth, Replace, Refuse} {
		s := newDirStore(t, &DirStore{Dir: t.TempDir(), Existing: existing, NoSync: true})
		gate := filepath.Join(s.Dir, "gate")
		s.step = func(op, name string, n int) (int, error) {
			if (op == "link" || op == "rename") && strings.HasPrefix(name, "gate/") {
				os.WriteFile(gate, small, 0o644)
				return 0, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
			}
			return 0, nil
		}
		for i, name := range []string{"gate/a.jpg", "gate/7/a.jpg"} {
			os.Remove(gate)
			_, _, err := deliver(s, MakeID(1, uint64(i)), name, small)
			wantReason(t, err, ReasonName, false)
		}
		wantNothingLeft(t, s.Dir)
		wantOnly(t, s.Dir, map[string][]byte{"gate": small})
	}
}

// Images that wait for a failed disk are bounded too, and make room when it works again though nobody asks for them.
func TestDirStorePendingIsBounded(t *testing.T) {
	broken := true
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), NoSync: true, step: func(op, name string, n int) (int, error) {
		if broken && (op == "link" || op == "rename") && !strings.HasPrefix(name, metaDir) {
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EIO}
		}
		return 0, nil
	}})
	for i := range uint64(maxPending + 10) {
		_, _, err := deliver(s, MakeID(1, i), "a.jpg", []byte{1})
		wantReason(t, err, ReasonDisk, true)
	}
	if n := len(s.opened.pending); n != maxPending {
		t.Errorf("%d images are pending", n)
	}
	broken = false
	_, _, err := deliver(s, MakeID(2, 0), "b.jpg", small) // which has one of them finished
	wantReason(t, err, ReasonDisk, true)
	mustDeliver(t, s, MakeID(2, 0), "b.jpg", small)
}

// The directories that are known to be durable are forgotten when there are too many.
func TestDirStoreDirectoriesAreBounded(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), NoSync: true})
	mustDeliver(t, s, MakeID(1, 1), "a/a.jpg", small)
	for i := range maxDurable {
		s.opened.durable[fmt.Sprint(i)] = true
	}
	for i := range uint64(10) {
		mustDeliver(t, s, MakeID(2, i), fmt.Sprint("b", i, "/a.jpg"), small)
	}
	if n := len(s.opened.durable); n > maxDurable+2 {
		t.Errorf("%d directories are known", n)
	}
}

// A file that comes into the way after the name was looked at is the name's fault, and the image is gone.
func TestDirStoreFileInTheWayLate(t *testing.T) {
	for _, existing := range []Existing{KeepBoth, Replace, Refuse} {
		s := newDirStore(t, &DirStore{Dir: t.TempDir(), Existing: existing})
		s.step = func(op, name string, n int) (int, error) {
			if op == "write" && name == logFile {
				os.WriteFile(filepath.Join(s.Dir, "a"), nil, 0o644)
			}
			return 0, nil
		}
		for range 2 {
			_, _, err := deliver(s, MakeID(1, 1), "a/b", small)
			wantReason(t, err, ReasonName, false)
		}
		wantReceipt(t, s, MakeID(1, 1), false)
		wantNothingLeft(t, s.Dir)
	}
}

// What says nothing about a partial image, such as too many open files or a disk that is read-only for a while, does not cost it.
func TestDirStoreShortageKeepsPartial(t *testing.T) {
	content := picture(1, 3*chunk.BlockSize)
	var short syscall.Errno
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), step: func(op, name string, n int) (int, error) {
		if short != 0 && (op == "open" || op == "create" || op == "remove") {
			return 0, &fs.PathError{Op: op, Path: name, Err: short}
		}
		return 0, nil
	}})
	keepPartial(t, s, "a.jpg", content)
	for _, short = range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOSPC, syscall.EROFS, syscall.EACCES} {
		_, err := s.Open(t.Context(), offerOf(NewID(), "a.jpg", content))
		wantReason(t, err, ReasonDisk, true)
	}
	short = 0
	if _, reused, err := deliver(s, NewID(), "a.jpg", content); err != nil || reused != 3 {
		t.Errorf("%d blocks are reused, %v", reused, err)
	}
}

// A journal of another user's does not keep the directory from opening.
func TestDirStoreUnreadableJournal(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: t.TempDir()})
	keepPartial(t, s, "a.jpg", picture(1, 2*chunk.BlockSize))
	s.step = func(op, name string, n int) (int, error) {
		if op == "open" && strings.HasSuffix(name, journalExt) {
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EACCES}
		}
		return 0, nil
	}
	s = reopen(t, s)
	mustDeliver(t, s, NewID(), "b.jpg", small)
	wantOnly(t, s.Dir, map[string][]byte{"b.jpg": small})
}

// A stray file without a token is nobody's content.
func TestDirStoreStrayPart(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: t.TempDir()})
	mustDeliver(t, s, MakeID(1, 1), "a.jpg", small)
	s.opened.log.records, s.opened.log.compactAt = 100, 0
	mustDeliver(t, s, MakeID(1, 2), "b.jpg", small)
	os.WriteFile(filepath.Join(s.Dir, contentFile("")), []byte("junk"), 0o644)
	s = reopen(t, s)
	wantReceipt(t, s, MakeID(1, 1), true)
}

// A directory that has become a file while the Server runs: senders hear it, and the log.
func TestDirStoreBecomesFileIsSaid(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nobody can replace the directory there")
	}
	var said bytes.Buffer
	store := newDirStore(t, &DirStore{Dir: filepath.Join(t.TempDir(), "in")})
	s := &Server{Store: store, Logger: slog.New(slog.NewTextHandler(&said, nil))}
	if _, _, err := store.Receipt(t.Context(), NewID()); err != nil { // all was well
		t.Fatal(err)
	}
	os.RemoveAll(store.Dir)
	os.WriteFile(store.Dir, nil, 0o644)
	bubble(t, s, func(t *testing.T) {
		_, err := pipeTo(t, s).Send(t.Context(), &Image{Name: "a.jpg", Body: Bytes(small)}, nil)
		if wantOutcome(t, err, Rejected, nil); asRejected(err, ReasonOther).Reason != ReasonDisk {
			t.Error("the sender hears:", err)
		}
		if synctest.Wait(); !strings.Contains(said.String(), "not a directory") {
			t.Errorf("the log says: %s", &said)
		}
	})
}

// Characters that the file system does not take, which it says only when the name is made, are the name's fault, and
// the image is gone: FAT and NTFS under Linux say EINVAL of "x:y.jpg", FAT after it has refused the link.
func TestDirStoreNameTheFileSystemRefuses(t *testing.T) {
	for _, existing := range []Existing{KeepBoth, Replace, Refuse} {
		for _, errno := range []syscall.Errno{syscall.EINVAL, syscall.EILSEQ} {
			s := newDirStore(t, &DirStore{Dir: t.TempDir(), Existing: existing, step: func(op, name string, n int) (int, error) {
				if op == "link" {
					return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EPERM}
				}
				if op == "rename" && name == "x:y.jpg" {
					return 0, &fs.PathError{Op: op, Path: name, Err: errno}
				}
				return 0, nil
			}})
			_, _, err := deliver(s, MakeID(1, 1), "x:y.jpg", small)
			wantReason(t, err, ReasonName, false)
			wantReceipt(t, s, MakeID(1, 1), false)
			if left := leftovers(t, s.Dir); len(left) > 0 || len(s.opened.pending) > 0 {
				t.Errorf("left over: %v, %d pending", left, len(s.opened.pending))
			}
			mustDeliver(t, s, MakeID(1, 1), "x y.jpg", small)
		}
	}
}

// A program that takes images out of a directory, and the directory with them, before that is synced has the image: it
// is kept, and does not come again. Nor do other images wait for that directory.
func TestDirStoreDirectoryTakenAwayBeforeItsSync(t *testing.T) {
	needDirSync(t)
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), Path: func(img *Image) string { return "gate/" + img.Name }})
	taken := 0
	s.step = func(op, name string, n int) (int, error) {
		if op == "syncdir" && name == "gate" && taken == 0 {
			if err := os.RemoveAll(filepath.Join(s.Dir, "gate")); err != nil {
				t.Error(err)
			}
			taken++
		}
		return 0, nil
	}
	mustDeliver(t, s, MakeID(1, 1), "a.jpg", small)
	for range 2 {
		wantReceipt(t, s, MakeID(1, 1), true)
		wantNothingLeft(t, s.Dir)
		s = reopen(t, s)
	}
	wantOnly(t, s.Dir, nil)
	mustDeliver(t, s, MakeID(1, 2), "b.jpg", small)
	wantOnly(t, s.Dir, map[string][]byte{"gate/b.jpg": small})
}

// A directory that was taken away and made again by somebody is not safe in its parent because the former one was.
func TestDirStoreDirectoryTakenAwayAndMadeAgain(t *testing.T) {
	needDirSync(t)
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), Path: func(img *Image) string { return "gate/" + img.Name }})
	mustDeliver(t, s, MakeID(1, 1), "a.jpg", small)
	var synced []string
	taken := false
	s.opened.disk.step = func(op, name string, n int) (int, error) {
		if op == "syncdir" && name == "gate" && !taken {
			taken = true
			os.RemoveAll(filepath.Join(s.Dir, "gate"))
		}
		if op == "syncdir" {
			synced = append(synced, name)
		}
		return 0, nil
	}
	mustDeliver(t, s, MakeID(1, 2), "b.jpg", small)
	os.Mkdir(filepath.Join(s.Dir, "gate"), 0o755)
	synced = nil
	mustDeliver(t, s, MakeID(1, 3), "c.jpg", small)
	if !slices.Contains(synced, ".") {
		t.Errorf("synced are %q", synced)
	}
}

// Too many open files, or a log that fails for a moment, as an image is committed do not cost it: it is whole and safe.
func TestDirStoreShortageAtCommitKeepsPartial(t *testing.T) {
	needDirSync(t)
	content := picture(1, 3*chunk.BlockSize)
	for _, short := range []syscall.Errno{syscall.EMFILE, syscall.EIO} {
		fails := 1
		s := newDirStore(t, &DirStore{Dir: t.TempDir(), step: func(op, name string, n int) (int, error) {
			if fails > 0 && op == "syncdir" && name == metaDir {
				fails--
				return 0, &fs.PathError{Op: op, Path: name, Err: short}
			}
			return 0, nil
		}})
		_, _, err := deliver(s, MakeID(1, 1), "a.jpg", content)
		wantReason(t, err, ReasonDisk, true)
		if _, reused, err := deliver(s, MakeID(1, 1), "a.jpg", content); err != nil || reused != 3 {
			t.Errorf("%v: %d blocks are reused, %v", short, reused, err)
		}
		wantNothingLeft(t, s.Dir)
	}
}

// An intent that could not be taken back for certain is written again before the image gets its name after all: the
// log may say that there is none.
func TestDirStoreTornVoid(t *testing.T) {
	denied, broken := true, false
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), step: func(op, name string, n int) (int, error) {
		switch {
		case denied && (op == "link" || op == "rename") && name == "a.jpg":
			broken = true
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EACCES}
		case broken && (op == "sync" || op == "truncate") && name == logFile:
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EIO}
		}
		return 0, nil
	}})
	_, _, err := deliver(s, MakeID(1, 1), "a.jpg", small)
	wantReason(t, err, ReasonDisk, true)
	denied, broken = false, false
	if _, ok, err := s.Receipt(t.Context(), MakeID(1, 1)); !ok || err != nil {
		t.Fatalf("receipt %v, %v", ok, err)
	}
	s = reopen(t, s)
	if _, ok, err := s.Receipt(t.Context(), MakeID(1, 1)); !ok || err != nil {
		t.Errorf("after a restart: receipt %v, %v", ok, err)
	}
	wantOnly(t, s.Dir, map[string][]byte{"a.jpg": small})
}

// What is written to a log that was just compacted counts only when its name is durable: the old one would be found
// after a power failure.
func TestDirStoreCompactedLogIsDurableFirst(t *testing.T) {
	needDirSync(t)
	renamed, failed := false, false
	s := newDirStore(t, &DirStore{Dir: t.TempDir()})
	mustDeliver(t, s, MakeID(1, 1), "a.jpg", small)
	s.opened.log.records, s.opened.log.compactAt = 100, 0
	s.opened.disk.step = func(op, name string, n int) (int, error) {
		switch {
		case op == "rename" && name == logFile:
			renamed = true
		case op == "syncdir" && name == metaDir && renamed && !failed:
			failed = true
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EIO}
		case op == "syncdir" && name == metaDir:
			renamed = false // durably
		case op == "write" && name == logFile && renamed:
			t.Error("a record is written to a log whose name is not durable")
		}
		return 0, nil
	}
	for range 2 {
		if _, _, err := deliver(s, MakeID(1, 2), "b.jpg", small); err == nil {
			break
		}
	}
	if _, ok, err := s.Receipt(t.Context(), MakeID(1, 2)); !ok || err != nil || !failed {
		t.Errorf("receipt %v, %v; a sync failed: %v", ok, err, failed)
	}
}

// No path leads into the store's own directory, whatever other names the file system has for that.
func TestDirStoreAliasOfItsOwn(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), Existing: Replace, Path: func(img *Image) string {
		if img.Name == "receipts" {
			return "PIXFER~1/receipts"
		}
		return img.Name
	}})
	mustDeliver(t, s, MakeID(1, 1), "a.jpg", small)
	if err := os.Symlink(metaDir, filepath.Join(s.Dir, "PIXFER~1")); err != nil {
		t.Skip(err)
	}
	_, _, err := deliver(s, MakeID(1, 2), "receipts", small)
	wantReason(t, err, ReasonName, false)
	s = reopen(t, s)
	wantReceipt(t, s, MakeID(1, 1), true)
}
