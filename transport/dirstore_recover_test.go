package transport

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pixferry/pixferry/chunk"
)

// keepPartial leaves all blocks of content waiting but the last.
func keepPartial(t *testing.T, s Store, name string, content []byte) {
	t.Helper()
	p := mustOpen(t, s, offerOf(NewID(), name, content))
	whole := len(content) / chunk.BlockSize * chunk.BlockSize
	mustFill(t, p, content[:whole])
	if err := p.Keep(); err != nil {
		t.Fatal(err)
	}
}

// contentOf returns the path of the only partial file.
func contentOf(t *testing.T, dir string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, metaDir, "*"+contentExt))
	if err != nil || len(found) != 1 {
		t.Fatalf("partial files %v, %v", found, err)
	}
	return found[0]
}

// Once the directory is opened anew nothing rests on what was not synced: blocks that the disk has lost are dropped,
// whoever has lost them.
func TestDirStoreComparesWhenReopened(t *testing.T) {
	content := picture(1, 3*chunk.BlockSize+99)
	s := newDirStore(t, &DirStore{Dir: t.TempDir()})
	keepPartial(t, s, "a.jpg", content)
	path := contentOf(t, s.Dir)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte{content[5] ^ 1}, 5) // block 0 is damaged, block 2 cut off
	f.Truncate(3*chunk.BlockSize - 1)
	f.Close()
	s = reopen(t, s)
	for range 2 { // the second time nothing is read again
		p := mustOpen(t, s, offerOf(NewID(), "a.jpg", content))
		if len(p.Held()) != 1 || p.Held()[0].Index != 1 {
			t.Fatalf("held: %v", p.Held())
		}
		p.Keep()
	}
	s = reopen(t, s)
	_, reused, err := deliver(s, NewID(), "a.jpg", content)
	if err != nil || reused != 1 {
		t.Errorf("reused %d, %v", reused, err)
	}
	wantOnly(t, s.Dir, map[string][]byte{"a.jpg": content})
}

// As long as it is open a resume reads nothing again.
func TestDirStoreComparesOnce(t *testing.T) {
	content := picture(1, 3*chunk.BlockSize+99)
	s := newDirStore(t, &DirStore{Dir: t.TempDir()})
	keepPartial(t, s, "a.jpg", content)
	s = reopen(t, s)
	for range 2 {
		p := mustOpen(t, s, offerOf(NewID(), "a.jpg", content))
		if len(p.Held()) != 3 {
			t.Errorf("held: %v", p.Held())
		}
		p.Keep()
		f, err := os.OpenFile(contentOf(t, s.Dir), os.O_RDWR, 0) // which goes unseen the second time
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt([]byte{content[5] ^ 1}, 5)
		f.Close()
	}
}

func TestDirStoreRestartReadingEndsWithContext(t *testing.T) {
	content := picture(1, 2*chunk.BlockSize)
	s := newDirStore(t, &DirStore{Dir: t.TempDir()})
	keepPartial(t, s, "a.jpg", content)
	s = reopen(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Open(ctx, offerOf(NewID(), "a.jpg", content)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, reused, err := deliver(s, NewID(), "a.jpg", content); err != nil || reused != 2 {
		t.Errorf("reused %d, %v", reused, err)
	}
}

// Every byte of a torn tail: what is whole counts, the rest is cut.
func TestDirStoreTornLog(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), NoSync: true})
	var ends []int64
	log := filepath.Join(s.Dir, logFile)
	for i := range 3 {
		mustDeliver(t, s, MakeID(1, uint64(i)), "a.jpg", []byte{byte(i)})
		info, err := os.Stat(log)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, info.Size())
	}
	whole, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for size := range whole {
		for _, tail := range [][]byte{nil, make([]byte, 20), bytes.Repeat([]byte{0xff}, 20)} {
			torn := append(bytes.Clone(whole[:size]), tail...)
			os.WriteFile(log, torn, 0o644)
			s = reopen(t, s)
			for i, end := range ends { // the tail may happen to be what was torn off
				if _, ok, err := s.Receipt(t.Context(), MakeID(1, uint64(i))); err != nil || ok != bytes.HasPrefix(torn, whole[:end]) {
					t.Fatalf("%d bytes of the log: receipt %d: %t, %v", size, i, ok, err)
				}
			}
		}
		mustDeliver(t, s, MakeID(2, 1), "b.jpg", nil)
		s = reopen(t, s)
		if _, ok, err := s.Receipt(t.Context(), MakeID(2, 1)); err != nil || !ok {
			t.Fatalf("%d bytes of the log: what came after is lost, %v", size, err)
		}
	}
}

