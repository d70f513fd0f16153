package chunk

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// The image of FuzzAssembler ends within its third block. Its model knows, for each
// of the segments between points at and beside the eighths of blocks, which write
// brought it: 0 for none.
const fuzzSize = 2*BlockSize + BlockSize/8 + 2

func fuzzPoints() (points []int64) {
	for p := int64(0); p <= fuzzSize; p += BlockSize / 8 {
		points = append(points, p-1, p, p+1)
	}
	return append(points[1:], fuzzSize)
}

type assemblerModel struct {
	points []int64
	by     []byte // the write that brought the segment from points[i] to points[i+1]
	sized  bool
	blocks map[int64]Digest // reported and not dropped
}

// ranges returns the segments for which in holds, joined.
func (m *assemblerModel) ranges(in func(i int) bool) (rs []Range) {
	for i := range m.by {
		if !in(i) {
			continue
		}
		if n := len(rs); n > 0 && rs[n-1].End == m.points[i] {
			rs[n-1].End = m.points[i+1]
		} else {
			rs = append(rs, Range{m.points[i], m.points[i+1]})
		}
	}
	return rs
}

func (m *assemblerModel) drop(index int64) (dropped int64) {
	for i := range m.by {
		// Points fall on the ends of blocks, so that a segment is in one block.
		if m.points[i]/BlockSize == index && m.by[i] != 0 {
			dropped += m.points[i+1] - m.points[i]
			m.by[i] = 0
		}
	}
	delete(m.blocks, index)
	return dropped
}

// fail takes over what a holds after an error: of what was held before only whole
// blocks may have gone, and only if reading failed; new is only what was written.
func (m *assemblerModel) fail(t *testing.T, a *Assembler, written Range, version byte, reading bool) {
	t.Helper()
	gone := map[int64]bool{}
	for i, by := range m.by {
		block := m.points[i] / BlockSize
		switch held := a.held.Contains(m.points[i], m.points[i+1]); {
		case held && by == 0:
			if m.points[i] < written.Start || m.points[i+1] > written.End {
				t.Fatalf("segment at %d is held, nobody wrote it", m.points[i])
			}
			m.by[i] = version
		case !held && by != 0:
			if !reading {
				t.Fatalf("segment at %d was lost by a failed write", m.points[i])
			}
			gone[block] = true
		}
	}
	if len(gone) > 2 {
		t.Fatalf("blocks %v were lost by one failed read", gone)
	}
	for block := range gone {
		m.drop(block)
	}
}

func (m *assemblerModel) check(t *testing.T, a *Assembler, d *disk) {
	t.Helper()
	for _, b := range a.AppendCompleted(nil) {
		if _, again := m.blocks[b.Index]; again {
			t.Fatalf("block %d was reported twice", b.Index)
		}
		m.blocks[b.Index] = b.Digest
	}
	held := m.ranges(func(i int) bool { return m.by[i] != 0 })
	if got := slices.Collect(a.Held()); !slices.Equal(got, held) {
		t.Fatalf("held %v, want %v", got, held)
	}
	var front int64
	if len(held) > 0 && held[0].Start == 0 {
		front = held[0].End
	}
	missing := m.ranges(func(i int) bool { return m.by[i] == 0 && (m.sized || m.points[i] < a.held.Max()) })
	if got := slices.Collect(a.Missing()); !slices.Equal(got, missing) || a.Contiguous() != front {
		t.Fatalf("missing %v, %d in front, want %v, %d", got, a.Contiguous(), missing, front)
	}
	content := d.bytes(fuzzSize)
	for i, by := range m.by {
		if by != 0 && content[m.points[i]] != by || by != 0 && content[m.points[i+1]-1] != by {
			t.Fatalf("segment at %d: not the bytes of write %d", m.points[i], by)
		}
	}
	var blocks []Block
	for index := range BlockCount(fuzzSize) {
		r := BlockRange(index, fuzzSize)
		if !slices.ContainsFunc(held, func(h Range) bool { return h.Start <= r.Start && r.End <= h.End }) || r.Len() < BlockSize && !m.sized {
			continue
		}
		blocks = append(blocks, Block{index, NewBlockHasher(crcAlgorithm).Sum(content[r.Start:r.End])})
	}
	if got := slices.Collect(a.Blocks()); !slices.Equal(got, blocks) {
		t.Fatalf("blocks %v, want %v", got, blocks)
	}
	for _, b := range blocks {
		if m.blocks[b.Index] != b.Digest {
			t.Fatalf("block %v was reported as %v", b, m.blocks[b.Index])
		}
	}
	if len(m.blocks) != len(blocks) {
		t.Fatalf("reported %v, complete %v", m.blocks, blocks)
	}
	root, whole := a.Root()
	if want := m.sized && len(missing) == 0; whole != want || whole && root != naiveRoot(crcAlgorithm, content) {
		t.Fatalf("whole %v, want %v, or a wrong root", whole, want)
	}
}

