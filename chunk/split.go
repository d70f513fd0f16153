package chunk

import (
	"errors"
	"fmt"
	"io"
	"iter"
)

// Errors of a source whose size is not the stated one.
var (
	ErrSourceShort = errors.New("chunk: the source ends before its stated size: was it cut while it was read?")
	ErrSourceLong  = errors.New("chunk: the source goes on after its stated size: did it grow while it was read?")
)

// maxChunk bounds the buffer that a chunk size makes Split and Splitter take.
const maxChunk = 1 << 30

// A Chunk is one piece of an image. Who yields or returns it says how long Data stays valid.
type Chunk struct {
	Offset int64
	Data   []byte
	Last   bool // the image ends with this chunk
}

// A Splitter cuts a source with random access into chunks of ChunkSize bytes, the last one
// shorter, and buffers nothing. Its methods may run concurrently if those of Source may.
type Splitter struct {
	Source    io.ReaderAt
	Size      int64 // of the image, in bytes
	ChunkSize int   // in bytes, 1 to 1 GiB
}

// Count returns the number of chunks, 0 if the image is empty.
func (s *Splitter) Count() int64 {
	if s.check() != nil {
		return 0
	}
	n := s.Size / int64(s.ChunkSize)
	if s.Size%int64(s.ChunkSize) > 0 {
		n++
	}
	return n
}

// Read reads chunk i, counted from 0, into buf, or into a new buffer if buf is too small; Data is
// in that memory. An index out of range is an error. A source that ends early is ErrSourceShort;
// with the last chunk, one that goes on is ErrSourceLong.
func (s *Splitter) Read(i int64, buf []byte) (Chunk, error) {
	if err := s.check(); err != nil {
		return Chunk{}, err
	}
	if n := s.Count(); i < 0 || i >= n {
		return Chunk{}, fmt.Errorf("chunk: there is no chunk %d: the image has %d", i, n)
	}
	off := i * int64(s.ChunkSize)
	n := int(min(s.Size-off, int64(s.ChunkSize)))
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	c := Chunk{off, buf[:n:n], s.Size-off == int64(n)}
	err := ReadFullAt(s.Source, c.Data, off)
	if err == nil && c.Last {
		err = s.checkEnd()
	}
	if err != nil {
		return Chunk{}, err
	}
	return c, nil
}

// All yields the chunks in order, none for an empty image, and ends with Read's first error. Data
// is valid until the loop's next turn.
func (s *Splitter) All() iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		err := s.check()
		if err == nil && s.Size == 0 {
			err = s.checkEnd()
		}
		if err != nil {
			yield(Chunk{}, err)
			return
		}
		buf := make([]byte, min(s.Size, int64(s.ChunkSize)))
		for i := range s.Count() {
			c, err := s.Read(i, buf)
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

func (s *Splitter) check() error {
	if s.Size < 0 {
		return fmt.Errorf("chunk: an image of %d bytes cannot be split", s.Size)
	}
	return checkChunkSize(s.ChunkSize)
}

func (s *Splitter) checkEnd() error {
	n, err := s.Source.ReadAt(make([]byte, 1), s.Size)
	switch {
	case n > 0:
		return fmt.Errorf("%w (%d bytes)", ErrSourceLong, s.Size)
	case err == io.EOF || err == nil:
		return nil
	}
	return err
}

func checkChunkSize(n int) error {
	if n < 1 || n > maxChunk {
		return fmt.Errorf("chunk: a chunk size of %d bytes: use 1 to %d", n, maxChunk)
	}
	return nil
}

// ReadFull reads until p is full or r returns an error, and returns how many bytes came. Unlike
// io.ReadFull it returns r's errors as they are: an io.ErrUnexpectedEOF of r means that r was
// cut, and must not look like the end of an image. An io.EOF together with the last byte of p is
// left out.
func ReadFull(r io.Reader, p []byte) (n int, err error) {
	for idle := 0; n < len(p); {
		var more int
		more, err = r.Read(p[n:])
		n += more
		if err != nil && (n < len(p) || err != io.EOF) {
			return n, err
		}
		if more > 0 {
			idle = 0
		} else if idle++; idle == 100 {
			return n, io.ErrNoProgress
		}
	}
	return n, nil
}

// ReadFullAt fills p with the bytes of r from offset off. If r ends before, the error is
// ErrSourceShort.
func ReadFullAt(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n >= len(p):
		return nil
	case err == io.EOF || err == nil:
		return fmt.Errorf("%w (at byte %d)", ErrSourceShort, off+int64(n))
	}
	return err
}

// Split yields the bytes of r in order as chunks of chunkSize bytes, the last one shorter, and
// none if r is empty. size is what r must hold; negative means unknown. Data is valid until the
// loop's next turn, and the loop may change it.
//
// It reads one byte ahead, to know which chunk is the last and whether r holds more than size:
// wrap a stream that goes on after the image in an io.LimitReader.
//
// It ends with the first error: that of r, ErrSourceShort or ErrSourceLong. An image is whole
// only if the chunk marked Last has come, or, if size is 0 or unknown, the loop has ended without
// a chunk and without an error.
func Split(r io.Reader, size int64, chunkSize int) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		if err := checkChunkSize(chunkSize); err != nil {
			yield(Chunk{}, err)
			return
		}
		n := chunkSize
		if size >= 0 {
			n = int(min(size, int64(n)))
		}
		buf := make([]byte, n+1)
		have := 0
		for off := int64(0); ; off += int64(n) {
			more, err := ReadFull(r, buf[have:])
			have += more
			end := err == io.EOF //nolint:errorlint // a wrapped EOF is a failure and no end
			if err == nil || end {
				err = checkTotal(off+int64(have), size, end)
			}
			if err != nil {
				yield(Chunk{}, err)
				return
			}
			if end {
				if have > 0 {
					yield(Chunk{off, buf[:have:have], true}, nil)
				}
				return
			}
			if !yield(Chunk{off, buf[:n:n], false}, nil) {
				return
			}
			buf[0], have = buf[n], 1
		}
	}
}

// checkTotal holds how many bytes have come, all if end says so, against a stated size.
func checkTotal(total, size int64, end bool) error {
	switch {
	case size >= 0 && total > size:
		return fmt.Errorf("%w (%d bytes)", ErrSourceLong, size)
	case end && total < size:
		return fmt.Errorf("%w (%d of %d bytes)", ErrSourceShort, total, size)
	}
	return nil
}
