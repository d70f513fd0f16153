package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/memory"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// errLost ends an attempt whose session has ended.
var errLost = errors.New("the session has ended")

// errUnbegun is errLost of an attempt that had no time at all.
var errUnbegun = fmt.Errorf("%w before the transfer began", errLost)

// Send implements transport.Conn.
func (c *Conn) Send(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
	again := o != nil && !o.ID.IsZero()
	var sent chunk.Ranges
	return c.sender.Send(ctx, c.Info(), img, o, func(ctx context.Context, out *transport.Outgoing) (transport.Receipt, error) {
		meta := wire.Metadata{Name: out.Image.Name, MediaType: out.Image.MediaType, Source: out.Image.Source, Pairs: out.Image.Meta}
		if !out.Image.Captured.IsZero() {
			meta.Captured = out.Image.Captured.UnixNano()
		}
		u := &upload{conn: c, op: "send", out: out, known: again, sent: &sent, src: newSource(out.Body, c.ep.cfg.Digest)}
		again = true
		u.offer = wire.Offer{ID: out.ID, Oldest: out.Oldest, Kind: wire.KindImage, Algorithm: c.ep.cfg.Digest.ID, Meta: meta.Append(nil)}
		if out.Options.Live != nil {
			u.offer.Flags |= wire.OfferLive | wire.OfferInteractive
		}
		if out.Options.Priority == transport.Interactive {
			u.offer.Flags |= wire.OfferInteractive
		}
		return u.send(ctx)
	})
}

// SendMessage implements transport.Conn.
func (c *Conn) SendMessage(ctx context.Context, m transport.Message) error {
	meta := wire.Metadata{MessageType: m.Type}
	body := &transport.OpenBody{Size: int64(len(m.Data)), ReaderAt: memory.NewReader(m.Data)}
	out := &transport.Outgoing{ID: transport.NewID()}
	u := &upload{conn: c, op: "message", out: out, sent: &chunk.Ranges{}, src: newSource(body, c.ep.cfg.Digest)}
	u.offer = wire.Offer{ID: out.ID, Kind: wire.KindMessage, Flags: wire.OfferInteractive, Algorithm: c.ep.cfg.Digest.ID, Meta: meta.Append(nil)}
	sending, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	_, err := u.send(sending)
	if err == nil {
		return nil
	}
	e := &transport.Error{Op: "message", ID: out.ID, Err: err}
	errors.As(err, &e) // which says that the outcome is unknown
	if r := (*transport.RejectedError)(nil); errors.As(err, &r) && (!r.Retryable || e.Outcome != transport.Unknown) {
		e.Outcome = transport.Rejected // as of an image
	}
	if errors.Is(e.Err, context.Canceled) && ctx.Err() == nil {
		e.Err = context.Cause(c.ctx)
	}
	return e
}

// upload is one transfer on its way out, over all its sessions. A worker owns what
// is not said to be shared with the goroutine that called Send, which is itself the worker of a
// small body in memory.
type upload struct {
	conn    *Conn
	op      string // for errors
	out     *transport.Outgoing
	offer   wire.Offer // what all offers of it have in common
	known   bool       // the receiver may hold a part of it from before
	damaged bool       // it was offered again because of its digest
	src     *source
	direct  bool // there is no worker but Send's caller

	skip   chunk.Ranges  // what the receiver holds, in the present session
	sent   *chunk.Ranges // what was given to engines, in all attempts
	before int64         // bytes of that from before the present session

	// Shared.
	present atomic.Pointer[sending]
	reading atomic.Bool   // the worker is in the body, which may block
	moved   chan struct{} // has a token when acked has risen; nil: nobody asks
	acked   atomic.Int64
	unknown atomic.Bool // a session ended between FIN and the answer: the receiver may keep the image
}

