package chunk

import (
	"fmt"
	"io"
	"sync"
)

// pageSize is the unit of a Buffer's memory.
const pageSize = 32 << 10

// A Buffer is an image in memory, a destination for an [Assembler]. It takes memory in pages of
// 32 KiB when bytes are written to them, never because of a size or offset that a peer only
// states, and grows without copying. Like a file it reads as zeros where nothing was written
// below its end. It is safe for concurrent use.
type Buffer struct {
	limit int64
	mu    sync.RWMutex
	pages map[int64]*[pageSize]byte
	size  int64
}

// NewBuffer returns an empty buffer for offsets below limit.
func NewBuffer(limit int64) *Buffer {
	return &Buffer{limit: limit, pages: make(map[int64]*[pageSize]byte)}
}

// WriteAt implements io.WriterAt. A write beyond the limit is ErrTooLarge and writes nothing. It
// keeps no reference to p.
func (b *Buffer) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || int64(len(p)) > b.limit-off {
		return 0, fmt.Errorf("%w (%d bytes at %d, at most %d)", ErrTooLarge, len(p), off, b.limit)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for n := 0; n < len(p); {
		at := off + int64(n)
		page := b.pages[at/pageSize]
		if page == nil {
			page = new([pageSize]byte)
			b.pages[at/pageSize] = page
		}
		n += copy(page[at%pageSize:], p[n:])
	}
	if len(p) > 0 {
		b.size = max(b.size, off+int64(len(p)))
	}
	return len(p), nil
}

// ReadAt implements io.ReaderAt.
func (b *Buffer) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("chunk: read at negative offset %d", off)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if rest := max(b.size-off, 0); int64(len(p)) > rest {
		p, err = p[:rest], io.EOF
	}
	for n < len(p) {
		at := off + int64(n)
		part := p[n:min(int64(len(p)), int64(n)+pageSize-at%pageSize)]
		if page := b.pages[at/pageSize]; page != nil {
			copy(part, page[at%pageSize:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return n, err
}

// Size returns the end of the highest byte written.
func (b *Buffer) Size() int64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.size
}
