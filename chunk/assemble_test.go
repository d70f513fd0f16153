package chunk

import (
	"bytes"
	"errors"
	"hash"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var errDisk = errors.New("disk failed")

// disk is a Buffer that fails when told and counts what is read.
type disk struct {
	*Buffer
	failWrite, failRead int // fail the n-th call from now on; 0: none
	partial             int // bytes that a failing write leaves behind
	read                int64
}

func newDisk() *disk { return &disk{Buffer: NewBuffer(math.MaxInt64)} }

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if d.failWrite > 0 {
		if d.failWrite--; d.failWrite == 0 {
			n, _ := d.Buffer.WriteAt(bytes.Repeat([]byte{0xee}, min(d.partial, len(p))), off)
			return n, errDisk
		}
	}
	return d.Buffer.WriteAt(p, off)
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	if d.failRead > 0 {
		if d.failRead--; d.failRead == 0 {
			return 0, errDisk
		}
	}
	d.read += int64(len(p))
	return d.Buffer.ReadAt(p, off)
}

func (d *disk) bytes(size int64) []byte {
	p := make([]byte, size)
	d.Buffer.ReadAt(p, 0)
	return p
}

// counted returns an algorithm that counts the bytes it hashes into blocks.
func counted(n *int64) Algorithm {
	return Algorithm{ID: 201, Name: "counted", New: func() hash.Hash { return &countedHash{crcAlgorithm.New(), n} }}
}

type countedHash struct {
	hash.Hash
	n *int64
}

func (c *countedHash) Write(p []byte) (int, error) {
	*c.n += int64(len(p))
	return c.Hash.Write(p)
}

