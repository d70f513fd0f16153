package transport

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/memory"
)

// An Outgoing is an image on its way out, as [Sender.Send] gives it to an attempt. Its methods
// are safe for concurrent use.
type Outgoing struct {
	ID      ID
	Oldest  uint64      // for Offer.Oldest
	Image   Image       // metadata, with Name and MediaType filled in; its Body is not set
	Body    *OpenBody   // the content, at its start; reads end with the attempt's context, and the Sender closes it
	Options SendOptions // with Require filled in; the Sender itself applies ID and Retry

	// Digest is set by the attempt when it knows the image's digest. A receipt with another one
	// makes the Send fail with ErrIDUsed.
	Digest chunk.Digest

	size    int64
	wire    atomic.Int64
	earlier int64 // of wire, before this attempt
	last    error // of the attempt before
	unknown atomic.Bool
	attempt atomic.Uint32

	mu    sync.Mutex // of progress
	acked int64
}

// NextAttempt returns a number for Offer.Attempt, higher with each call. Call it once for each
// attempt and each reconnect. It starts at the time in seconds, so that a restarted program
// overtakes what it has left behind.
func (o *Outgoing) NextAttempt() uint32 {
	for {
		last := o.attempt.Load()
		next := max(last+1, uint32(time.Now().Unix()))
		if o.attempt.CompareAndSwap(last, next) {
			return next
		}
	}
}

// Progress reports how many bytes of the image the peer has acknowledged, for protocols that
// learn it on the way; the Sender itself reports the end. It never makes Options.Progress go
// back.
func (o *Outgoing) Progress(acked int64) {
	if o.Options.Progress == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if acked > o.acked {
		o.acked = acked
		o.Options.Progress(acked, o.size)
	}
}

// Count adds n bytes of the image that were handed to the medium, repeated ones too. The
// receipt's Resent follows from it, over all attempts.
func (o *Outgoing) Count(n int64) { o.wire.Add(n) }

// LastByteSent says that from now on the peer may have kept the image: any failure but a refusal
// by the peer has the outcome Unknown.
func (o *Outgoing) LastByteSent() { o.unknown.Store(true) }

// outcome is what err leaves behind at the peer. A refusal that may pass, such as
// "busy", says nothing about what became of an earlier attempt.
func (o *Outgoing) outcome(err error) Outcome {
	refused := (*RejectedError)(nil)
	switch {
	case errors.Is(err, ErrIDUsed):
		return NotKept
	case errors.As(err, &refused) && (!refused.Retryable || !o.unknown.Load()):
		return Rejected
	case o.unknown.Load():
		return Unknown
	}
	return NotKept
}

// check completes a receipt and holds it against what was sent.
func (o *Outgoing) check(ctx context.Context, r *Receipt) error {
	r.ID = o.ID
	other, err := o.differs(ctx, r.Digest)
	if err != nil {
		return err
	}
	if o.size >= 0 {
		if r.Bytes == 0 {
			r.Bytes = o.size
		}
		other = other || r.Bytes != o.size
	}
	if sent := o.wire.Load(); sent > 0 {
		before := max(0, r.Reused-o.earlier) // held before this Send began
		r.Resent = max(0, sent+before-r.Bytes)
	}
	switch {
	case other:
		return ErrIDUsed
	case r.Level < o.Options.Require:
		return ErrUnconfirmed
	}
	return nil
}

// differs reports whether a digest in a receipt is not that of the body, as far as both are known. One by another
// algorithm is that of an image kept before, under the same ID: whether it is this one a body that cannot be read
// again does not tell.
func (o *Outgoing) differs(ctx context.Context, d chunk.Digest) (bool, error) {
	switch {
	case o.Digest.IsZero() || d.IsZero():
		return false, nil
	case o.Digest.Algorithm() == d.Algorithm():
		return o.Digest != d, nil
	}
	alg, known := AlgorithmByID(d.Algorithm())
	if !known || o.Body.ReaderAt == nil {
		return true, nil
	}
	h := chunk.NewHasher(alg)
	_, err := io.Copy(h, io.NewSectionReader(&boundedAt{ctx, o.Body.ReaderAt}, 0, o.size))
	return h.Root() != d, err
}

// open makes Body ready for an attempt. A source that was not read beyond what
// could be put back is used again; a ReaderAt always is, so that a change of it
// is seen over all attempts.
func (o *Outgoing) open(ctx context.Context, img *Image) error {
	if o.Body != nil {
		src, _ := o.Body.Reader.(*source)
		if at, ok := o.Body.ReaderAt.(*boundedAt); ok {
			at.ctx = ctx
		}
		if src == nil || src.rewind(ctx) {
			o.Body.pos = 0
			return nil
		}
		if o.Body.once {
			return ErrBodyConsumed
		}
		o.close()
	}
	b, err := img.Body.Open(ctx)
	if err != nil {
		return err
	}
	o.Body, o.size = b, b.Size
	if err := o.describe(ctx, img, b); err != nil {
		o.close()
		return err
	}
	return nil
}