// send takes the transfer to its end. It says, by an *Error, if nobody knows what became
// of it.
func (u *upload) send(ctx context.Context) (r transport.Receipt, err error) {
	if u.out.Options.Progress != nil {
		u.moved = make(chan struct{}, 1)
	}
	if u.direct = u.src.ready(); u.direct {
		r, err = u.tryAll(ctx)
	} else {
		r, err = u.delegate(ctx)
	}
	switch {
	case err == nil:
		u.out.Progress(r.Bytes)
	case u.unknown.Load():
		err = &transport.Error{Op: u.op, ID: u.out.ID, Outcome: transport.Unknown, Err: err}
	}
	return r, err
}

// delegate has a worker try, so that neither progress nor the context's end wait for a body
// that blocks.
func (u *upload) delegate(ctx context.Context) (r transport.Receipt, err error) {
	done := make(chan struct{})
	var result transport.Receipt
	var failure error
	u.conn.start(func() {
		defer close(done)
		result, failure = u.tryAll(ctx)
	})
	for ended := ctx.Done(); ; {
		select {
		case <-u.moved:
			u.out.Progress(u.acked.Load())
		case <-ended:
			if !u.reading.Load() {
				ended = nil // the worker sees it too
				continue
			}
			if x := u.present.Load(); x != nil {
				x.leave()
			}
			return r, ctx.Err()
		case <-done:
			return result, failure
		}
	}
}

// wait waits for news of x.
func (u *upload) wait(ctx context.Context, x *sending) {
	var moved <-chan struct{} // is another goroutine's to see
	if u.direct {
		moved = u.moved
	}
	select {
	case <-x.wake:
	case <-moved:
		u.out.Progress(u.acked.Load())
	case <-ctx.Done():
	}
}

// read calls f, which reads the body, unless ctx has ended. If it ends meanwhile Send may have returned: what was
// read is not to be sent.
func (u *upload) read(ctx context.Context, f func() error) error {
	u.reading.Store(!u.src.inMemory())
	err := ctx.Err()
	if err == nil {
		err = f()
	}
	u.reading.Store(false) // whoever sees the end of ctx from now on waits for the worker
	return cmp.Or(err, ctx.Err())
}

// tryAll offers the transfer on one session after the other until it has an answer,
// or the Conn has ended for good, or ctx has.
func (u *upload) tryAll(ctx context.Context) (transport.Receipt, error) {
	for {
		s, err := u.conn.session(ctx)
		if err != nil {
			return transport.Receipt{}, err
		}
		r, err := u.run(ctx, s)
		switch {
		case errors.Is(err, transport.ErrDigest) && !u.damaged:
			u.damaged = true // on its way, which the receiver could not tell before the end
		case !errors.Is(err, errLost):
			return r, err
		case errors.Is(s.Err(), transport.ErrIdle) && !s.passed && !errors.Is(err, errUnbegun):
			return r, s.Err() // the time for another try is over
		}
		if u.src.restart() != nil {
			return r, cmp.Or(s.Err(), err) // another attempt may open the body again
		}
		u.known = true
	}
}

// run takes the transfer through one session.
func (u *upload) run(ctx context.Context, s *Session) (r transport.Receipt, err error) {
	x, finished, err := u.begin(ctx, s) // finished: FIN is with the engine
	if err != nil {
		return r, err
	}
	defer x.leave()
	for offset := int64(0); ; {
		s.mu.Lock()
		held, receipt, reject, lost := x.held, x.receipt, x.reject, x.lost
		x.held = nil
		want := s.eng.Want(x.handle)
		unsure := s.unsure && u.src.once()
		s.mu.Unlock()
		switch {
		case receipt != nil:
			return u.receipted(ctx, receipt, finished)
		case reject != nil:
			return r, rejection(reject)
		case lost, ctx.Err() != nil:
			return r, u.cutOff(ctx, s, finished)
		case len(held) > 0:
			for _, run := range held {
				if err := u.compare(ctx, x, run); err != nil {
					return r, err
				}
			}
		case finished || x.waits || unsure || want <= 0:
			u.wait(ctx, x)
		default:
			if offset, finished, err = u.supply(ctx, x, offset); err != nil {
				return r, err
			}
		}
	}
}

