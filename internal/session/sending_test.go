package session

import (
	"bytes"
	"context"
	"errors"
	"strings"
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

// looked is a Context that tells when somebody asks for its end.
type looked struct {
	context.Context
	tell func()
}

func (l looked) Err() error {
	err := l.Context.Err()
	l.tell()
	return err
}

// A worker that has looked at the context for the last time before it sends what it has read counts as one that reads no
// more: Send, which would not wait for it, would say that the image is not kept.
func TestReadingEndsBeforeTheLastLook(t *testing.T) {
	body := &transport.OpenBody{Size: 1, ReaderAt: strings.NewReader("x")}
	u := &upload{src: newSource(body, transport.XXH3)}
	read, looks := false, 0
	ctx := looked{t.Context(), func() {
		if looks++; u.reading.Load() == read {
			t.Errorf("reading: %t, when it has read: %t", u.reading.Load(), read)
		}
	}}
	if err := u.read(ctx, func() error { read = true; return nil }); err != nil || looks != 2 {
		t.Errorf("%v after %d looks", err, looks)
	}
}

// asked is a body that looks at its upload when it is read.
type asked struct{ u *upload }

func (a asked) ReadAt(p []byte, _ int64) (int, error) {
	if !a.u.unknown.Load() {
		return 0, errors.New("a Send whose context ends now says that the image is not kept")
	}
	return len(p), nil
}

// A receipt that comes before the body was read is for an image that the receiver keeps, whatever comes of reading it.
func TestOutcomeOfAnEarlyReceipt(t *testing.T) {
	body := &transport.OpenBody{Size: 1}
	u := &upload{out: &transport.Outgoing{}, sent: &chunk.Ranges{}}
	body.ReaderAt = asked{u}
	u.src = newSource(body, transport.XXH3)
	receipt := &wire.Receipt{Level: wire.LevelKept, Bytes: 1, Algorithm: transport.XXH3.ID, Digest: make([]byte, 16)}
	if _, err := u.receipted(t.Context(), receipt, false); err != nil || u.unknown.Load() {
		t.Errorf("%v, unknown: %t", err, u.unknown.Load())
	}
}
