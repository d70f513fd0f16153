package chunk

import (
	"iter"
	"slices"
)

// A Range is the positions from Start up to, but not including, End.
type Range struct{ Start, End int64 }

// Len returns the number of positions in r.
func (r Range) Len() int64 { return r.End - r.Start }

// Ranges is a set of positions from 0 on, such as the bytes of an image or packet numbers. It
// keeps sorted ranges that neither overlap nor touch. The zero value is the empty set. A look-up
// is a binary search; adding at or after the end of the highest range takes constant time.
type Ranges struct {
	set     []Range
	covered int64
}

// NewRanges returns an empty set that uses the given memory while there is room in it.
func NewRanges(memory []Range) Ranges { return Ranges{set: memory[:0]} }

// Add adds the positions of [start, end) and returns how many were new.
func (r *Ranges) Add(start, end int64) (added int64) {
	if start >= end {
		return 0
	}
	n := len(r.set)
	if n == 0 || start > r.set[n-1].End {
		r.set = append(r.set, Range{start, end})
		r.covered += end - start
		return end - start
	}
	if last := &r.set[n-1]; start >= last.Start {
		added = max(end-last.End, 0)
		last.End += added
		r.covered += added
		return added
	}
	// Everything in set[i:j] overlaps or touches the new range.
	i := r.endingFrom(start)
	j := i
	merged := Range{start, end}
	added = end - start
	for ; j < n && r.set[j].Start <= end; j++ {
		old := r.set[j]
		added -= min(old.End, end) - max(old.Start, start)
		merged = Range{min(merged.Start, old.Start), max(merged.End, old.End)}
	}
	if i == j {
		r.set = slices.Insert(r.set, i, merged)
	} else {
		r.set[i] = merged
		r.set = slices.Delete(r.set, i+1, j)
	}
	r.covered += added
	return added
}

// Remove removes the positions of [start, end) and returns how many were in the set.
func (r *Ranges) Remove(start, end int64) (removed int64) {
	if start >= end {
		return 0
	}
	i := r.endingFrom(start + 1)
	j := i
	var rest [2]Range // what is left of the first and of the last range hit
	k := 0
	for ; j < len(r.set) && r.set[j].Start < end; j++ {
		old := r.set[j]
		removed += min(old.End, end) - max(old.Start, start)
		if old.Start < start {
			rest[k] = Range{old.Start, start}
			k++
		}
		if old.End > end {
			rest[k] = Range{end, old.End}
			k++
		}
	}
	r.set = slices.Replace(r.set, i, j, rest[:k]...)
	r.covered -= removed
	return removed
}

// KeepHighest removes the lowest ranges until at most n are left. It bounds a set that a peer can
// fragment, such as packet numbers to acknowledge.
func (r *Ranges) KeepHighest(n int) {
	drop := len(r.set) - max(n, 0)
	if drop <= 0 {
		return
	}
	for _, old := range r.set[:drop] {
		r.covered -= old.Len()
	}
	r.set = slices.Delete(r.set, 0, drop)
}

// Contains reports whether every position of [start, end) is in the set. An empty
// range always is.
func (r *Ranges) Contains(start, end int64) bool {
	return start >= end || r.RunEnd(start) >= end
}

// RunEnd returns the first position from pos on that is not in the set.
func (r *Ranges) RunEnd(pos int64) int64 {
	if i := r.endingFrom(pos); i < len(r.set) && r.set[i].Start <= pos {
		return r.set[i].End
	}
	return pos
}

// NextGap returns the first range within [start, end) that is not in the set, as long as
// possible, or false if there is none.
func (r *Ranges) NextGap(start, end int64) (Range, bool) {
	i := r.endingFrom(start)
	if i < len(r.set) && r.set[i].Start <= start {
		start = r.set[i].End
		i++
	}
	if i < len(r.set) {
		end = min(end, r.set[i].Start)
	}
	return Range{start, end}, start < end
}

// Gaps yields, in ascending order, the ranges within [start, end) that are not in the set. The
// loop may add the ranges that it is given.
func (r *Ranges) Gaps(start, end int64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		for g, ok := r.NextGap(start, end); ok && yield(g); g, ok = r.NextGap(g.End, end) {
		}
	}
}

// All yields the ranges in ascending order. The loop must not change the set.
func (r *Ranges) All() iter.Seq[Range] { return slices.Values(r.set) }

// Count returns the number of ranges.
func (r *Ranges) Count() int { return len(r.set) }

// At returns range i, counted from 0 for the lowest; i must be less than Count.
func (r *Ranges) At(i int) Range { return r.set[i] }

// Covered returns the number of positions in the set.
func (r *Ranges) Covered() int64 { return r.covered }

// Min returns the lowest position in the set, 0 if it is empty.
func (r *Ranges) Min() int64 {
	if len(r.set) == 0 {
		return 0
	}
	return r.set[0].Start
}

// Max returns the position after the highest in the set, 0 if it is empty.
func (r *Ranges) Max() int64 {
	if len(r.set) == 0 {
		return 0
	}
	return r.set[len(r.set)-1].End
}

// Clear empties the set and keeps its memory.
func (r *Ranges) Clear() { r.set, r.covered = r.set[:0], 0 }

// Equal reports whether both sets hold the same positions.
func (r *Ranges) Equal(o *Ranges) bool { return slices.Equal(r.set, o.set) }

// endingFrom returns the index of the first range with End >= pos. The highest
// range is tried first: most questions are about the newest positions.
func (r *Ranges) endingFrom(pos int64) int {
	lo, hi := 0, len(r.set)
	if hi > 0 && r.set[hi-1].Start <= pos {
		lo = hi - 1
	}
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); r.set[mid].End < pos {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
