package chunk

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
)

// Errors of an Assembler about what the sender has sent. Bytes that are held stay held.
var (
	ErrTooLarge     = errors.New("chunk: the image is larger than the receiver takes: raise its limit or send a smaller one")
	ErrBeyondSize   = errors.New("chunk: bytes beyond the end of the image")
	ErrSizeConflict = errors.New("chunk: two different sizes were stated for one image")
	ErrFragmented   = errors.New("chunk: too many separate pieces of one image: send it nearer to in order")
)

// maxFragments bounds the memory that a sender of scattered bytes can make an
// Assembler take for its ranges: 1 MiB.
const maxFragments = 1 << 16

// A ReadWriterAt is where an Assembler puts an image: a file or a [Buffer]. It is read to hash
// blocks that were completed out of order.
type ReadWriterAt interface {
	io.ReaderAt
	io.WriterAt
}

// An Assembler puts one image together from chunks of any size, in any order, which may overlap
// and repeat. It writes only bytes that are missing: the first to come win, and a byte that is
// held never changes. Each byte is hashed once: as it comes if it extends the first incomplete
// block, else by reading it back. Bytes that would make more than 65,536 separate ranges are
// ErrFragmented.
//
// It is not safe for concurrent use.
type Assembler struct {
	dst         ReadWriterAt
	size, limit int64
	held        Ranges
	tree        *Tree
	completed   []Block
	// The front is the first incomplete block, hashed from its start up to pos.
	front int64
	pos   int64
	hash  *BlockHasher
	back  *BlockHasher // for blocks completed ahead of the front, made when needed
}

// NewAssembler returns an assembler of an image into dst. A negative size means that it is not
// yet known. A size above limit is ErrTooLarge, and later so is a byte beyond it.
func NewAssembler(dst ReadWriterAt, alg Algorithm, size, limit int64) (*Assembler, error) {
	if size > limit {
		return nil, tooLarge(size, limit)
	}
	size = max(size, -1)
	return &Assembler{dst: dst, size: size, limit: limit, tree: NewTree(alg), hash: NewBlockHasher(alg)}, nil
}

// Hold starts from blocks that dst holds already, with the digests that the caller has kept; dst
// is not read. If the size is unknown all of them must be whole blocks. Call it before the first
// WriteAt. After an error nothing is held.
func (a *Assembler) Hold(blocks []Block) error {
	if a.held.Count() > 0 {
		return errors.New("chunk: Hold comes before the first byte")
	}
	for _, b := range blocks {
		r := BlockRange(b.Index, a.size)
		err := a.tree.Set(b)
		if err == nil && (r.Len() == 0 || r.End > a.limit || a.held.Add(r.Start, r.End) == 0) {
			err = fmt.Errorf("chunk: held block %d is doubled or outside the image", b.Index)
		}
		if err != nil {
			a.held.Clear()
			a.tree = NewTree(a.tree.alg)
			return err
		}
	}
	a.setFront(0)
	return nil
}

// Drop forgets what is held of a block, for example because its digest differs from the sender's.
// It returns the number of bytes forgotten, which are missing again.
func (a *Assembler) Drop(index int64) int64 {
	r := BlockRange(index, a.size)
	dropped := a.held.Remove(r.Start, r.End)
	if dropped == 0 {
		return 0
	}
	a.tree.drop(index)
	a.completed = slices.DeleteFunc(a.completed, func(b Block) bool { return b.Index == index })
	if index <= a.front {
		a.setFront(index)
	}
	return dropped
}

// SetSize states the size of the image, at any time. It may be repeated, but another size than
// before is ErrSizeConflict. A size above the limit is ErrTooLarge, one that cuts off a held byte
// ErrBeyondSize. Other errors come from reading dst, see WriteAt.
func (a *Assembler) SetSize(size int64) error {
	switch {
	case size < 0:
		return fmt.Errorf("chunk: an image cannot have %d bytes", size)
	case a.size >= 0 && size != a.size:
		return fmt.Errorf("%w: %d, then %d bytes", ErrSizeConflict, a.size, size)
	case size > a.limit:
		return tooLarge(size, a.limit)
	case a.held.Max() > size:
		return fmt.Errorf("%w: byte %d came, the stated size is %d", ErrBeyondSize, a.held.Max()-1, size)
	case a.size >= 0 || size == 0:
		a.size = size
		return nil
	}
	a.size = size
	err := a.advance(Range{}, nil)
	return cmp.Or(err, a.hashAhead((size-1)/BlockSize, Range{}, nil))
}