func newAssembler(t testing.TB, dst ReadWriterAt, alg Algorithm, size int64) *Assembler {
	t.Helper()
	a, err := NewAssembler(dst, alg, size, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// write writes a range of the image.
func write(t testing.TB, a *Assembler, image []byte, r Range) {
	t.Helper()
	n, err := a.WriteAt(image[r.Start:r.End], r.Start)
	if err != nil || int64(n) != r.Len() {
		t.Fatalf("WriteAt %v: %d, %v", r, n, err)
	}
}

// checkWhole checks a complete image, its digest, and the blocks reported on the way.
func checkWhole(t testing.TB, a *Assembler, d *disk, alg Algorithm, image []byte) {
	t.Helper()
	root, ok := a.Root()
	if !ok || !a.Complete() || a.Contiguous() != int64(len(image)) || a.Covered() != int64(len(image)) {
		t.Fatalf("not complete: %d of %d bytes, missing %v", a.Covered(), len(image), slices.Collect(a.Missing()))
	}
	if !bytes.Equal(d.bytes(int64(len(image))), image) {
		t.Fatal("content differs")
	}
	if want := naiveRoot(alg, image); root != want {
		t.Fatalf("root %v, want %v", root, want)
	}
	if n := int64(len(slices.Collect(a.Blocks()))); n != BlockCount(int64(len(image))) {
		t.Fatalf("%d blocks, want %d", n, BlockCount(int64(len(image))))
	}
}

func cut(size, step int) (chunks []Range) {
	for off := 0; off < size; off += step {
		chunks = append(chunks, Range{int64(off), int64(min(off+step, size))})
	}
	return chunks
}

func TestAssembleSizesAndOrders(t *testing.T) {
	orders := map[string]func([]Range){
		"in order": func([]Range) {},
		"reversed": func(c []Range) { slices.Reverse(c) },
		"shuffled": func(c []Range) {
			rand.New(rand.NewPCG(1, 2)).Shuffle(len(c), func(i, j int) { c[i], c[j] = c[j], c[i] })
		},
		"evens first": func(c []Range) {
			slices.SortStableFunc(c, func(a, b Range) int { return int(a.Start/1400%2 - b.Start/1400%2) })
		},
	}
	for _, size := range append(blockSizes, 1399, 1400, 1401) {
		image := pattern(size)
		for name, order := range orders {
			for _, step := range []int{1400, 64 << 10, BlockSize, BlockSize + 1, 3 * BlockSize} {
				for _, known := range []string{"before", "amid", "after"} {
					var hashed int64
					d, alg := newDisk(), counted(&hashed)
					stated := int64(-1)
					if known == "before" {
						stated = int64(size)
					}
					a := newAssembler(t, d, alg, stated)
					var completed []Block
					chunks := cut(size, step)
					order(chunks)
					for i, c := range chunks {
						if known == "amid" && i == len(chunks)/2 {
							if err := a.SetSize(int64(size)); err != nil {
								t.Fatal(err)
							}
						}
						write(t, a, image, c)
						completed = a.AppendCompleted(completed)
					}
					if known == "after" {
						if _, ok := a.Root(); ok {
							t.Fatal("a root before the size is known")
						}
					}
					if err := a.SetSize(int64(size)); err != nil {
						t.Fatal(err)
					}
					completed = a.AppendCompleted(completed)
					if hashed != int64(size) {
						t.Errorf("%d bytes %s by %d, size %s: %d bytes hashed", size, name, step, known, hashed)
					}
					if (name == "in order" || step == BlockSize && known == "before") && d.read != 0 {
						t.Errorf("%d bytes %s by %d: %d read back", size, name, step, d.read)
					}
					checkWhole(t, a, d, alg, image)
					slices.SortFunc(completed, func(a, b Block) int { return int(a.Index - b.Index) })
					if !slices.Equal(completed, slices.Collect(a.Blocks())) {
						t.Errorf("%d bytes %s by %d: completed %v", size, name, step, completed)
					}
				}
			}
		}
	}
}

// The first bytes win, on disk and in the digest, hashed or not.
func TestAssembleFirstWins(t *testing.T) {
	image := pattern(BlockSize + 1000)
	d := newDisk()
	a := newAssembler(t, d, SHA256, int64(len(image)))
	wrong := make([]byte, len(image))
	for _, r := range []Range{{500, 1000}, {0, 200}, {BlockSize - 10, BlockSize + 10}} {
		write(t, a, image, r)
		write(t, a, wrong, r)
	}
	for r := range a.Held() {
		if !bytes.Equal(d.bytes(int64(len(image)))[r.Start:r.End], image[r.Start:r.End]) {
			t.Fatalf("%v was overwritten", r)
		}
	}
	write(t, a, image, Range{100, int64(len(image))})
	write(t, a, wrong, Range{0, int64(len(image))})
	checkWhole(t, a, d, SHA256, image)
}

func TestAssembleSizes(t *testing.T) {
	for _, size := range []int64{11, math.MaxInt64} {
		if _, err := NewAssembler(newDisk(), SHA256, size, 10); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a size of %d with a limit of 10: %v", size, err)
		}
	}
	a, err := NewAssembler(newDisk(), SHA256, -5, 10)
	if err != nil || a.Size() != -1 || a.Complete() {
		t.Fatalf("unknown size: %d, %v", a.Size(), err)
	}
	for _, c := range []struct {
		off  int64
		n    int
		want error
	}{{8, 3, ErrTooLarge}, {11, 0, ErrTooLarge}, {math.MaxInt64, 1, ErrTooLarge}, {math.MaxInt64 - 1, 2, ErrTooLarge}, {10, 0, nil}, {4, 4, nil}} {
		if n, err := a.WriteAt(make([]byte, c.n), c.off); !errors.Is(err, c.want) || err != nil && n != 0 {
			t.Errorf("%d bytes at %d of 10: %d, %v, want %v", c.n, c.off, n, err, c.want)
		}
	}
	if _, err := a.WriteAt(nil, -1); err == nil {
		t.Error("took a negative offset")
	}
	for _, c := range []struct {
		size int64
		want error
	}{{11, ErrTooLarge}, {7, ErrBeyondSize}, {8, nil}, {8, nil}, {9, ErrSizeConflict}, {0, ErrSizeConflict}} {
		if err := a.SetSize(c.size); !errors.Is(err, c.want) {
			t.Errorf("size %d: %v, want %v", c.size, err, c.want)
		}
	}
	fresh, err := NewAssembler(newDisk(), SHA256, -1, 10)
	if err != nil || fresh.SetSize(-1) == nil || fresh.SetSize(10) != nil {
		t.Error("took a negative size, or not that of the limit")
	}
	if _, err := a.WriteAt([]byte{1}, 8); !errors.Is(err, ErrBeyondSize) {
		t.Errorf("a byte beyond the size: %v", err)
	}
	if a.Size() != 8 || a.Covered() != 4 || a.Contiguous() != 0 {
		t.Errorf("size %d, %d bytes, %d in front", a.Size(), a.Covered(), a.Contiguous())
	}
	if got := slices.Collect(a.Missing()); !slices.Equal(got, []Range{{0, 4}}) {
		t.Errorf("missing %v", got)
	}
}

func TestAssembleFragments(t *testing.T) {
	a := newAssembler(t, newDisk(), crcAlgorithm, -1)
	one := []byte{1}
	for i := range int64(maxFragments) {
		if _, err := a.WriteAt(one, 10+3*i); err != nil {
			t.Fatal(i, err)
		}
	}
	for _, c := range []struct {
		off  int64
		want error
	}{{0, ErrFragmented}, {8, ErrFragmented}, {1 << 30, ErrFragmented}, {9, nil}, {11, nil}, {12, nil}, {1 << 30, nil}, {0, ErrFragmented}} {
		if _, err := a.WriteAt(one, c.off); !errors.Is(err, c.want) {
			t.Errorf("a byte at %d: %v, want %v", c.off, err, c.want)
		}
	}
}

func TestAssembleIntoFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	image := pattern(2*BlockSize + 1)
	a := newAssembler(t, f, SHA256, int64(len(image)))
	for _, c := range slices.Backward(cut(len(image), 1400)) {
		write(t, a, image, c)
	}
	root, ok := a.Root()
	got, err := os.ReadFile(f.Name())
	if !ok || root != naiveRoot(SHA256, image) || err != nil || !bytes.Equal(got, image) {
		t.Errorf("root %v %v, %v", root, ok, err)
	}
}