func FuzzAssembler(f *testing.F) {
	f.Add([]byte{7, 0, 0, 0, 0, 30, 0, 20, 60})                             // in order
	f.Add([]byte{0, 30, 60, 0, 20, 40, 0, 0, 90, 7, 0, 0})                  // backwards, overlapping
	f.Add([]byte{4, 0, 90, 0, 5, 10, 68, 0, 90, 0, 0, 90, 7, 0, 0})         // failing writes
	f.Add([]byte{0, 25, 48, 0, 50, 60, 5, 0, 90, 69, 23, 26, 7, 0, 0})      // failing reads
	f.Add([]byte{0, 0, 60, 7, 0, 0, 6, 1, 0, 6, 0, 0, 0, 3, 20, 8, 0, 0})   // drops, then a resume
	f.Add([]byte{0, 23, 60, 8, 0, 0, 0, 0, 10, 7, 0, 0, 15, 0, 0, 8, 0, 0}) // a resume of unknown size
	addRandomSeeds(f, 20, 120)
	f.Fuzz(func(t *testing.T, ops []byte) {
		d := newDisk()
		a := newAssembler(t, d, crcAlgorithm, -1)
		points := fuzzPoints()
		m := &assemblerModel{points: points, by: make([]byte, len(points)-1), blocks: map[int64]Digest{}}
		ops = ops[:min(len(ops), 3*250)]
		for version := byte(1); len(ops) >= 3; version, ops = version+1, ops[3:] {
			op, fault := ops[0]%16, int(ops[0]>>6)+1
			from, to := int(ops[1])%len(points), int(ops[2])%len(points)
			from, to = min(from, to), max(from, to)
			r := Range{points[from], points[to]}
			switch op {
			case 6:
				index := int64(ops[1]%5) - 1
				if got, want := a.Drop(index), m.drop(index); got != want {
					t.Fatalf("Drop(%d) = %d, want %d", index, got, want)
				}
			case 7, 15:
				if op == 15 {
					d.failRead = fault
				}
				if a.held.Max() == 0 && op == 15 {
					break
				}
				m.sized = true
				if err := a.SetSize(fuzzSize); err != nil {
					m.fail(t, a, Range{}, 0, true)
				}
			case 8:
				m.resume(t, &a, d)
			default:
				switch op {
				case 4:
					d.failWrite, d.partial = fault, int(ops[1])
				case 5:
					d.failRead = fault
				}
				n, err := a.WriteAt(bytes.Repeat([]byte{version}, int(r.Len())), r.Start)
				switch {
				case err == nil && int64(n) == r.Len():
					for i := from; i < to; i++ {
						if m.by[i] == 0 {
							m.by[i] = version
						}
					}
				case errors.Is(err, errDisk) && n == 0 && op >= 4:
					m.fail(t, a, r, version, op == 5)
				default:
					t.Fatalf("WriteAt %v: %d, %v", r, n, err)
				}
			}
			d.failWrite, d.failRead = 0, 0
			m.check(t, a, d)
		}
	})
}

// resume starts a new assembler from the complete blocks and the size.
func (m *assemblerModel) resume(t *testing.T, a **Assembler, d *disk) {
	t.Helper()
	held := slices.Collect((*a).Blocks())
	*a = newAssembler(t, d, crcAlgorithm, (*a).Size())
	if err := (*a).Hold(held); err != nil {
		t.Fatal(err)
	}
	for i := range m.by {
		if _, kept := m.blocks[m.points[i]/BlockSize]; !kept {
			m.by[i] = 0
		}
	}
}
