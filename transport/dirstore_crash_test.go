package transport

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pixferry/pixferry/chunk"
)

var errCrash = errors.New("the process is dead")

// A crasher lets a number of steps through and fails all others, as a kill does.
// Of the write that it stops at it lets a part through.
type crasher struct {
	mu      sync.Mutex
	left    int
	part    func(n int) int
	noLinks bool
	dead    string // the step it stopped at
}

func (c *crasher) step(op, name string, n int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != "" {
		return 0, errCrash
	}
	if c.left == 0 {
		c.dead = op + " " + name
		return c.part(n), errCrash
	}
	c.left--
	if op == "link" && c.noLinks {
		return 0, syscall.EPERM
	}
	return 0, nil
}

// A life is what one program does with a store, until it is killed.
type life struct {
	store   *DirStore
	mode    Existing
	noLinks bool

	acked       map[ID]bool // its Commit returned
	checkpoints int         // of big, that returned, and were not dropped
	resuming    bool        // big is being sent for the second time
}

var (
	smallID, bigID, deepID, sameID = MakeID(1, 1), MakeID(1, 2), MakeID(1, 3), MakeID(1, 4)

	small, deep, same = picture(1, 1000), picture(3, 100_000), picture(4, 2000)
	bigBefore         = picture(2, 2*chunk.BlockSize+5)
	big               = append(picture(5, chunk.BlockSize), bigBefore[chunk.BlockSize:]...) // its first block changed
	foreign           = []byte("somebody else's")
)

func lifePath(img *Image) string {
	if img.Name == "deep.jpg" {
		return "one/two/deep.jpg"
	}
	return img.Name
}

func (l *life) deliver(id ID, name string, content []byte) error {
	_, _, err := deliver(l.store, id, name, content)
	if err == nil {
		l.acked[id] = true
	}
	return err
}

// run stores four images, one of them in two goes and with a changed block, one
// under a name that is taken, with a compaction of the log in between.
func (l *life) run() error {
	if err := l.deliver(smallID, "small.jpg", small); err != nil {
		return err
	}
	p, err := l.store.Open(context.Background(), offerOf(bigID, "big.jpg", bigBefore))
	if err != nil {
		return err
	}
	hasher := chunk.NewBlockHasher(chunk.SHA256)
	for i := range int64(2) {
		block := bigBefore[i*chunk.BlockSize:][:chunk.BlockSize]
		if _, err := p.WriteAt(block, i*chunk.BlockSize); err != nil {
			return err
		}
		if err := p.Checkpoint([]chunk.Block{{Index: i, Digest: hasher.Sum(block)}}); err != nil {
			return err
		}
		l.checkpoints++
	}
	if err := p.Keep(); err != nil {
		return err
	}
	l.resuming = true
	if err := l.deliver(bigID, "big.jpg", big); err != nil {
		return err
	}
	log := l.store.opened.log
	log.records, log.compactAt = 100, 0
	if err := l.deliver(deepID, "deep.jpg", deep); err != nil {
		return err
	}
	return l.deliver(sameID, "same.jpg", same)
}

// check looks at what the dead left, then finishes the work and looks again.
func (l *life) check(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: l.store.Dir, Existing: l.mode, Path: lifePath, NoSync: true})
	defer s.Close()
	contents := map[ID][]byte{smallID: small, bigID: big, deepID: deep, sameID: same}
	names := map[ID]string{smallID: "small.jpg", bigID: "big.jpg", deepID: "deep.jpg", sameID: "same.jpg"}
	finals := map[ID]string{smallID: "small.jpg", bigID: "big.jpg", deepID: "one/two/deep.jpg", sameID: "same (1).jpg"}
	if l.mode != KeepBoth {
		finals[sameID] = "same.jpg"
	}
	visible := files(t, s.Dir) // before recovery: even now nothing wrong may be seen
	for name, content := range visible {
		whole := name == "same.jpg" && bytes.Equal(content, foreign)
		for id, final := range finals {
			whole = whole || final == name && bytes.Equal(content, contents[id])
		}
		if !whole {
			t.Errorf("wrong image visible: %s, %d bytes", name, len(content))
		}
	}
	for _, id := range []ID{smallID, bigID, deepID, sameID} {
		r, ok, err := s.Receipt(t.Context(), id)
		if err != nil || l.acked[id] && !ok || ok && r != receiptOf(id, contents[id]) {
			t.Fatalf("%s, acknowledged %t: receipt %v, %t, %v", names[id], l.acked[id], r, ok, err)
		}
		if ok {
			if got := files(t, s.Dir)[finals[id]]; !bytes.Equal(got, contents[id]) {
				t.Errorf("%s has a receipt and is not there", finals[id])
			}
			continue
		}
		content := contents[id]
		if id == bigID && !l.resuming {
			// Every checkpoint counts, and one whose record was written as the process died.
			p := mustOpen(t, s, offerOf(bigID, "big.jpg", bigBefore))
			if reused, err := fill(p, bigBefore); err != nil || reused < l.checkpoints || reused > l.checkpoints+1 {
				t.Errorf("%d blocks of %d reused, %v", reused, l.checkpoints, err)
			}
			p.Keep()
		}
		_, reused, err := deliver(s, id, names[id], content)
		if err != nil {
			t.Fatalf("%s: %v", names[id], err)
		}
		if id == bigID && l.resuming && reused < 1 {
			t.Errorf("nothing of %s reused", names[id])
		}
	}
	want := map[string][]byte{"same.jpg": foreign}
	for id, final := range finals {
		want[final] = contents[id]
	}
	wantOnly(t, s.Dir, want)
	if left := leftovers(t, s.Dir); len(left) > 0 && (len(left) > 1 || left[0] != filepath.Base(newLogFile)) {
		t.Errorf("left over: %v", left)
	}
}

