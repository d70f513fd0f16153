package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/memory"
	"github.com/pixferry/pixferry/transport"
)

// readAll reads a source to its end in pieces of at most n bytes, or in those that it lends.
func readAll(s *source, n int) ([]byte, error) {
	var all []byte
	next := func() ([]byte, error) { return s.lend(int64(len(all))) }
	if !s.inMemory() {
		buf := make([]byte, n)
		next = func() ([]byte, error) {
			k, err := s.piece(int64(len(all)), buf)
			return buf[:k], err
		}
	}
	for {
		p, err := next()
		if err != nil || len(p) == 0 {
			return all, err
		}
		all = append(all, p...)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{})
	r.Read(b)
	return b
}

func TestSourceDigests(t *testing.T) {
	const block = chunk.BlockSize
	content := noise(2*block + 1)
	for _, size := range []int{0, 1, largePiece - 1, largePiece, largePiece + 1, block - 1, block, block + 1, 2 * block, 2*block + 1} {
		b := content[:size]
		h := chunk.NewHasher(transport.XXH3)
		h.Write(b)
		for name, body := range map[string]*transport.OpenBody{
			"memory":       {Size: int64(size), ReaderAt: memory.NewReader(b)},
			"ReaderAt":     {Size: int64(size), ReaderAt: bytes.NewReader(b)},
			"Reader":       {Size: int64(size), Reader: iotest.HalfReader(bytes.NewReader(b))},
			"unknown size": {Size: -1, Reader: iotest.DataErrReader(bytes.NewReader(b))},
		} {
			s := newSource(body, transport.XXH3)
			got, err := readAll(s, largePiece)
			if err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s of %d bytes: %d bytes and %v", name, size, len(got), err)
				continue
			}
			if d, err := s.finish(); err != nil || d != h.Root() || s.size != int64(size) {
				t.Errorf("%s of %d bytes: size %d, digest %v and %v, want %v", name, size, s.size, d, err, h.Root())
			}
			s = newSource(&transport.OpenBody{Size: int64(size), ReaderAt: bytes.NewReader(b)}, transport.XXH3)
			if d, err := s.digest(context.Background()); err != nil || d != h.Root() {
				t.Errorf("%d bytes at once: digest %v and %v, want %v", size, d, err, h.Root())
			}
		}
	}
}

func TestSourceFaults(t *testing.T) {
	b := noise(1000)
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		body transport.OpenBody
		want error
	}{
		"short":             {transport.OpenBody{Size: 1001, Reader: bytes.NewReader(b)}, chunk.ErrSourceShort},
		"short ReaderAt":    {transport.OpenBody{Size: 1001, ReaderAt: bytes.NewReader(b)}, chunk.ErrSourceShort},
		"long":              {transport.OpenBody{Size: 999, Reader: bytes.NewReader(b)}, chunk.ErrSourceLong},
		"fails":             {transport.OpenBody{Size: -1, Reader: io.MultiReader(bytes.NewReader(b), iotest.ErrReader(broken))}, broken},
		"cut":               {transport.OpenBody{Size: -1, Reader: io.MultiReader(bytes.NewReader(b), iotest.ErrReader(io.ErrUnexpectedEOF))}, io.ErrUnexpectedEOF},
		"never gives bytes": {transport.OpenBody{Size: -1, Reader: iotest.ErrReader(nil)}, io.ErrNoProgress},
	} {
		if _, err := readAll(newSource(&c.body, transport.XXH3), 4096); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestSourceRestarts(t *testing.T) {
	s := newSource(&transport.OpenBody{Size: -1, Reader: bytes.NewReader(noise(10))}, transport.XXH3)
	if err := s.restart(); err != nil {
		t.Errorf("a stream of which nothing was read: %v", err)
	}
	readAll(s, 4)
	if err := s.restart(); !errors.Is(err, transport.ErrBodyConsumed) {
		t.Errorf("a stream that was read: %v", err)
	}
}

// A Buffer's memory is not given to anyone else while a reference is held.
func TestBufferReferences(t *testing.T) {
	for _, size := range []int{1, smallBuffer, mediumBuffer, largeBuffer, hugeBuffer, hugeBuffer + 1} {
		b := NewBuffer(size)
		if len(b.Bytes()) < size {
			t.Fatalf("%d bytes, want %d", len(b.Bytes()), size)
		}
		b.retain()
		b.Release()
		for range 100 {
			if c := NewBuffer(size); c == b {
				t.Fatal("a buffer that is held was given away")
			}
		}
		b.Release()
	}
}
