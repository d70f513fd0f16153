package arq

import (
	"cmp"
	"slices"
)

// piece is a supplied slice of an image.
type piece struct {
	offset  int64
	data    []byte
	unacked int // bytes not acknowledged
}

func (p *piece) end() int64 { return p.offset + int64(len(p.data)) }

// pieces are the supplied slices of one transfer, in ascending order, that are not
// wholly acknowledged, or on a reliable link not wholly sent.
type pieces struct {
	list []piece
	size int64 // bytes held, acknowledged parts included
	last int   // where find last found something
}

func (q *pieces) add(offset int64, data []byte, unacked int) {
	q.list = add(q.list, piece{offset, data, unacked})
	q.size += int64(len(data))
}

// find returns the index of the first piece that ends after offset.
func (q *pieces) find(offset int64) int {
	if i := q.last; i < len(q.list) && q.list[i].offset <= offset && offset < q.list[i].end() {
		return i
	}
	i, _ := slices.BinarySearchFunc(q.list, offset+1, func(p piece, end int64) int { return cmp.Compare(p.end(), end) })
	q.last = i
	return i
}

// copyTo appends the bytes from offset on to buf, at most n of them and none beyond a hole.
func (q *pieces) copyTo(buf []byte, offset int64, n int) []byte {
	for i := q.find(offset); n > 0 && i < len(q.list); i++ {
		p := &q.list[i]
		if p.offset > offset {
			break
		}
		part := p.data[offset-p.offset:]
		part = part[:min(n, len(part))]
		buf = append(buf, part...)
		offset += int64(len(part))
		n -= len(part)
	}
	return buf
}

// at returns the bytes from offset on that lie behind each other, at most n.
func (q *pieces) at(offset int64, n int) []byte {
	i := q.find(offset)
	if i == len(q.list) || q.list[i].offset > offset {
		return nil
	}
	part := q.list[i].data[offset-q.list[i].offset:]
	return part[:min(n, len(part))]
}

// acked notes that [start, end) was acknowledged for the first time and appends the
// slices that are done with to done.
func (q *pieces) acked(start, end int64, done [][]byte) [][]byte {
	i := q.find(start)
	for i < len(q.list) && q.list[i].offset < end {
		p := &q.list[i]
		p.unacked -= int(min(end, p.end()) - max(start, p.offset))
		if p.unacked > 0 {
			i++
			continue
		}
		done = append(done, p.data)
		q.size -= int64(len(p.data))
		q.list = slices.Delete(q.list, i, i+1)
	}
	return done
}

// sent takes out the slices before next and appends them to done, for a link on which
// nothing is sent again.
func (q *pieces) sent(next int64, done [][]byte) [][]byte {
	n := 0
	for n < len(q.list) && q.list[n].end() <= next {
		done = append(done, q.list[n].data)
		q.size -= int64(len(q.list[n].data))
		n++
	}
	q.list = slices.Delete(q.list, 0, n)
	return done
}