// WriteAt takes the bytes p at offset off and keeps no reference to them. It returns len(p), or 0
// and an error; then Missing tells what is missing, with the bytes that could not be written.
// Errors of dst are returned as they are. A block that cannot be read back is dropped.
func (a *Assembler) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("chunk: negative offset %d", off)
	}
	if int64(len(p)) > a.limit-off {
		return 0, fmt.Errorf("%w (%d bytes at %d, at most %d)", ErrTooLarge, len(p), off, a.limit)
	}
	end := off + int64(len(p))
	if a.size >= 0 && end > a.size {
		return 0, fmt.Errorf("%w: %d bytes at %d, its size is %d", ErrBeyondSize, len(p), off, a.size)
	}
	for g := range a.held.Gaps(off, end) {
		if err := a.take(g, p[g.Start-off:g.End-off]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// take writes and hashes bytes that are missing. A block that is held whole has a
// digest when it returns, whatever failed.
func (a *Assembler) take(g Range, data []byte) error {
	if a.held.Count() >= maxFragments && a.held.RunEnd(g.End) == g.End &&
		(g.Start == 0 || !a.held.Contains(g.Start-1, g.Start)) {
		return ErrFragmented
	}
	n, err := a.dst.WriteAt(data, g.Start)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return err
	}
	a.held.Add(g.Start, g.End)
	err = a.advance(g, data)
	for i := max(a.front+1, g.Start/BlockSize); i <= (g.End-1)/BlockSize; i++ {
		err = cmp.Or(err, a.hashAhead(i, g, data))
	}
	return err
}

// advance hashes the front as far as it is held and moves on to the next one when
// it is complete. The bytes of the range hot are at hand in data; afterwards pos is
// at a byte that is missing.
func (a *Assembler) advance(hot Range, data []byte) error {
	for {
		block := BlockRange(a.front, a.size)
		if a.pos == block.End {
			if block.Len() == 0 {
				return nil // behind the last block
			}
			a.complete(a.front, a.hash.Take())
			a.setFront(a.front + 1)
			continue
		}
		part := Range{a.pos, min(a.held.RunEnd(a.pos), block.End)}
		switch {
		case part.Len() == 0:
			return nil
		case part.Start >= hot.Start && part.Start < hot.End:
			part.End = min(part.End, hot.End)
			p := data[part.Start-hot.Start : part.End-hot.Start]
			if part == block {
				a.complete(a.front, a.hash.Sum(p))
				a.setFront(a.front + 1)
				continue
			}
			a.hash.Write(p)
		default:
			if err := a.hash.read(a.dst, part); err != nil {
				a.Drop(a.front)
				return err
			}
		}
		a.pos = part.End
	}
}

// hashAhead completes a block ahead of the front if all of it is held.
func (a *Assembler) hashAhead(index int64, hot Range, data []byte) error {
	block := BlockRange(index, a.size)
	if _, done := a.tree.Block(index); done || index <= a.front || !a.held.Contains(block.Start, block.End) {
		return nil
	}
	if a.back == nil {
		a.back = NewBlockHasher(a.tree.alg)
	}
	if block.Start >= hot.Start && block.End <= hot.End {
		a.complete(index, a.back.Sum(data[block.Start-hot.Start:block.End-hot.Start]))
		return nil
	}
	d, err := a.back.Read(a.dst, index, a.size)
	if err != nil {
		a.Drop(index)
		return err
	}
	a.complete(index, d)
	return nil
}

func (a *Assembler) complete(index int64, d Digest) {
	a.tree.set(index, d)
	a.completed = append(a.completed, Block{index, d})
}

// setFront makes the first incomplete block from index on the front.
func (a *Assembler) setFront(index int64) {
	for _, done := a.tree.Block(index); done; _, done = a.tree.Block(index) {
		index++
	}
	a.front, a.pos = index, BlockRange(index, a.size).Start
	a.hash.Reset()
}

// AppendCompleted appends to bs the blocks completed since the last call, for a checkpoint of
// dst. Blocks given to Hold are not among them.
func (a *Assembler) AppendCompleted(bs []Block) []Block {
	bs = append(bs, a.completed...)
	a.completed = a.completed[:0]
	return bs
}

// Blocks yields all complete blocks in ascending order. The loop must not change the assembler.
func (a *Assembler) Blocks() iter.Seq[Block] {
	return func(yield func(Block) bool) {
		for r := range a.held.All() {
			for i := r.Start / BlockSize; i <= (r.End-1)/BlockSize; i++ {
				// A block cut by the range is incomplete.
				if d, done := a.tree.Block(i); done && !yield(Block{i, d}) {
					return
				}
			}
		}
	}
}

// Missing yields the missing ranges in ascending order. While the size is unknown these are below
// the highest byte held.
func (a *Assembler) Missing() iter.Seq[Range] {
	end := a.size
	if end < 0 {
		end = a.held.Max()
	}
	return a.held.Gaps(0, end)
}

// Held yields the held ranges in ascending order. The loop must not change the assembler.
func (a *Assembler) Held() iter.Seq[Range] { return a.held.All() }

// Contiguous returns how many bytes are held from the start of the image. Only Drop and a failure
// to read dst lower it.
func (a *Assembler) Contiguous() int64 { return a.held.RunEnd(0) }

// Covered returns how many bytes are held.
func (a *Assembler) Covered() int64 { return a.held.Covered() }

// Size returns the size of the image, or -1 while it is unknown.
func (a *Assembler) Size() int64 { return a.size }

// Complete reports whether the size is known and every byte is held and hashed.
func (a *Assembler) Complete() bool { return a.held.Covered() == a.size }

// Root returns the digest of the image, or false before it is complete.
func (a *Assembler) Root() (Digest, bool) {
	if !a.Complete() {
		return Digest{}, false
	}
	return a.tree.RootBy(a.hash, a.size) // every block is hashed
}

func tooLarge(size, limit int64) error {
	return fmt.Errorf("%w (%d bytes, at most %d)", ErrTooLarge, size, limit)
}
