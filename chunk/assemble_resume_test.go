package chunk

import (
	"errors"
	"math"
	"slices"
	"testing"
)

func TestAssembleResume(t *testing.T) {
	image := pattern(5*BlockSize + 1234)
	size := int64(len(image))
	d := newDisk()
	first := newAssembler(t, d, SHA256, size)
	for _, i := range []int64{1, 2, 4, 5} {
		write(t, first, image, BlockRange(i, size))
	}
	write(t, first, image, Range{0, 5000}) // a block not complete is not kept
	held := first.AppendCompleted(nil)
	if len(held) != 4 || len(first.AppendCompleted(nil)) != 0 {
		t.Fatalf("completed: %v", held)
	}

	a := newAssembler(t, d, SHA256, size)
	if err := a.Hold(held); err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Collect(a.Missing()), []Range{{0, BlockSize}, {3 * BlockSize, 4 * BlockSize}}; !slices.Equal(got, want) {
		t.Fatalf("missing %v, want %v", got, want)
	}
	if n := a.Drop(2); n != BlockSize {
		t.Errorf("Drop: %d bytes", n)
	}
	if n := a.Drop(2) + a.Drop(3) + a.Drop(-1) + a.Drop(99) + a.Drop(math.MaxInt64); n != 0 {
		t.Errorf("dropping what is not there: %d bytes", n)
	}
	d.read = 0
	for _, c := range cut(len(image), 10_000) {
		write(t, a, image, c)
		if c.Start == 500_000 {
			a.Drop(4) // ahead of the front
		}
		if c.Start == 2*BlockSize/10_000*10_000 {
			a.Drop(0)
		}
	}
	for g := range a.Missing() {
		write(t, a, image, g)
	}
	if got := a.AppendCompleted(nil); len(got) != 4 { // 0, 2, 3, 4, of which 0 once
		t.Errorf("completed anew: %v", got)
	}
	checkWhole(t, a, d, SHA256, image)
}

func TestAssembleResumesNothingElse(t *testing.T) {
	sum, _ := NewDigest(SHA256.ID, make([]byte, 32))
	foreign, _ := NewDigest(1, make([]byte, 16))
	for name, c := range map[string]struct {
		size int64
		held []Block
	}{
		"foreign algorithm": {size: 10, held: []Block{{0, foreign}}},
		"no digest":         {size: 10, held: []Block{{Index: 0}}},
		"outside":           {size: 10, held: []Block{{0, sum}, {1, sum}}},
		"negative":          {size: 10, held: []Block{{-1, sum}}},
		"twice":             {size: 10, held: []Block{{0, sum}, {0, sum}}},
		"beyond the limit":  {size: -1, held: []Block{{1 << 20, sum}}},
	} {
		a := newAssembler(t, newDisk(), SHA256, c.size)
		if err := a.Hold(c.held); err == nil || a.Covered() != 0 || len(slices.Collect(a.Blocks())) != 0 {
			t.Errorf("%s: %v, %d bytes held", name, err, a.Covered())
		}
	}
	a := newAssembler(t, newDisk(), SHA256, 10)
	a.WriteAt([]byte{1}, 0)
	if a.Hold(nil) == nil {
		t.Error("Hold after a byte")
	}
}

// With an unknown size whole blocks are held, and a smaller size later on is an error.
func TestAssembleResumeOfUnknownSize(t *testing.T) {
	image := pattern(2*BlockSize + 5)
	d := newDisk()
	d.Buffer.WriteAt(image[:BlockSize], 0)
	a := newAssembler(t, d, SHA256, -1)
	if err := a.Hold([]Block{{0, NewBlockHasher(SHA256).Sum(image[:BlockSize])}}); err != nil {
		t.Fatal(err)
	}
	if err := a.SetSize(BlockSize - 1); !errors.Is(err, ErrBeyondSize) {
		t.Errorf("a size within a held block: %v", err)
	}
	write(t, a, image, Range{BlockSize, 2*BlockSize + 5})
	if err := a.SetSize(int64(len(image))); err != nil {
		t.Fatal(err)
	}
	checkWhole(t, a, d, SHA256, image)
}
