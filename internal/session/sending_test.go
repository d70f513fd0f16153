package session

import (
	"bytes"
	"testing"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// What a receiver says it holds is bounded by what it can hold.
func TestAcceptsAreBounded(t *testing.T) {
	const blocks = 10
	for name, c := range map[string]struct {
		size int64
		most int
	}{"image": {blocks * chunk.BlockSize, 4 * (1 + blocks)}, "not resumable": {chunk.BlockSize, 0}} {
		body := &transport.OpenBody{Size: c.size, ReaderAt: bytes.NewReader(nil)}
		x := &sending{up: &upload{out: &transport.Outgoing{}, src: newSource(body, transport.XXH3)}, wake: make(chan struct{}, 1)}
		run := &wire.Accept{Held: 1, DigestLength: 16, Digests: make([]byte, 16)}
		for range 1000 {
			x.event(&arq.Event{Kind: arq.Accepted, Accept: run})
		}
		if n := len(x.held); n > c.most || c.most > 0 && n < blocks {
			t.Errorf("%s: %d runs of one block are kept", name, n)
		}
	}
}
