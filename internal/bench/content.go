package main

import (
	"context"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"sync"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
	"github.com/zeebo/blake3"
)

// blake is BLAKE3, which users bring themselves.
var blake = chunk.Algorithm{ID: 3, Name: "blake3", New: func() hash.Hash { return blake3.New() }}

var content struct {
	mu    sync.Mutex
	bytes []byte
}

// image returns size bytes of noise in memory, the same at each call. All systems send these. They
// lie outside the heap: beside a GiB in it the collector would hardly run, so that systems which make
// garbage would not pay for it.
func image(size int64) []byte {
	c := &content
	c.mu.Lock()
	defer c.mu.Unlock()
	if int64(len(c.bytes)) < size {
		c.bytes = offHeap(int(size + 8))
		r := rand.NewPCG(1, 2)
		for i := 0; i+8 <= len(c.bytes); i += 8 {
			binary.LittleEndian.PutUint64(c.bytes[i:], r.Uint64())
		}
	}
	return c.bytes[:size]
}

// nowhere is a Store that keeps nothing. What a Store is asked to read back is what was sent.
type nowhere struct{}

func (nowhere) Open(_ context.Context, o transport.PartialOffer) (transport.Partial, error) {
	if o.Size < 0 {
		return nil, errors.New("the size must be known")
	}
	return discarded(image(o.Size)), nil
}
func (nowhere) Receipt(context.Context, transport.ID) (transport.Receipt, bool, error) {
	return transport.Receipt{}, false, nil
}
func (nowhere) Forget(instance, below uint64) {}

type discarded []byte

func (d discarded) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, d[min(off, int64(len(d))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
func (discarded) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (discarded) Held() []chunk.Block                    { return nil }
func (discarded) Checkpoint([]chunk.Block) error         { return nil }
func (discarded) Drop([]int64) error                     { return nil }
func (discarded) Keep() error                            { return nil }
func (discarded) Discard() error                         { return nil }
func (discarded) Commit(_ context.Context, img *transport.Image, _ transport.Receipt) (string, error) {
	return img.Name, nil
}
