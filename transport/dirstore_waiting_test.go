package transport

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/chunk"
)

func TestDirStoreExpires(t *testing.T) {
	content := picture(1, 2*chunk.BlockSize)
	now := time.Now()
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), Expire: time.Hour, now: func() time.Time { return now }})
	keepPartial(t, s, "a.jpg", content)
	now = now.Add(59 * time.Minute)
	keepPartial(t, s, "b.jpg", content)
	keepPartial(t, s, "a.jpg", content) // used again: counts anew
	now = now.Add(59 * time.Minute)
	keepPartial(t, s, "c.jpg", content)
	if n := len(leftovers(t, s.Dir)); n != 6 {
		t.Errorf("%d files left, want 6", n)
	}
	now = now.Add(2 * time.Minute)
	keepPartial(t, s, "c.jpg", content)
	if n := len(leftovers(t, s.Dir)); n != 2 {
		t.Errorf("%d files left, want those of c.jpg", n)
	}
	now = now.Add(time.Hour)
	s = reopen(t, s) // the age of the files counts
	keepPartial(t, s, "d.jpg", content)
	if n := len(leftovers(t, s.Dir)); n != 2 {
		t.Errorf("%d files left, want those of d.jpg", n)
	}
}

// A board without a clock of its own begins in 1970, and has it set by years when there is a network: what waits since
// before does not get old by that, nor does it wait for years because it was written when the clock was ahead.
func TestDirStoreWaitsWhileTheClockIsSet(t *testing.T) {
	content := picture(1, 2*chunk.BlockSize)
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), Expire: time.Hour})
	for name, age := range map[string]time.Duration{"a.jpg": 20 * time.Minute, "b.jpg": -50 * 365 * 24 * time.Hour} {
		keepPartial(t, s, name, content)
		written := time.Now().Add(-age)
		for _, image := range s.opened.idle {
			if err := os.Chtimes(filepath.Join(s.Dir, journalFile(image.token)), written, written); err != nil {
				t.Fatal(err)
			}
		}
		s = reopen(t, s)
		if _, _, err := s.Receipt(t.Context(), NewID()); err != nil || len(s.opened.idle) != 1 {
			t.Fatalf("%d images wait, %v", len(s.opened.idle), err)
		}
		for key, image := range s.opened.idle {
			if waited := time.Since(image.used); waited < max(0, age) || waited > max(0, age)+10*time.Minute {
				t.Errorf("%s has waited for %v, and its file is %v old", name, waited, age)
			}
			if !strings.Contains(image.used.String(), "m=") {
				t.Errorf("%s has waited since %v, by a clock that may be set", name, image.used)
			}
			_ = s.opened.erase(image.token)
			delete(s.opened.idle, key)
		}
	}
}

func TestDirStoreBoundsWaitingImages(t *testing.T) {
	now := time.Now()
	s := newDirStore(t, &DirStore{NoSync: true, now: func() time.Time { now = now.Add(time.Millisecond); return now }})
	if _, _, err := s.Receipt(t.Context(), NewID()); err != nil {
		t.Fatal(err)
	}
	for i := range maxIdle + 10 {
		s.opened.park(idleImage{keys: journalKeys{key: journalKey{byte(i), byte(i >> 8), 1}}, token: "token", used: s.opened.now(), worth: 1})
	}
	_, first := s.opened.idle[journalKey{9, 0, 1}]
	_, next := s.opened.idle[journalKey{10, 0, 1}]
	if len(s.opened.idle) != maxIdle || first || !next {
		t.Errorf("%d images wait; the oldest: %t %t", len(s.opened.idle), first, next)
	}
}