// cutOff is the end of the session, or of ctx, before there is an answer.
func (u *upload) cutOff(ctx context.Context, s *Session, finished bool) error {
	if finished {
		u.unknown.Store(true)
	}
	if err := ctx.Err(); err != nil {
		return s.hindered(err)
	}
	return errLost
}

// begin offers the transfer on s. A small body goes with the offer, so that all of it can
// travel in one message, unless the transfer has to wait for its turn.
func (u *upload) begin(ctx context.Context, s *Session) (x *sending, finished bool, err error) {
	x = &sending{s: s, up: u, wake: make(chan struct{}, 1), waits: u.known && u.src.resumable()}
	u.present.Store(x)
	u.skip.Clear()
	u.before = u.sent.Covered()
	var p piece
	if !u.src.once() && u.src.size <= largePiece {
		if p, err = u.next(ctx, s, 0); err != nil {
			return x, false, err
		}
	}
	offer := u.offer
	offer.Attempt, offer.Size = u.out.NextAttempt(), u.src.size
	if u.src.resumable() {
		offer.Flags |= wire.OfferResume
	}
	running := s.do(func(e *arq.Engine) {
		e.Advance(time.Now()) // the idle time begins now, also if the carrier cannot poll for a while
		if x.handle, err = e.Offer(&offer); err != nil {
			return
		}
		s.out[x.handle] = x
		s.unsure = s.unsure || time.Since(s.heard) > e.Idle()
		if p.last {
			finished = u.hand(e, x, &p) == nil
			p.memory = nil
		}
	})
	p.memory.Release()
	switch {
	case !running, err != nil && s.Err() != nil:
		err = errUnbegun
	case errors.Is(err, arq.ErrTooLarge):
		err = s.tooLarge(&offer)
	}
	return x, finished, err
}

// compare answers a run of blocks that the receiver holds.
func (u *upload) compare(ctx context.Context, x *sending, run *wire.Accept) error {
	n, length := run.Count(), int(run.DigestLength)
	x.answered += n
	x.waits = x.waits && x.answered < int(run.Held)
	if n == 0 {
		return nil
	}
	answer := &wire.Resume{First: run.First, Count: uint16(n), Agree: make([]byte, (n+7)/8)}
	hasher := chunk.NewBlockHasher(u.src.alg)
	for i := range n {
		index := int64(run.First) + int64(i)
		part := chunk.BlockRange(index, u.src.size)
		if !u.src.resumable() || part.Len() == 0 {
			continue // nobody asked for it
		}
		var ours chunk.Digest
		err := u.read(ctx, func() (err error) { ours, err = u.src.block(index, hasher); return err })
		if err != nil {
			return err
		}
		theirs, err := chunk.NewDigest(u.src.alg.ID, run.Digests[i*length:(i+1)*length])
		if err == nil && ours == theirs {
			answer.Agree[i/8] |= 1 << (i % 8)
			u.skip.Add(part.Start, part.End)
		}
	}
	err := errLost
	x.s.do(func(e *arq.Engine) { err = e.Resume(x.handle, answer) })
	return over(err)
}

// over takes what is no error: that the transfer has ended in the meantime, which
// the next look at it will show.
func over(err error) error {
	if errors.Is(err, arq.ErrHandle) {
		return nil
	}
	return err
}

// piece is bytes of the body, and with the last of them, or after them, the end.
type piece struct {
	offset int64
	memory *Buffer // nil: none
	n      int
	last   bool
	digest chunk.Digest // of the whole, with last
}

