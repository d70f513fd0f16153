package session

import (
	"context"
	"errors"
	"io"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/memory"
	"github.com/pixferry/pixferry/transport"
)

// source reads one body piece by piece, for as many attempts as it takes, and
// collects the digests of its blocks. One worker uses it.
type source struct {
	body *transport.OpenBody
	at   io.ReaderAt // of body, or nil
	alg  chunk.Algorithm
	size int64 // -1 until the end of a Reader was found
	tree *chunk.Tree
	lent *memory.Reader // of body, if all of it lies in memory

	hash *chunk.BlockHasher
	upTo int64 // where hash is, within the block that it is in
	read int64 // how far a Reader was read
}

func newSource(body *transport.OpenBody, alg chunk.Algorithm) *source {
	at := body.ReaderAt
	if bounded, ok := at.(interface{ Unbounded() io.ReaderAt }); ok { // Send does not wait for its worker
		at = bounded.Unbounded()
	}
	lent, _ := at.(*memory.Reader)
	return &source{body: body, at: at, lent: lent, alg: alg, size: body.Size, tree: chunk.NewTree(alg), hash: chunk.NewBlockHasher(alg)}
}

// resumable says that blocks which the receiver holds can be compared and skipped.
func (s *source) resumable() bool { return s.at != nil && s.size > chunk.BlockSize }

// once says that what is read cannot be read again, so that it is better not read for a
// peer that may be gone.
func (s *source) once() bool { return s.at == nil }

// ready says that reading all of it takes no time: it is small and in memory.
func (s *source) ready() bool { return s.inMemory() && s.size <= largePiece }

// inMemory says that reading never waits.
func (s *source) inMemory() bool { return s.lent != nil }

// restart goes back to the start of the body for a new attempt.
func (s *source) restart() error {
	if s.once() && s.read > 0 {
		return transport.ErrBodyConsumed
	}
	s.rewind()
	return nil
}

// rewind forgets the block that was begun.
func (s *source) rewind() {
	s.hash.Reset()
	s.upTo = 0
}

// piece reads the bytes at offset, which is where a block begins or the last piece
// has ended, into p and returns how many: as many as fit, but never beyond a
// block. At the end it returns 0, and the size is known.
func (s *source) piece(offset int64, p []byte) (n int, err error) {
	n = s.fit(offset, len(p))
	if s.at != nil {
		err = chunk.ReadFullAt(s.at, p[:n], offset)
	} else {
		n, err = s.next(p[:n], offset)
	}
	if err != nil {
		return 0, err
	}
	return n, s.add(p[:n], offset)
}

// lend is piece of a body in memory, without a copy.
func (s *source) lend(offset int64) ([]byte, error) {
	p := s.lent.Bytes()[offset:][:s.fit(offset, largePiece)]
	return p, s.add(p, offset)
}

// fit returns how many bytes a piece at offset has, at most n.
func (s *source) fit(offset int64, n int) int {
	n = int(min(int64(n), chunk.BlockSize-offset%chunk.BlockSize))
	if s.size >= 0 {
		n = int(min(int64(n), s.size-offset))
	}
	return n
}

// add hashes a piece, and notes the digest of the block that ends with it.
func (s *source) add(p []byte, offset int64) error {
	if offset%chunk.BlockSize == 0 {
		s.rewind()
	}
	end := s.upTo
	if len(p) > 0 {
		end = offset + int64(len(p))
	}
	ends := end > 0 && (end%chunk.BlockSize == 0 || end == s.size)
	var digest chunk.Digest
	if ends && s.upTo == 0 { // all of it is at hand
		digest = s.hash.Sum(p)
	} else {
		s.hash.Write(p)
		if s.upTo = end; !ends {
			return nil
		}
		digest = s.hash.Take()
	}
	s.rewind()
	return s.tree.Set(chunk.Block{Index: (end - 1) / chunk.BlockSize, Digest: digest})
}

// next fills p from a Reader and finds its end.
func (s *source) next(p []byte, offset int64) (n int, err error) {
	switch {
	case offset != s.read:
		return 0, transport.ErrBodyConsumed
	case len(p) == 0: // the size was stated: is this the end?
		n, err = chunk.ReadFull(s.body, make([]byte, 1))
	default:
		n, err = chunk.ReadFull(s.body, p)
	}
	s.read += int64(n)
	if err == io.EOF { //nolint:errorlint // a wrapped EOF is a failure and no end
		s.size, err = s.read, nil
	}
	return n, err
}

// block returns the digest of a block of a ReaderAt, from memory if it was read
// before.
func (s *source) block(index int64, hasher *chunk.BlockHasher) (chunk.Digest, error) {
	if d, ok := s.tree.Block(index); ok {
		return d, nil
	}
	d, err := hasher.Read(s.at, index, s.size)
	if err == nil {
		err = s.tree.Set(chunk.Block{Index: index, Digest: d})
	}
	return d, err
}

// finish returns the digest of the whole after its last byte was read.
func (s *source) finish() (chunk.Digest, error) {
	if err := s.body.Check(); err != nil {
		return chunk.Digest{}, err
	}
	root, ok := s.tree.RootBy(s.hash, s.size)
	if !ok {
		return root, errors.New("session: the digest of a block is missing")
	}
	s.rewind()
	return root, nil
}

// digest returns the digest of the whole. What was not sent, because the receiver
// keeps the image already, is read only for this.
func (s *source) digest(ctx context.Context) (chunk.Digest, error) {
	if _, ok := s.tree.Root(s.size); ok {
		return s.finish()
	}
	if s.at != nil {
		hasher := chunk.NewBlockHasher(s.alg)
		for i := range chunk.BlockCount(s.size) {
			if _, err := s.block(i, hasher); err != nil || ctx.Err() != nil {
				return chunk.Digest{}, errors.Join(err, ctx.Err())
			}
		}
		return s.finish()
	}
	b := NewBuffer(largePiece)
	defer b.Release()
	for {
		n, err := s.piece(s.read, b.mem[:largePiece])
		if err != nil || ctx.Err() != nil {
			return chunk.Digest{}, errors.Join(err, ctx.Err())
		}
		if n == 0 {
			return s.finish()
		}
	}
}