func TestDirStoreLogOfAnotherVersion(t *testing.T) {
	receipt := (&intent{receipt: receiptOf(smallID, small)}).payload()
	for _, payload := range []string{"Z from the future", "S" + string(receipt[1:]), string(receipt) + "more", string(receipt[:len(receipt)-1])} {
		s := newDirStore(t, &DirStore{})
		os.Mkdir(filepath.Join(s.Dir, metaDir), 0o755)
		record, _ := appendRecord(nil, []byte(payload))
		os.WriteFile(filepath.Join(s.Dir, logFile), record, 0o644)
		_, _, err := s.Receipt(t.Context(), NewID())
		if err == nil || !strings.Contains(err.Error(), "version") {
			t.Errorf("%q: got %v", payload, err)
		}
		if after, _ := os.ReadFile(filepath.Join(s.Dir, logFile)); !bytes.Equal(after, record) {
			t.Errorf("%q: the log was changed", payload)
		}
	}
}

// A disk that fails after the intent: the image is finished later, and stored once.
func TestDirStoreFinishesLater(t *testing.T) {
	for _, op := range []string{"link", "syncdir .", "remove .pixferry/"} {
		if op == "syncdir ." && runtime.GOOS == "windows" {
			continue // which syncs no directory
		}
		fail := true
		s := newDirStore(t, &DirStore{Dir: t.TempDir(), step: func(o, name string, n int) (int, error) {
			if fail && (strings.HasPrefix(o+" "+name, op) && name != metaDir || op == "link" && o == "rename") {
				return 0, &fs.PathError{Op: o, Path: name, Err: syscall.EIO}
			}
			return 0, nil
		}})
		id := NewID()
		_, _, err := deliver(s, id, "a.jpg", small)
		wantReason(t, err, ReasonDisk, true)
		_, ok, err := s.Receipt(t.Context(), id)
		wantReason(t, err, ReasonDisk, true)
		if ok {
			t.Error("a receipt")
		}
		_, _, err = deliver(s, id, "a.jpg", small) // who does not ask first stores nothing twice either
		wantReason(t, err, ReasonBusy, true)
		fail = false
		if r, ok, err := s.Receipt(t.Context(), id); err != nil || !ok || r != receiptOf(id, small) {
			t.Errorf("%s: receipt %v, %t, %v", op, r, ok, err)
		}
		if final := mustDeliver(t, s, id, "a.jpg", small); final != "" {
			t.Errorf("stored again as %s", final)
		}
		s = reopen(t, s) // what could not be removed is now
		if _, ok, err := s.Receipt(t.Context(), id); !ok || err != nil {
			t.Errorf("%s: receipt %t, %v", op, ok, err)
		}
		wantOnly(t, s.Dir, map[string][]byte{"a.jpg": small})
		if left := leftovers(t, s.Dir); len(left) > 0 {
			t.Errorf("%s: left over: %v", op, left)
		}
	}
}

// What could not be finished outlives compactions of the log, and restarts that
// cannot finish it either.
func TestDirStoreFinishesMuchLater(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), step: func(op, name string, n int) (int, error) {
		if name == "a.jpg" {
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EIO}
		}
		return 0, nil
	}})
	id := NewID()
	_, _, err := deliver(s, id, "a.jpg", small)
	wantReason(t, err, ReasonDisk, true)
	s.opened.log.records, s.opened.log.compactAt = 100, 0
	mustDeliver(t, s, NewID(), "b.jpg", nil)
	if s.opened.log.records > 3 {
		t.Error("the log was not compacted")
	}
	s = reopen(t, s)
	mustDeliver(t, s, NewID(), "c.jpg", nil)
	s.step = nil
	s = reopen(t, s)
	if r, ok, err := s.Receipt(t.Context(), id); err != nil || !ok || r != receiptOf(id, small) {
		t.Errorf("receipt %v, %t, %v", r, ok, err)
	}
	wantOnly(t, s.Dir, map[string][]byte{"a.jpg": small, "b.jpg": nil, "c.jpg": nil})
}