// consumed reports whether a body that can be read once has been.
func (o *Outgoing) consumed() bool {
	src, _ := o.Body.Reader.(*source)
	return o.Body.once && src != nil && src.past
}

// describe fills in the metadata that can be told from the body.
func (o *Outgoing) describe(ctx context.Context, img *Image, b *OpenBody) (err error) {
	o.Image = *img
	o.Image.Body = Body{}
	var head []byte
	if b.ReaderAt != nil {
		if _, ok := b.ReaderAt.(*memory.Reader); !ok {
			b.ReaderAt = &boundedAt{ctx, b.ReaderAt}
		}
		head = make([]byte, min(sniffLen, max(b.Size, 0)))
		err = chunk.ReadFullAt(b.ReaderAt, head, 0)
	} else {
		src := &source{ctx: ctx, r: b.Reader}
		b.Reader = src
		head, err = src.peek(sniffLen)
	}
	if err != nil {
		return err
	}
	if o.Image.MediaType == "" {
		o.Image.MediaType = sniff(head)
	}
	if o.Image.Name = cmp.Or(o.Image.Name, img.Body.Name()); o.Image.Name == "" {
		o.Image.Name = defaultName(o.ID, o.Image.MediaType)
	}
	return checkName(o.Image.Name, Limits{}.withDefaults().MaxName)
}

// close closes Body. A Close may wait for a Read that was left alone, as that of an http.Request's body does.
func (o *Outgoing) close() {
	if o.Body == nil {
		return
	}
	if src, _ := o.Body.Reader.(*source); src != nil && src.busy.Load() {
		go o.Body.Close()
	} else {
		o.Body.Close()
	}
	o.Body = nil
}

// A source reads from a reader that may block for ever, such as a pipe or a
// socket: its Read ends with a context. The first bytes can be put back.
type source struct {
	ctx  context.Context
	r    io.Reader
	busy atomic.Bool // a read runs, or was left alone
	buf  []byte      // lent to the read that runs
	head []byte
	pos  int   // in head
	past bool  // bytes after head were asked for
	err  error // nothing more can be read: r has ended, or a read was left alone
}

func (s *source) peek(n int) ([]byte, error) {
	s.head = make([]byte, n)
	n, err := chunk.ReadFull(readerFunc(s.read), s.head)
	s.head = s.head[:n]
	if err == io.EOF { //nolint:errorlint // a wrapped EOF is a failure and no end
		s.err, err = err, nil
	}
	return s.head, err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// rewind goes back to the start if that is possible.
func (s *source) rewind(ctx context.Context) bool {
	if s.past {
		return false
	}
	s.ctx, s.pos = ctx, 0
	return true
}

func (s *source) Read(p []byte) (int, error) {
	if s.pos < len(s.head) {
		n := copy(p, s.head[s.pos:])
		s.pos += n
		return n, nil
	}
	s.past = true
	return s.read(p)
}

func (s *source) read(p []byte) (int, error) {
	if err := cmp.Or(s.err, s.ctx.Err()); err != nil || len(p) == 0 {
		return 0, err
	}
	if s.buf == nil {
		s.buf = make([]byte, 64<<10)
	}
	s.busy.Store(true)
	n, err := within(s.ctx, func() (int, error) {
		defer s.busy.Store(false)
		return s.r.Read(s.buf[:min(len(p), len(s.buf))])
	})
	if n == 0 && err != nil {
		s.err = err // the buffer may be the read's for good
	}
	return copy(p, s.buf[:n]), err
}

// A boundedAt reads from content that may block for ever, such as a file of a server that is
// away: its ReadAt ends with a context.
type boundedAt struct {
	ctx context.Context
	at  io.ReaderAt
}

func (b *boundedAt) ReadAt(p []byte, off int64) (int, error) {
	own := make([]byte, len(p)) // p is the caller's when a read was left alone
	n, err := within(b.ctx, func() (int, error) { return b.at.ReadAt(own, off) })
	return copy(p, own[:n]), err
}

// Unbounded is the content itself, for who does not wait for its reads.
func (b *boundedAt) Unbounded() io.ReaderAt { return b.at }

// within calls read, and leaves it alone when ctx ends.
func within(ctx context.Context, read func() (int, error)) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var n int
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		n, err = read()
	}()
	select {
	case <-done:
		return n, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
