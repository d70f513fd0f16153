package transport

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/pixferry/pixferry/chunk"
)

// A disk that is really full.
func TestDirStoreRealFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("mounting a small tmpfs needs root:", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	s := newDirStore(t, &DirStore{Dir: dir})
	content := picture(1, 2*chunk.BlockSize)
	mustDeliver(t, s, MakeID(1, 1), "a.jpg", content)
	for i := range uint64(3) {
		_, _, err := deliver(s, MakeID(1, 2), "big.jpg", picture(2+i, 8*chunk.BlockSize))
		wantReason(t, err, ReasonDisk, true)
		wantNothingLeft(t, dir)
	}
	keepPartial(t, s, "waits.jpg", picture(5, chunk.BlockSize+1))
	mustDeliver(t, s, MakeID(1, 3), "b.jpg", content[:chunk.BlockSize+chunk.BlockSize/2]) // in the place of waits.jpg
	wantOnly(t, dir, map[string][]byte{"a.jpg": content, "b.jpg": content[:chunk.BlockSize+chunk.BlockSize/2]})
	s = reopen(t, s)
	for i, want := range []bool{true, false, true} {
		wantReceipt(t, s, MakeID(1, uint64(1+i)), want)
	}
}

// Images that wait give way to the receipt log as well, whichever page is the last.
func TestDirStoreFullDiskLogs(t *testing.T) {
	for filler := range 40 {
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
			t.Skip("mounting a small tmpfs needs root:", err)
		}
		t.Cleanup(func() { syscall.Unmount(dir, 0) })
		s := newDirStore(t, &DirStore{Dir: dir})
		keepPartial(t, s, "waits.jpg", picture(5, 2*chunk.BlockSize+1))
		os.WriteFile(filepath.Join(dir, "filler"), make([]byte, filler*4096), 0o644)
		for i := uint64(0); len(s.opened.idle) > 0; i++ {
			mustDeliver(t, s, MakeID(1, i), fmt.Sprint(i), []byte{1})
		}
		s.Close()
	}
}