// A torn tail is cut, not only skipped: what is appended later may end just
// where old records begin.
func TestDirStoreCutsTornTails(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: t.TempDir()})
	tear := func(path string, gap int, stale []byte) {
		t.Helper()
		record, _ := appendRecord(nil, stale)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.Write(append(bytes.Repeat([]byte{0xff}, gap), record...))
	}
	mustDeliver(t, s, MakeID(1, 1), "a.jpg", nil)
	size := s.opened.log.end // that of one record; the next is as long
	s.Close()
	tear(filepath.Join(s.Dir, logFile), int(size), (&intent{receipt: receiptOf(MakeID(9, 9), nil)}).payload())
	s = reopen(t, s)
	mustDeliver(t, s, MakeID(1, 2), "b.jpg", nil)
	s = reopen(t, s)
	for id, want := range map[ID]bool{MakeID(1, 1): true, MakeID(1, 2): true, MakeID(9, 9): false} {
		wantReceipt(t, s, id, want)
	}

	content := picture(1, 3*chunk.BlockSize)
	keepPartial(t, s, "c.jpg", content[:2*chunk.BlockSize+1])
	offer := offerOf(NewID(), "c.jpg", content[:2*chunk.BlockSize+1])
	s.Close()
	hash := chunk.NewBlockHasher(chunk.SHA256).Sum(nil)
	dropped, _ := appendRecord(nil, make([]byte, 9))
	tear(strings.TrimSuffix(contentOf(t, s.Dir), contentExt)+journalExt, len(dropped), appendDigest([]byte{kindBlock, 2, 0, 0, 0, 0, 0, 0, 0}, hash))
	for _, want := range []int{2, 1} {
		s = reopen(t, s)
		p, err := s.Open(t.Context(), offer)
		if err != nil || len(p.Held()) != want {
			t.Fatalf("held %v, %v", p.Held(), err)
		}
		if err := p.Drop([]int64{0}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDirStoreSecondStoreIsRefused(t *testing.T) {
	first := newDirStore(t, &DirStore{})
	mustDeliver(t, first, NewID(), "a.jpg", nil)
	second := newDirStore(t, &DirStore{Dir: first.Dir})
	for range 2 {
		_, err := second.Open(t.Context(), offerOf(NewID(), "b.jpg", nil))
		if !errors.Is(err, errLocked) || !strings.Contains(err.Error(), "give each its own") || !strings.Contains(err.Error(), strconv.Quote(first.Dir)) {
			t.Errorf("got %v", err)
		}
	}
	first.Close()
	mustDeliver(t, second, NewID(), "b.jpg", nil)
	if _, _, err := first.Receipt(t.Context(), NewID()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestDirStoreUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o644)
	for dir, want := range map[string]string{"": "set DirStore.Dir to", file: "to a directory", filepath.Join(file, "x"): "to a directory"} {
		s := newDirStore(t, &DirStore{Dir: "x"})
		s.Dir = dir
		if _, err := s.Open(t.Context(), PartialOffer{}); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", dir, err)
		}
	}
}

// Two transfers with one resume key: the second gets nothing of the first, and
// afterwards the one that has come further waits.
func TestResumeKeyTwice(t *testing.T) {
	content := picture(1, 3*chunk.BlockSize)
	for name, s := range map[string]Store{"dir": newDirStore(t, &DirStore{}), "mem": &MemStore{}} {
		t.Run(name, func(t *testing.T) {
			keepPartial(t, s, "a.jpg", content[:2*chunk.BlockSize+1])
			offer := offerOf(NewID(), "a.jpg", content[:2*chunk.BlockSize+1])
			first, err := s.Open(t.Context(), offer)
			if err != nil || len(first.Held()) != 2 {
				t.Fatalf("held %v, %v", first.Held(), err)
			}
			second, err := s.Open(t.Context(), offer)
			if err != nil || len(second.Held()) != 0 {
				t.Fatalf("held %v, %v", second.Held(), err)
			}
			mustFill(t, second, content[chunk.BlockSize:2*chunk.BlockSize])
			b := make([]byte, 10)
			if _, err := first.ReadAt(b, 0); err != nil || !bytes.Equal(b, content[:10]) {
				t.Error("the two share content")
			}
			first.Keep()
			second.Keep()
			third, err := s.Open(t.Context(), offer)
			if err != nil || len(third.Held()) != 2 {
				t.Errorf("held %v, %v", third.Held(), err)
			}
			third.Discard()
			if d, ok := s.(*DirStore); ok && len(leftovers(t, d.Dir)) > 0 {
				t.Errorf("left over: %v", leftovers(t, d.Dir))
			}
		})
	}
}

// A block whose content is being changed is not held after a kill.
func TestDirStoreDropSurvivesKill(t *testing.T) {
	content := picture(1, 2*chunk.BlockSize)
	s := newDirStore(t, &DirStore{Dir: t.TempDir()})
	keepPartial(t, s, "a.jpg", content)
	p := mustOpen(t, s, offerOf(NewID(), "a.jpg", content))
	if err := p.Drop([]int64{0}); err != nil || len(p.Held()) != 1 {
		t.Fatalf("held %v, %v", p.Held(), err)
	}
	p.WriteAt([]byte("changed"), 0)
	s = reopen(t, s)
	if _, reused, err := deliver(s, NewID(), "a.jpg", content); err != nil || reused != 1 {
		t.Errorf("reused %d, %v", reused, err)
	}
	wantOnly(t, s.Dir, map[string][]byte{"a.jpg": content})
}

// Many at once under one ID, as no Inbox does: one is stored.
func TestStoresKeepOneOfAnID(t *testing.T) {
	id := NewID()
	dir, mem := newDirStore(t, &DirStore{Dir: t.TempDir()}), &MemStore{}
	for _, s := range []Store{dir, mem} {
		done := make(chan error)
		for i := range 8 {
			go func() {
				_, _, err := deliver(s, id, "a.jpg", []byte{byte(i)})
				done <- err
			}()
		}
		for range 8 {
			if err := <-done; err != nil {
				wantReason(t, err, ReasonBusy, true)
			}
		}
		wantReceipt(t, s, id, true)
	}
	if got := files(t, dir.Dir); len(got) != 1 || len(leftovers(t, dir.Dir)) != 2*len(dir.opened.idle) || len(mem.kept) != 1 {
		t.Errorf("stored %d and %d images, left over %v", len(got), len(mem.kept), leftovers(t, dir.Dir))
	}
}

// No journal is written for them.
func TestDirStoreSmallImagesAreNotResumed(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), step: func(op, name string, n int) (int, error) {
		if op != "remove" && strings.HasSuffix(name, journalExt) {
			t.Errorf("%s %s", op, name)
		}
		return 0, nil
	}})
	mustDeliver(t, s, NewID(), "a.jpg", picture(1, chunk.BlockSize))
	p := mustOpen(t, s, offerOf(NewID(), "b.jpg", small))
	mustFill(t, p, small)
	if err := p.Keep(); err != nil || len(leftovers(t, s.Dir)) > 0 {
		t.Errorf("left over %v, %v", leftovers(t, s.Dir), err)
	}
}