// A process dies at every step, and in the middle and near the end of every write; then the
// next one dies at some step of the recovery, and a third one looks.
func TestDirStoreCrashAtEveryStep(t *testing.T) {
	for name, l := range map[string]life{
		"keep both": {mode: KeepBoth}, "replace": {mode: Replace}, "no links": {mode: KeepBoth, noLinks: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for k, dead := 0, "start"; dead != "" && !t.Failed(); k++ {
				dead = crashAt(t, l, k, func(n int) int { return n / 2 })
				if strings.HasPrefix(dead, "write") { // nothing, and all, of it: the steps before and after
					crashAt(t, l, k, func(n int) int { return max(n-1, 0) })
				}
			}
		})
	}
}

// crashAt lets a process die after k steps, in the middle of a write if that is
// next, and returns the step it died at; empty: it lived to the end.
func crashAt(t *testing.T, l life, k int, part func(n int) int) (dead string) {
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.WriteFile(filepath.Join(dir, "same.jpg"), foreign, 0o644)
	first := &crasher{left: k, part: part, noLinks: l.noLinks}
	l.acked = make(map[ID]bool)
	l.store = &DirStore{Dir: dir, Existing: l.mode, Path: lifePath, NoSync: true, step: first.step} // a kill leaves the page cache
	err = l.run()
	l.store.Close()
	if (err == nil) != (first.dead == "") {
		t.Fatalf("died at %q, error %v", first.dead, err)
	}
	second := &crasher{left: k % 7, part: part, noLinks: l.noLinks}
	s := &DirStore{Dir: dir, Existing: l.mode, Path: lifePath, NoSync: true, step: second.step}
	s.Receipt(t.Context(), smallID) // recovers, and dies at that
	s.Close()
	l.check(t)
	if t.Failed() {
		t.Logf("died at step %d, %q, then at %q", k, first.dead, second.dead)
	}
	return first.dead
}

// The final name is taken by somebody else when the intent is in the log: with
// Refuse the image is not stored, wherever the process dies.
func TestDirStoreCrashWhileRefusing(t *testing.T) {
	for k := 0; ; k++ {
		dir := t.TempDir()
		c := &crasher{left: k, part: func(n int) int { return n / 2 }}
		s := &DirStore{Dir: dir, Existing: Refuse, step: func(op, name string, n int) (int, error) {
			if op == "link" {
				os.WriteFile(filepath.Join(dir, "same.jpg"), foreign, 0o644)
			}
			return c.step(op, name, n)
		}}
		_, _, err := deliver(s, sameID, "same.jpg", same)
		s.Close()
		if c.dead == "" {
			wantReason(t, err, ReasonExists, false)
		}
		os.WriteFile(filepath.Join(dir, "same.jpg"), foreign, 0o644)
		s = reopen(t, &DirStore{Dir: dir, Existing: Refuse})
		if _, ok, err := s.Receipt(t.Context(), sameID); ok || err != nil {
			t.Errorf("died at %q: receipt %t, %v", c.dead, ok, err)
		}
		_, _, err = deliver(s, sameID, "same.jpg", same)
		wantReason(t, err, ReasonExists, false)
		wantOnly(t, dir, map[string][]byte{"same.jpg": foreign})
		if left := leftovers(t, dir); len(left) != 2*len(s.opened.idle) || len(s.opened.pending) > 0 {
			t.Errorf("died at %q: left over: %v, pending: %v", c.dead, left, s.opened.pending)
		}
		s.Close()
		if c.dead == "" || t.Failed() {
			return
		}
	}
}

