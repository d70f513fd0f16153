package chunk

import (
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"math"
)

// BlockSize is the size of a block in bytes. Blocks are the unit of digests and of resuming. The
// last block of an image may be shorter.
const BlockSize = 1 << 20

const maxBlocks = math.MaxInt64/BlockSize + 1

// A Block is the digest of one block of an image. Index counts from 0.
type Block struct {
	Index  int64
	Digest Digest
}

// BlockCount returns the number of blocks of an image of size bytes, 0 if it is empty.
func BlockCount(size int64) int64 {
	n := max(size, 0) / BlockSize
	if size%BlockSize > 0 {
		n++
	}
	return n
}

// BlockRange returns the range of bytes of a block in an image of size bytes. It is empty if
// there is no such block. With a negative (unknown) size every block is whole.
func BlockRange(index, size int64) Range {
	if size < 0 {
		size = math.MaxInt64
	}
	if index < 0 || index >= maxBlocks {
		return Range{}
	}
	start := min(index*BlockSize, size)
	return Range{start, start + min(BlockSize, size-start)}
}

// A BlockHasher computes the digests of blocks, one after the other, and reuses its state.
// Several may work on one image in parallel; a [Tree] collects their results.
type BlockHasher struct {
	alg Algorithm
	h   hash.Hash // of the running block, made when first needed
	sum []byte
	buf []byte // for reading, taken when first needed
}

// NewBlockHasher returns a hasher with the given algorithm.
func NewBlockHasher(alg Algorithm) *BlockHasher { return &BlockHasher{alg: alg} }

// Sum returns the digest of p, a whole block. No other block may be running.
func (b *BlockHasher) Sum(p []byte) Digest {
	if b.alg.Sum == nil {
		b.Write(p)
		return b.Take()
	}
	b.sum = b.alg.Sum(b.sum[:0], p)
	return cutDigest(b.alg.ID, b.sum)
}

// Write adds p to the running block. It never fails.
func (b *BlockHasher) Write(p []byte) (int, error) {
	if b.h == nil {
		b.h = b.alg.New()
	}
	return b.h.Write(p)
}

// Take returns the digest of the running block, of which at least a byte must have been written,
// and starts the next one.
func (b *BlockHasher) Take() Digest {
	b.sum = b.h.Sum(b.sum[:0])
	b.h.Reset()
	return cutDigest(b.alg.ID, b.sum)
}

// Reset forgets the running block.
func (b *BlockHasher) Reset() {
	if b.h != nil {
		b.h.Reset()
	}
}

// Read returns the digest of a block of an image of size bytes in r. If r ends before the end of
// the block the error is ErrSourceShort.
func (b *BlockHasher) Read(r io.ReaderAt, index, size int64) (Digest, error) {
	if err := b.read(r, BlockRange(index, size)); err != nil {
		b.Reset()
		return Digest{}, err
	}
	return b.Take(), nil
}

// read adds the bytes of a range of r to the running block.
func (b *BlockHasher) read(r io.ReaderAt, part Range) error {
	if b.buf == nil {
		b.buf = make([]byte, 32<<10)
	}
	for part.Start < part.End {
		p := b.buf[:min(part.Len(), int64(len(b.buf)))]
		if err := ReadFullAt(r, p, part.Start); err != nil {
			return err
		}
		b.Write(p)
		part.Start += int64(len(p))
	}
	return nil
}

// A Tree collects the digests of an image's blocks, in any order, and computes the image's
// digest, the root:
//
//	H(digest of block 0 || digest of block 1 || ... || size, 8 bytes little-endian)
//
// H is the algorithm of the blocks' digests. Memory grows with the number of blocks set, not with
// the highest index.
type Tree struct {
	alg   Algorithm
	first []Digest         // of the blocks from the first on, without a hole
	ahead map[int64]Digest // of blocks behind the first hole
}

// NewTree returns a tree for digests made with alg.
func NewTree(alg Algorithm) *Tree { return &Tree{alg: alg} }

// Set sets or replaces the digest of a block. It fails for a digest of another algorithm.
func (t *Tree) Set(b Block) error {
	if b.Index < 0 || b.Index >= maxBlocks {
		return fmt.Errorf("chunk: block %d is out of range", b.Index)
	}
	if b.Digest.IsZero() || b.Digest.algorithm != t.alg.ID {
		return fmt.Errorf("chunk: block %d: digest %q is not of algorithm %d (%s)", b.Index, b.Digest, t.alg.ID, t.alg.Name)
	}
	t.set(b.Index, b.Digest)
	return nil
}

func (t *Tree) set(index int64, d Digest) {
	switch n := int64(len(t.first)); {
	case index < n:
		t.first[index] = d
		return
	case index > n:
		if t.ahead == nil {
			t.ahead = make(map[int64]Digest)
		}
		t.ahead[index] = d
		return
	}
	for ok := true; ok; d, ok = t.ahead[index] {
		delete(t.ahead, index)
		t.first = append(t.first, d)
		index++
	}
}

// drop takes a block out.
func (t *Tree) drop(index int64) {
	delete(t.ahead, index)
	if index < int64(len(t.first)) {
		behind := t.first[index+1:]
		t.first = t.first[:index]
		for i, d := range behind {
			t.set(index+1+int64(i), d)
		}
	}
}

// Block returns the digest of a block, or false if it is not set.
func (t *Tree) Block(index int64) (Digest, bool) {
	if index >= 0 && index < int64(len(t.first)) {
		return t.first[index], true
	}
	d, ok := t.ahead[index]
	return d, ok
}

// Root returns the digest of an image of size bytes, or false unless exactly the blocks of such
// an image are set.
func (t *Tree) Root(size int64) (Digest, bool) { return t.RootBy(NewBlockHasher(t.alg), size) }

// RootBy is like Root but computes with b, a hasher of the tree's algorithm, whose running block
// is lost: a new hasher may take a kilobyte.
func (t *Tree) RootBy(b *BlockHasher, size int64) (Digest, bool) {
	if size < 0 || BlockCount(size) != int64(len(t.first)) || len(t.ahead) > 0 {
		return Digest{}, false
	}
	b.Reset()
	buf := make([]byte, 0, 2*maxDigest)
	if len(t.first) == 1 { // as of most images
		return b.Sum(binary.LittleEndian.AppendUint64(t.first[0].Append(buf), uint64(size))), true
	}
	for _, d := range t.first {
		b.Write(d.Append(buf))
	}
	b.Write(binary.LittleEndian.AppendUint64(buf, uint64(size)))
	return b.Take(), true
}

// A Hasher is an io.Writer that computes the digests of an image whose bytes come in order.
type Hasher struct {
	block *BlockHasher
	tree  *Tree
	size  int64
}

// NewHasher returns a hasher with the given algorithm.
func NewHasher(alg Algorithm) *Hasher { return &Hasher{NewBlockHasher(alg), NewTree(alg), 0} }

// Write adds p to the image. It never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part := rest[:min(int64(len(rest)), BlockSize-h.size%BlockSize)]
		h.block.Write(part)
		h.size += int64(len(part))
		rest = rest[len(part):]
		if h.size%BlockSize == 0 {
			h.tree.set(h.size/BlockSize-1, h.block.Take())
		}
	}
	return len(p), nil
}

// Root returns the digest of the image that was written so far.
func (h *Hasher) Root() Digest {
	if h.size%BlockSize > 0 {
		h.tree.set(h.size/BlockSize, cutDigest(h.block.alg.ID, h.block.h.Sum(nil)))
	}
	root, _ := h.tree.Root(h.size)
	return root
}