func TestAssembleAllocatesNothing(t *testing.T) {
	image := make([]byte, BlockSize)
	d := newDisk()
	d.WriteAt(image, 0)
	a := newAssembler(t, d, SHA256, BlockSize)
	next := int64(0)
	if n := testing.AllocsPerRun(500, func() {
		a.WriteAt(image[next:next+1400], next)
		a.WriteAt(image[next:next+1400], next) // repeated
		next += 1400
	}); n != 0 {
		t.Errorf("%v allocations a chunk in order", n)
	}
	a.WriteAt(image[next+9000:next+9100], next+9000) // makes room for a second range
	if n := testing.AllocsPerRun(3, func() {
		a.WriteAt(image[next+1400:next+2800], next+1400)
		a.WriteAt(image[next:next+1400], next)
		next += 2800
	}); n > 1 { // the buffer for reading back, once
		t.Errorf("%v allocations a chunk out of order", n)
	}
}

func BenchmarkAssemble(b *testing.B) {
	image := pattern(8 * BlockSize)
	for _, order := range []string{"in order", "pairs swapped", "reversed"} {
		chunks := cut(len(image), 1200)
		switch order {
		case "reversed":
			slices.Reverse(chunks)
		case "pairs swapped":
			for i := 1; i < len(chunks); i += 2 {
				chunks[i-1], chunks[i] = chunks[i], chunks[i-1]
			}
		}
		b.Run(order, func(b *testing.B) {
			d := newDisk()
			b.SetBytes(int64(len(image)))
			b.ReportAllocs()
			for range b.N {
				a := newAssembler(b, d, crcAlgorithm, int64(len(image)))
				for _, c := range chunks {
					a.WriteAt(image[c.Start:c.End], c.Start)
				}
				if !a.Complete() {
					b.Fatal("incomplete")
				}
			}
		})
	}
}