// next reads the next piece from offset on.
func (u *upload) next(ctx context.Context, s *Session, offset int64) (p piece, err error) {
	p.offset = u.skip.RunEnd(offset)
	err = u.read(ctx, func() (err error) { p.memory, p.n, err = u.fetch(s, p.offset); return err })
	if p.last = p.n == 0 || !u.src.once() && p.offset+int64(p.n) == u.src.size; p.last && err == nil {
		err = u.read(ctx, func() (err error) { p.digest, err = u.src.finish(); return err })
	}
	if err != nil || p.n == 0 {
		p.memory.Release()
		return piece{offset: p.offset, last: p.last, digest: p.digest}, err
	}
	if s.apart && !s.info.reliable() { // where the checksum is of the payload too
		p.memory.fill(p.n)
	}
	return p, nil
}

// fetch returns memory with the bytes from offset on, and how many they are. A body in memory is
// copied only where a writer may be at it when Send has returned.
func (u *upload) fetch(s *Session, offset int64) (b *Buffer, n int, err error) {
	if u.src.inMemory() && !s.apart {
		lent, err := u.src.lend(offset)
		return borrow(lent), len(lent), err
	}
	size := largePiece
	if u.src.size >= 0 {
		size = int(min(int64(size), u.src.size-offset))
	}
	b = NewBuffer(size)
	n, err = u.src.piece(offset, b.mem[:size])
	return b, n, err
}

// hand gives a piece to the engine, or frees it.
func (u *upload) hand(e *arq.Engine, x *sending, p *piece) error {
	if p.n > 0 {
		if err := e.Supply(x.handle, p.offset, p.memory.mem[:p.n]); err != nil {
			p.memory.Release()
			return err
		}
		x.lent = append(x.lent, p.memory)
		u.out.Count(int64(p.n))
		u.sent.Add(p.offset, p.offset+int64(p.n))
	}
	if !p.last {
		return nil
	}
	u.out.Digest = p.digest
	return e.Finish(x.handle, u.src.size, p.digest)
}

// supply gives the engine the next piece from offset on.
func (u *upload) supply(ctx context.Context, x *sending, offset int64) (next int64, finished bool, err error) {
	p, err := u.next(ctx, x.s, offset)
	if err != nil {
		return offset, true, err
	}
	if !x.s.do(func(e *arq.Engine) { err = u.hand(e, x, &p) }) {
		err = errLost
		p.memory.Release()
	}
	runtime.Gosched()               // the writer has it while it is in the caches
	finished = p.last && err == nil // else the digest is not noted
	return p.offset + int64(p.n), finished, over(err)
}

// receipted makes sure that the Sender can check the receipt: one that comes early
// is for an image that the receiver keeps already.
func (u *upload) receipted(ctx context.Context, w *wire.Receipt, finished bool) (transport.Receipt, error) {
	r := transport.Receipt{ID: w.ID, Level: transport.Level(w.Level), Bytes: w.Bytes, Reused: max(0, w.Bytes-u.sent.Covered())}
	if w.Flags&wire.ReceiptDuplicate != 0 { // what was sent meanwhile was for nothing
		r.Reused = max(0, w.Bytes-u.before)
	}
	var err error
	if r.Digest, err = chunk.NewDigest(w.Algorithm, w.Digest); err != nil {
		return r, err
	}
	if !finished {
		unknown := u.unknown.Swap(true) // for a Send that ends while this reads
		if err = u.read(ctx, func() (err error) { u.out.Digest, err = u.src.digest(ctx); return err }); err != nil {
			return r, err
		}
		u.unknown.Store(unknown)
	}
	if u.src.size != r.Bytes {
		return r, transport.ErrIDUsed
	}
	return r, nil
}

// rejection is a REJECT as an error.
func rejection(w *wire.Reject) error {
	return &transport.RejectedError{
		Reason: transport.Reason(w.Reason), Retryable: w.Flags&wire.RejectRetryable != 0,
		Text: w.Text, After: time.Duration(w.AfterMillis) * time.Millisecond,
	}
}
