package chunk

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// setModel is the naive set of the positions 0 to 255.
type setModel [256]bool

func (m *setModel) ranges() (rs []Range) {
	for i := 0; i < len(m); i++ {
		if !m[i] {
			continue
		}
		start := i
		for i < len(m) && m[i] {
			i++
		}
		rs = append(rs, Range{int64(start), int64(i)})
	}
	return rs
}

func (m *setModel) fill(start, end int64, in bool) (changed int64) {
	for i := start; i < end; i++ {
		if m[i] != in {
			m[i] = in
			changed++
		}
	}
	return changed
}

func FuzzRanges(f *testing.F) {
	f.Add([]byte{0, 10, 20, 0, 20, 30, 0, 5, 10, 1, 12, 14})
	f.Add([]byte{0, 10, 20, 0, 30, 40, 0, 50, 60, 0, 15, 55, 1, 0, 255})
	f.Add([]byte{0, 10, 20, 0, 30, 40, 0, 0, 5, 2, 2, 0, 1, 35, 36, 1, 30, 35})
	f.Add([]byte{0, 9, 3, 1, 9, 3, 0, 0, 0, 0, 100, 101, 0, 102, 103, 0, 101, 102})
	addRandomSeeds(f, 50, 1500)
	f.Fuzz(func(t *testing.T, ops []byte) {
		var r Ranges
		var m setModel
		for ; len(ops) >= 3; ops = ops[3:] {
			start, end := int64(ops[1]), int64(ops[2])
			switch ops[0] % 4 {
			case 0, 3:
				if got, want := r.Add(start, end), m.fill(start, end, true); got != want {
					t.Fatalf("Add(%d, %d) = %d, want %d", start, end, got, want)
				}
			case 1:
				if got, want := r.Remove(start, end), m.fill(start, end, false); got != want {
					t.Fatalf("Remove(%d, %d) = %d, want %d", start, end, got, want)
				}
			case 2:
				n := int(start % 8)
				r.KeepHighest(n)
				for rs := m.ranges(); len(rs) > n; rs = rs[1:] {
					m.fill(rs[0].Start, rs[0].End, false)
				}
			}
			checkRanges(t, &r, &m, start, end)
		}
	})
}

// addRandomSeeds adds sequences of random bytes, the same in every run.
func addRandomSeeds(f *testing.F, count, length int) {
	for seed := range count {
		var key [32]byte
		key[0] = byte(seed)
		ops := make([]byte, length)
		rand.NewChaCha8(key).Read(ops)
		f.Add(ops)
	}
}

func checkRanges(t *testing.T, r *Ranges, m *setModel, start, end int64) {
	t.Helper()
	want := m.ranges()
	if got := slices.Collect(r.All()); !slices.Equal(got, want) {
		t.Fatalf("ranges %v, want %v", got, want)
	}
	var covered int64
	for i, w := range want {
		covered += w.Len()
		if r.At(i) != w {
			t.Fatalf("At(%d) = %v, want %v", i, r.At(i), w)
		}
	}
	if r.Covered() != covered || r.Count() != len(want) {
		t.Fatalf("Covered %d, Count %d, want %d, %d", r.Covered(), r.Count(), covered, len(want))
	}
	if len(want) > 0 && (r.Min() != want[0].Start || r.Max() != want[len(want)-1].End) {
		t.Fatalf("Min %d, Max %d of %v", r.Min(), r.Max(), want)
	}
	var holes setModel
	for i := start; i < end; i++ {
		holes[i] = !m[i]
	}
	gaps := holes.ranges()
	if got := slices.Collect(r.Gaps(start, end)); !slices.Equal(got, gaps) {
		t.Fatalf("Gaps(%d, %d) = %v, want %v", start, end, got, gaps)
	}
	if got := r.Contains(start, end); got != (len(gaps) == 0) {
		t.Fatalf("Contains(%d, %d) = %v in %v", start, end, got, want)
	}
	run := start
	for run < int64(len(m)) && m[run] {
		run++
	}
	if got := r.RunEnd(start); got != run {
		t.Fatalf("RunEnd(%d) = %d, want %d in %v", start, got, run, want)
	}
}

func TestRangesGapsMayBeAddedInTheLoop(t *testing.T) {
	var r Ranges
	r.Add(10, 20)
	r.Add(30, 40)
	var got []Range
	for g := range r.Gaps(0, 50) {
		got = append(got, g)
		r.Add(g.Start, g.End)
	}
	if want := []Range{{0, 10}, {20, 30}, {40, 50}}; !slices.Equal(got, want) {
		t.Errorf("gaps %v, want %v", got, want)
	}
	if !r.Contains(0, 50) || r.Count() != 1 {
		t.Errorf("holds %v, want [0, 50)", slices.Collect(r.All()))
	}
}

func TestRangesClear(t *testing.T) {
	var r Ranges
	r.Add(1, 5)
	r.Clear()
	if r.Count() != 0 || r.Covered() != 0 || r.Max() != 0 {
		t.Fatal("Clear left something")
	}
}

func TestRangesAllocateNothingInOrder(t *testing.T) {
	var r Ranges
	r.Add(0, 1)
	r.Add(5, 6)
	next := int64(6)
	n := testing.AllocsPerRun(1000, func() {
		r.Add(next, next+1)
		for range r.Gaps(0, next) {
		}
		for range r.All() {
		}
		_ = r.Contains(next, next+1)
		next++
	})
	if n != 0 {
		t.Errorf("%v allocations per packet in order", n)
	}
	// A gap that opens and closes again, in a bounded set whose lower end is removed.
	n = testing.AllocsPerRun(1000, func() {
		r.Add(next+1, next+2)
		r.Add(next+3, next+4)
		r.KeepHighest(4)
		r.Add(next, next+1)
		r.Remove(0, next-10)
		next += 4
	})
	if n != 0 {
		t.Errorf("%v allocations per gap", n)
	}
}

func BenchmarkRangesInOrder(b *testing.B) {
	var r Ranges
	b.ReportAllocs()
	for i := range b.N {
		r.Add(int64(i), int64(i)+1)
	}
}

// BenchmarkRangesHoles fills a hole and opens one, with 256 of them open.
func BenchmarkRangesHoles(b *testing.B) {
	var r Ranges
	b.ReportAllocs()
	for i := range b.N {
		pos := int64(i) * 2
		r.Add(pos+1, pos+2)
		if i > 256 {
			r.Add(pos-512, pos-511)
		}
	}
}

// A set uses the memory that it was given, and other memory when that is full.
func TestRangesInMemory(t *testing.T) {
	var memory [2]Range
	r := NewRanges(memory[:])
	for i := range int64(2) {
		r.Add(10*i, 10*i+5)
	}
	if want := [2]Range{{0, 5}, {10, 15}}; memory != want {
		t.Errorf("memory has %v, want %v", memory, want)
	}
	r.Add(20, 25)
	if r.Count() != 3 || r.Covered() != 15 || r.At(2) != (Range{20, 25}) {
		t.Errorf("%d ranges of %d positions", r.Count(), r.Covered())
	}
}
