package arq

import (
	"cmp"
	"slices"
)

// add appends v. Memory that becomes too small may be a part of something that stays, so it forgets what was in it.
func add[T any](list []T, v T) []T {
	grown := append(list, v)
	if len(list) == cap(list) {
		clear(list)
	}
	return grown
}

// table finds transfers by handle. There are few at once, so a sorted slice and the
// memory of the last answer beat a map.
type table[T any] struct {
	list []entry[T]
	last int
}

type entry[T any] struct {
	handle uint16
	value  *T
}

func (t *table[T]) search(handle uint16) (int, bool) {
	return slices.BinarySearchFunc(t.list, handle, func(e entry[T], h uint16) int { return cmp.Compare(e.handle, h) })
}

// get returns the transfer, nil if there is none.
func (t *table[T]) get(handle uint16) *T {
	if t.last < len(t.list) && t.list[t.last].handle == handle {
		return t.list[t.last].value
	}
	i, ok := t.search(handle)
	if !ok {
		return nil
	}
	t.last = i
	return t.list[i].value
}

func (t *table[T]) add(handle uint16, v *T) {
	i, _ := t.search(handle)
	t.list = slices.Insert(add(t.list, entry[T]{})[:len(t.list)], i, entry[T]{handle, v})
}

func (t *table[T]) remove(handle uint16) {
	if i, ok := t.search(handle); ok {
		t.list = slices.Delete(t.list, i, i+1)
	}
}

func (t *table[T]) len() int { return len(t.list) }
