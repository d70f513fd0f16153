package session

import (
	"sync"
	"sync/atomic"

	"github.com/pixferry/pixferry/chunk"
)

// Sizes of buffers, in bytes. A message of data from a large buffer's worth of
// image has room for headers in a large buffer too.
const (
	smallBuffer  = 4 << 10
	mediumBuffer = 64 << 10
	largePiece   = 256 << 10
	largeBuffer  = largePiece + 256
	hugeBuffer   = 2 << 20
)

var smallPool, mediumPool, largePool, hugePool = pool(smallBuffer), pool(mediumBuffer), pool(largeBuffer), pool(hugeBuffer)

func pool(size int) *sync.Pool {
	return &sync.Pool{New: func() any { return &Buffer{mem: make([]byte, size)} }}
}

// A Buffer is memory shared by those who hold a reference.
type Buffer struct {
	mem      []byte
	refs     atomic.Int32
	borrowed bool // mem is somebody else's

	filled int
	crc    uint32 // of the first filled bytes
}

// NewBuffer returns a buffer of at least size bytes with one reference.
func NewBuffer(size int) *Buffer {
	var b *Buffer
	if p := poolOf(size); p != nil {
		b = p.Get().(*Buffer)
	} else {
		b = &Buffer{mem: make([]byte, size)}
	}
	b.refs.Store(1)
	return b
}

// borrow returns a buffer with one reference whose memory, for reading only, stays its owner's.
func borrow(mem []byte) *Buffer {
	b := &Buffer{mem: mem, borrowed: true}
	b.refs.Store(1)
	return b
}

func poolOf(size int) *sync.Pool {
	switch {
	case size <= smallBuffer:
		return smallPool
	case size <= mediumBuffer:
		return mediumPool
	case size <= largeBuffer:
		return largePool
	case size <= hugeBuffer:
		return hugePool
	}
	return nil
}

// fill notes that the first n bytes are what is to be sent.
func (b *Buffer) fill(n int) { b.filled, b.crc = n, chunk.CRC32C(b.mem[:n]) }

// checksum returns the CRC-32C of a part of the buffer, at no cost for all that was filled.
func (b *Buffer) checksum(part []byte) uint32 {
	if len(part) == b.filled {
		return b.crc
	}
	return chunk.CRC32C(part)
}

// Bytes returns the whole memory.
func (b *Buffer) Bytes() []byte { return b.mem }

// retain adds a reference.
func (b *Buffer) retain() { b.refs.Add(1) }

// Release gives a reference up; the last one frees the buffer for others. Of nil there is none.
func (b *Buffer) Release() {
	if b == nil || b.refs.Add(-1) > 0 || b.borrowed {
		return
	}
	if p := poolOf(len(b.mem)); p != nil {
		p.Put(b)
	}
}