// What the commit order promises about power failures: each sync is in its place.
func TestDirStoreSyncsInOrder(t *testing.T) {
	var steps []string
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), Path: lifePath})
	mustDeliver(t, s, smallID, "small.jpg", small)
	token := ""
	s.opened.disk.step = func(op, name string, n int) (int, error) {
		if op == "create" && token == "" {
			token = strings.TrimSuffix(filepath.Base(name), contentExt)
		}
		steps = append(steps, op+" "+strings.ReplaceAll(name, token, "X"))
		return 0, nil
	}
	p := mustOpen(t, s, PartialOffer{ID: deepID, Image: Image{Name: "deep.jpg"}, Size: 5, Algorithm: chunk.SHA256})
	p.WriteAt([]byte("12345"), 0)
	if _, err := p.Commit(t.Context(), &Image{Name: "deep.jpg"}, receiptOf(deepID, []byte("12345"))); err != nil {
		t.Fatal(err)
	}
	want := []string{"create .pixferry/X.part", "write .pixferry/X.part",
		"sync .pixferry/X.part", "syncdir .pixferry", "write .pixferry/receipts", "sync .pixferry/receipts",
		"remove .pixferry/X.blocks", "link one/two/deep.jpg", "mkdir one/two", "link one/two/deep.jpg",
		"syncdir one/two", "syncdir one", "syncdir .", "remove .pixferry/X.part"}
	if runtime.GOOS == "windows" { // which syncs no directory
		want = slices.DeleteFunc(want, func(step string) bool { return strings.HasPrefix(step, "syncdir") })
	}
	if !slices.Equal(steps, want) {
		t.Errorf("steps:\n%s\nwant:\n%s", strings.Join(steps, "\n"), strings.Join(want, "\n"))
	}
}

// Every step fails once, with a full disk, and the process lives on: the error
// says so, and what was tried works when it is tried again.
func TestDirStoreDiskFullAtEveryStep(t *testing.T) {
	for k := 0; ; k++ {
		steps, failed := 0, ""
		s := newDirStore(t, &DirStore{Dir: t.TempDir(), Path: lifePath})
		if _, _, err := s.Receipt(t.Context(), smallID); err != nil {
			t.Fatal(err)
		}
		s.opened.disk.step = func(op, name string, n int) (int, error) {
			if steps++; steps != k+1 || op == "remove" { // which needs no space
				return 0, nil
			}
			failed = op + " " + name
			return n / 2, &os.PathError{Op: op, Path: name, Err: syscall.ENOSPC}
		}
		p, err := s.Open(t.Context(), offerOf(bigID, "deep.jpg", big))
		if err == nil {
			_, err = fill(p, big)
			if err == nil {
				_, err = p.Commit(t.Context(), &Image{Name: "deep.jpg"}, receiptOf(bigID, big))
			}
			if err != nil {
				p.Keep()
			}
		}
		if err != nil {
			wantReason(t, err, ReasonDisk, true)
			if !strings.Contains(err.Error(), "free space") {
				t.Errorf("%s: the error does not say what to do: %v", failed, err)
			}
		} else if failed != "" && !strings.HasPrefix(failed, "link") { // a rename takes its place
			t.Errorf("%s: no error", failed)
		}
		refusal := err
		if _, done, err := s.Receipt(t.Context(), bigID); err != nil {
			t.Fatal(err)
		} else if later := refusal != nil && strings.Contains(refusal.Error(), "under the same ID only"); later != (refusal != nil && done) {
			t.Errorf("%s: stored later: %v, but the error says: %v", failed, done, refusal)
		} else if !done {
			if left := leftovers(t, s.Dir); len(left) > 0 {
				t.Errorf("%s: space is not given back: %v", failed, left)
			}
			mustDeliver(t, s, bigID, "deep.jpg", big)
		}
		wantOnly(t, s.Dir, map[string][]byte{"one/two/deep.jpg": big})
		s = reopen(t, s)
		if _, ok, err := s.Receipt(t.Context(), bigID); !ok || err != nil {
			t.Errorf("%s: no receipt: %v", failed, err)
		}
		wantOnly(t, s.Dir, map[string][]byte{"one/two/deep.jpg": big})
		s.Close()
		if t.Failed() || failed == "" && steps <= k {
			return
		}
	}
}

// A directory that was made for one image is not safe yet when another one is stored in it: that one makes it so.
// After that only the innermost is synced.
func TestDirStoreSyncsADirectoryMadeForAnotherImage(t *testing.T) {
	needDirSync(t)
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), Path: func(img *Image) string { return "sub/" + img.Name }})
	if _, _, err := s.Receipt(t.Context(), smallID); err != nil {
		t.Fatal(err)
	}
	made, goOn := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	links, synced := 0, make(map[string]int)
	s.opened.disk.step = func(op, name string, n int) (int, error) {
		mu.Lock()
		if op == "syncdir" {
			synced[name]++
		}
		if op == "link" && name == "sub/first.jpg" {
			links++
		}
		stop := op == "link" && name == "sub/first.jpg" && links == 2 // the directory is there by now
		mu.Unlock()
		if stop {
			close(made)
			<-goOn
		}
		return 0, nil
	}
	first := async(func() error { _, _, err := deliver(s, smallID, "first.jpg", small); return err })
	<-made
	mustDeliver(t, s, deepID, "second.jpg", small)
	mu.Lock()
	if synced["."] != 1 || synced["sub"] != 1 {
		t.Errorf("the second image: synced %v", synced)
	}
	mu.Unlock()
	close(goOn)
	if err := <-first; err != nil {
		t.Error(err)
	}
	mustDeliver(t, s, bigID, "third.jpg", small)
	if synced["."] != 1 || synced["sub"] != 3 {
		t.Errorf("three images: synced %v", synced)
	}
}
