package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
)

func TestJournal(t *testing.T) {
	path, file := newJournal(t), randomFile(t, 100)
	begin := func() transport.ID {
		t.Helper()
		j, err := openJournal(path) // as the next process does
		if err != nil {
			t.Fatal(err)
		}
		id, err := j.begin("tcp://a:1", file)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := begin()
	if begin() != first {
		t.Error("an unfinished delivery got another ID")
	}
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	if other, _ := j.begin("tcp://b:1", file); other == first {
		t.Error("another receiver got the same ID")
	}

	// Whatever else gets into the file, what is whole counts.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "%s\n{\"receiver\":\"tcp://a:1\",\"pa", bytes.Repeat([]byte{0, 0xff}, 100_000)) // torn
	f.Close()
	if begin() != first {
		t.Error("damage made it forget")
	}
	if _, err := j.begin("tcp://c:1", file); err != nil { // behind the torn line
		t.Fatal(err)
	}
	if j, err = openJournal(path); err != nil || len(j.open) != 3 {
		t.Errorf("%d unfinished, want 3: %v", len(j.open), err)
	}

	if err := os.Chtimes(file, time.Time{}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	changed := begin()
	if changed == first {
		t.Error("a changed file got the same ID")
	}
	if err := j.done("tcp://a:1", file); err != nil {
		t.Fatal(err)
	}
	if begin() == changed {
		t.Error("a finished delivery got the same ID")
	}
}

func TestJournalIsCompacted(t *testing.T) {
	path, file := newJournal(t), randomFile(t, 1)
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	id, err := j.begin("tcp://a:1", file)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, strings.Repeat("{}\n", compactAfter))
	f.Close()
	if j, err = openJournal(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if again, _ := j.begin("tcp://a:1", file); err != nil || again != id || info.Size() > 1000 {
		t.Errorf("%v: %d bytes, ID %v, want %v", err, info.Size(), again, id)
	}
}

// TestJournalIsCompactedMeanwhile: what another program appends while a journal is rewritten is in the new one.
func TestJournalIsCompactedMeanwhile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no file is replaced there that is open")
	}
	path, file := newJournal(t), randomFile(t, 1)
	begin := func(receiver string) {
		j, err := openJournal(path)
		if err == nil {
			_, err = j.begin(receiver, file)
		}
		if err != nil {
			t.Error(err)
		}
	}
	begin("tcp://a:1")
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	j, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, old); err != nil {
		t.Fatal(err)
	}
	late, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	begin("tcp://b:1")                                     // read, and not yet rewritten
	err = j.compact(&endReader{Reader: old, then: func() { // rewritten
		fmt.Fprintf(late, "\n{\"receiver\":\"tcp://c:1\",\"path\":%q}\n", file)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if j, err = openJournal(path); err != nil || len(j.open) != 3 {
		t.Errorf("%d unfinished, want 3: %v (%v)", len(j.open), j.open, err)
	}
}

// endReader calls then when it has ended and is read once more.
type endReader struct {
	io.Reader
	ended bool
	then  func()
}

func (r *endReader) Read(p []byte) (int, error) {
	if r.ended {
		r.ended = false
		r.then()
	}
	n, err := r.Reader.Read(p)
	r.ended = err != nil
	return n, err
}

// TestJournalOfSeveralPrograms: they write at once, and each line is whole.
func TestJournalOfSeveralPrograms(t *testing.T) {
	path, dir := newJournal(t), t.TempDir()
	var wg sync.WaitGroup
	for program := range 4 {
		j, err := openJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for i := range 50 {
				file := filepath.Join(dir, fmt.Sprint(program, "-", i))
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Error(err)
				}
				if _, err := j.begin("tcp://a:1", file); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if j, err := openJournal(path); err != nil || len(j.open) != 200 {
		t.Errorf("%d of 200 entries: %v", len(j.open), err)
	}
}

// TestUnwritableJournal does not keep an image from its receiver, and is told.
func TestUnwritableJournal(t *testing.T) {
	file, recv := randomFile(t, 10), startRecv(t, "-dir", t.TempDir(), "tcp://127.0.0.1:0")
	journal := filepath.Join(t.TempDir(), "gone", "journal")
	j, err := openJournal(journal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Dir(journal)); err != nil { // while the program runs
		t.Fatal(err)
	}
	if id, err := j.begin(recv.url, file); err == nil || id.IsZero() {
		t.Errorf("%v, %v: want a good ID and the error", id, err)
	}
	for _, journal := range []string{t.TempDir(), filepath.Join(file, "journal")} {
		if _, stderr, code := runs(t, nil, "send", "-journal", journal, recv.url, file); code != 1 || !strings.Contains(stderr, "journal") {
			t.Errorf("%s: exit %d: %s", journal, code, stderr)
		}
	}
}

func TestChangedFileIsSentAfresh(t *testing.T) {
	const size = 40 << 20
	dir, file, journal := t.TempDir(), randomFile(t, size), newJournal(t)
	recv := startRecv(t, "-dir", dir, "tcp://127.0.0.1:0")
	m := medium{recv: recv.url, proxy: countTCP}
	to, sent := m.through(t)
	send := command(t.Context(), "send", "-json", "-journal", journal, to, file)
	begin(t, send)
	sent.await(t, size/4)
	f, err := os.OpenFile(file, os.O_RDWR, 0) // in place, with the size as before
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("other"), 0)
	f.WriteAt([]byte("other"), size-5)
	f.Close()
	send.Wait() // notices, unless it was faster
	r, err := sendOne(t, "-journal", journal, to, file)
	if err != nil || r.Status != "delivered" {
		t.Fatalf("%+v, %v", r, err)
	}
	var latest string
	for range 3 {
		if r := recv.next(t); r.Status == "delivered" {
			latest = r.Name
			if r.Bytes == size && sameContent(file, filepath.Join(dir, latest)) {
				return
			}
		}
	}
	t.Errorf("%q is not the file as it is now", latest)
}

func sameContent(a, b string) bool {
	x, errX := os.ReadFile(a)
	y, errY := os.ReadFile(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func TestRecentIsBounded(t *testing.T) {
	var s recent
	var first, last transport.ID
	for i := range 3 * recently {
		last = transport.NewID()
		if i == 0 {
			first = last
		}
		if before, news := s.set(last, "failed"); before != "" || !news {
			t.Fatal("known from before")
		}
		if before, news := s.set(last, "failed"); before != "failed" || news {
			t.Fatal("set twice")
		}
	}
	if n := len(s.young) + len(s.old); n > 2*recently || n < recently {
		t.Errorf("remembers %d", n)
	}
	if s.get(first) != "" || s.get(last) != "failed" {
		t.Error("forgets the wrong ones")
	}
	if before, news := s.set(last, delivered); before != "failed" || !news {
		t.Error("does not see the difference")
	}
}
