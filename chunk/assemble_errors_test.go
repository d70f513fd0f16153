package chunk

import (
	"errors"
	"slices"
	"testing"
)

func TestAssembleWriteErrors(t *testing.T) {
	image := pattern(2*BlockSize + 77)
	chunks := cut(len(image), 100_000)
	for _, partial := range []int{0, 1, 50_000} {
		for nth := 1; nth <= len(chunks); nth++ {
			d := newDisk()
			d.failWrite, d.partial = nth, partial
			a := newAssembler(t, d, SHA256, int64(len(image)))
			failed := 0
			for _, c := range chunks {
				before := a.Covered()
				if n, err := a.WriteAt(image[c.Start:c.End], c.Start); err != nil {
					failed++
					if !errors.Is(err, errDisk) || n != 0 || a.Covered() != before {
						t.Fatalf("failed write: %d, %v, %d bytes more held", n, err, a.Covered()-before)
					}
				}
			}
			if _, ok := a.Root(); ok || failed != 1 {
				t.Fatalf("%d failures, whole: %v", failed, ok)
			}
			for g := range a.Missing() {
				write(t, a, image, g)
			}
			checkWhole(t, a, d, SHA256, image)
		}
	}
}

// A short write without an error, which io.WriterAt forbids, is not taken for success.
func TestAssembleShortWrite(t *testing.T) {
	a := newAssembler(t, shortWriter{newDisk()}, SHA256, 10)
	if _, err := a.WriteAt(make([]byte, 10), 0); err == nil || a.Covered() != 0 {
		t.Errorf("a short write: %v, %d bytes held", err, a.Covered())
	}
}

type shortWriter struct{ *disk }

func (s shortWriter) WriteAt(p []byte, off int64) (int, error) {
	return s.disk.WriteAt(p[:len(p)/2], off)
}

// When reading back fails the block is missing again, and the others are complete.
func TestAssembleReadErrors(t *testing.T) {
	image := pattern(4*BlockSize + 77)
	size := int64(len(image))
	for _, unknown := range []bool{false, true} {
		for nth := 1; nth <= 70; nth++ {
			d := newDisk()
			a := newAssembler(t, d, SHA256, size)
			if unknown {
				a = newAssembler(t, d, SHA256, -1)
			}
			// Scattered, so that everything but the first part is read back.
			for i := int64(4); i >= 0; i-- {
				r := BlockRange(i, size)
				write(t, a, image, Range{r.Start + 10, r.End})
			}
			d.failRead = nth
			failures := 0
			for i := range int64(5) {
				if _, err := a.WriteAt(image[i*BlockSize:i*BlockSize+10], i*BlockSize); err != nil {
					failures++
				}
			}
			if unknown {
				if err := a.SetSize(size); err != nil {
					failures++
				}
			}
			if failures != 1 || a.Complete() {
				t.Fatalf("read %d: %d failures, complete %v", nth, failures, a.Complete())
			}
			if got := slices.Collect(a.Missing()); len(got) != 1 || got[0] != BlockRange(got[0].Start/BlockSize, size) {
				t.Fatalf("read %d: missing %v", nth, got)
			}
			for g := range a.Missing() {
				write(t, a, image, g)
			}
			checkWhole(t, a, d, SHA256, image)
		}
	}
}

// One chunk completes three blocks, of which the first cannot be read back.
func TestAssembleReadErrorAmidBlocks(t *testing.T) {
	image := pattern(5 * BlockSize)
	d := newDisk()
	a := newAssembler(t, d, SHA256, int64(len(image)))
	const half = BlockSize / 2
	write(t, a, image, Range{BlockSize, BlockSize + half})
	write(t, a, image, Range{3*BlockSize + half, 4 * BlockSize})
	d.failRead = 1
	if _, err := a.WriteAt(image[BlockSize+half:3*BlockSize+half], BlockSize+half); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	if done := a.AppendCompleted(nil); len(done) != 2 || done[0].Index != 2 || done[1].Index != 3 {
		t.Errorf("completed %v", done)
	}
	for g := range a.Missing() {
		write(t, a, image, g)
	}
	checkWhole(t, a, d, SHA256, image)
}