// Another size or algorithm under the same key is another image.
func TestResumeKeyOfAnotherImage(t *testing.T) {
	content := picture(1, 2*chunk.BlockSize+1)
	for name, s := range map[string]Store{"dir": newDirStore(t, &DirStore{}), "mem": &MemStore{}} {
		keepPartial(t, s, "a.jpg", content)
		for _, change := range []func(*PartialOffer){
			func(o *PartialOffer) { o.Size++ }, func(o *PartialOffer) { o.Algorithm.ID++ }, func(o *PartialOffer) { o.Key = "" }, func(o *PartialOffer) { o.Key += "x" },
		} {
			o := offerOf(NewID(), "a.jpg", content)
			change(&o)
			if p, err := s.Open(t.Context(), o); err != nil || len(p.Held()) > 0 {
				t.Errorf("%s: held %v, %v", name, p.Held(), err)
			}
		}
	}
}

// Space for new images comes from those that wait.
func TestDirStoreFullDiskTakesWaitingImages(t *testing.T) {
	content := picture(1, 2*chunk.BlockSize)
	full, freed := false, ""
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), step: func(op, name string, n int) (int, error) {
		if op == "remove" && full {
			full, freed = false, name
		}
		if op == "write" && full {
			return n / 2, &fs.PathError{Op: op, Path: name, Err: syscall.ENOSPC}
		}
		return 0, nil
	}})
	keepPartial(t, s, "a.jpg", content)
	token := strings.TrimSuffix(filepath.Base(contentOf(t, s.Dir)), contentExt)
	full = true
	mustDeliver(t, s, NewID(), "b.jpg", content)
	if !strings.Contains(freed, token) {
		t.Errorf("freed %q", freed)
	}
	wantOnly(t, s.Dir, map[string][]byte{"b.jpg": content})
}
