package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// run is bytes of an image that wait to be written.
type run struct {
	offset int64
	data   []byte
	memory *Buffer // that data lies in
	events int     // of the engine that it came by
}

// receiving is one transfer from the peer on one session. The session's mutex
// guards the fields that events change.
type receiving struct {
	s      *Session
	handle uint16
	offer  *wire.Offer
	ctx    context.Context // ends when nobody wants the answer any more
	cancel context.CancelCauseFunc
	wake   chan struct{} // has a token after a change
	done   chan struct{} // closed when the worker is

	queue   []run
	spare   []run   // the memory of the queue before
	arena   *Buffer // that small pieces are copied into
	used    int     // of arena
	resumed []*wire.Resume
	fin     *wire.Fin
	joined  bool // nobody needs its bytes
	over    bool // answered, or nobody waits for the answer
}

// offered starts the worker of an offer.
func (s *Session) offered(ev *arq.Event) {
	r := &receiving{s: s, handle: ev.Handle, offer: ev.Offer, wake: make(chan struct{}, 1), done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancelCause(s.ctx)
	s.in[ev.Handle] = r
	s.coming += r.most()
	s.crew.run(r.work)
}

// most is how many bytes it may still bring.
func (r *receiving) most() int64 {
	if size := r.offer.Size; size >= 0 {
		return size
	}
	return wire.MaxSize
}

// event takes an event of the engine.
func (r *receiving) event(ev *arq.Event, from *Buffer) {
	switch ev.Kind {
	case arq.Received:
		if r.joined {
			r.s.eng.Consumed(len(ev.Data), 1)
			return
		}
		if len(r.queue) == 0 { // otherwise it has been told, or is about to look
			r.s.tell(r)
		}
		r.take(ev, from)
		return
	case arq.Resumed:
		r.resumed = append(r.resumed, ev.Resume)
	case arq.Finished:
		r.fin = ev.Fin
	case arq.Canceled:
		r.cancel(&transport.RejectedError{Reason: transport.ReasonCanceled, Retryable: true, Text: "the sender gave it up: " + transport.Reason(ev.Reason).String()})
	}
	notify(r.wake)
}

// tell has unlock wake the worker of a transfer.
func (s *Session) tell(r *receiving) {
	if s.fresh != nil && s.fresh != r {
		notify(s.fresh.wake)
	}
	s.fresh = r
}

// take queues bytes. A piece that fills a good part of the memory that it came in
// stays there; others are copied behind each other, so that no memory is left over, and
// those that continue the last one become part of it.
func (r *receiving) take(ev *arq.Event, from *Buffer) {
	if from != nil && len(ev.Data) >= len(from.mem)/4 {
		from.retain()
		r.queue = append(r.queue, run{ev.Offset, ev.Data, from, 1})
		return
	}
	for offset, rest := ev.Offset, ev.Data; len(rest) > 0; {
		if r.arena == nil || r.used == len(r.arena.mem) {
			r.renew()
		}
		n := copy(r.arena.mem[r.used:], rest)
		r.append(offset, n)
		if offset, rest = offset+int64(n), rest[n:]; len(rest) == 0 {
			r.queue[len(r.queue)-1].events++
		}
	}
}

// renew begins another arena.
func (r *receiving) renew() {
	r.arena.Release()
	size := int64(mediumBuffer)
	if r.offer.Size >= 0 {
		size = min(size, r.offer.Size)
	}
	r.arena, r.used = NewBuffer(int(size)), 0
}

// append queues the next n bytes of the arena.
func (r *receiving) append(offset int64, n int) {
	at := r.used
	r.used += n
	if last := len(r.queue) - 1; last >= 0 {
		q := &r.queue[last]
		if q.memory == r.arena && q.offset+int64(len(q.data)) == offset {
			q.data = q.data[:len(q.data)+n]
			return
		}
	}
	r.arena.retain()
	r.queue = append(r.queue, run{offset, r.arena.mem[at:r.used], r.arena, 0})
}

// work takes the transfer to its end and answers it.
func (r *receiving) work() { r.answer(r.receive()) }

// answer ends the transfer, once: with an error of the engine's only if the sender has given up.
func (r *receiving) answer(receipt *wire.Receipt, err error) {
	s := r.s
	s.mu.Lock()
	if r.over {
		s.mu.Unlock()
		return
	}
	r.over = true
	bytes, events := r.drop()
	if !s.ended {
		switch {
		case err == nil:
			_ = s.eng.Receipt(r.handle, receipt)
		case !errors.Is(err, errUndecided):
			_ = s.eng.Reject(r.handle, refusal(err))
		}
		delete(s.in, r.handle)
		s.coming -= r.most()
		s.eng.Consumed(bytes, events)
		s.drain(nil)
	}
	s.unlock()
	r.cancel(nil)
	close(r.done)
	s.flush()
}

// drop frees what is queued and returns how much that was.
func (r *receiving) drop() (bytes, events int) {
	for _, q := range r.queue {
		bytes, events = bytes+len(q.data), events+q.events
		q.memory.Release()
	}
	r.arena.Release()
	r.queue, r.arena = nil, nil
	return bytes, events
}

// receive returns what to answer.
func (r *receiving) receive() (*wire.Receipt, error) {
	in, err := r.inbox()
	if err != nil {
		return nil, err
	}
	var meta wire.Metadata
	if err := meta.Parse(r.offer.Meta); err != nil {
		return nil, &transport.RejectedError{Reason: transport.ReasonMeta, Text: err.Error()}
	}
	alg, err := r.algorithm()
	if err != nil {
		return nil, err
	}
	switch r.offer.Kind {
	case wire.KindImage:
		return r.image(in, &meta, alg)
	case wire.KindMessage:
		return r.message(in, &meta, alg)
	}
	return nil, &transport.RejectedError{Reason: transport.ReasonMalformed, Text: "a kind of transfer that is not known here"}
}

// inbox waits until somebody serves, for a little while.
func (r *receiving) inbox() (*transport.Inbox, error) {
	c := r.s.conn
	select {
	case <-c.serving:
	default:
		select {
		case <-c.serving:
		case <-time.After(serveTime):
		case <-r.ctx.Done():
			return nil, context.Cause(r.ctx)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.inbox != nil:
		return c.inbox, nil
	case c.serve != nil:
		return nil, &transport.RejectedError{Reason: transport.ReasonGoingAway, Retryable: true, Text: "the receiver has stopped serving: try again later"}
	}
	return nil, &transport.RejectedError{Reason: transport.ReasonNotServing, Retryable: true, Text: "the peer's program does not serve this connection: try again when it does"}
}

// image receives an image.
func (r *receiving) image(in *transport.Inbox, meta *wire.Metadata, alg chunk.Algorithm) (*wire.Receipt, error) {
	o := r.offer
	offer := transport.Offer{
		ID: o.ID, Size: o.Size, Digest: alg, Attempt: o.Attempt,
		Resume: o.Flags&wire.OfferResume != 0, Oldest: o.Oldest,
		Image: transport.Image{Name: meta.Name, MediaType: meta.MediaType, Source: meta.Source, Meta: meta.Pairs},
	}
	if meta.Captured != 0 {
		offer.Image.Captured = time.Unix(0, meta.Captured)
	}
	a, err := in.Offer(r.ctx, offer)
	if err != nil {
		if r.ctx.Err() != nil && errors.Is(err, context.Canceled) { // why the wait has ended is what the sender is to hear
			err = context.Cause(r.ctx)
		}
		return nil, err
	}
	receipt, err := r.fill(a)
	if err != nil {
		a.Abort(err)
		return nil, err
	}
	w := &wire.Receipt{Level: uint8(receipt.Level), Bytes: receipt.Bytes, Algorithm: receipt.Digest.Algorithm(), Digest: receipt.Digest.Append(nil)}
	if _, kept := a.Done(); kept {
		w.Flags |= wire.ReceiptDuplicate
	}
	return w, nil
}

func (r *receiving) algorithm() (chunk.Algorithm, error) {
	if own := r.s.conn.ep.cfg.Digest; own.ID == r.offer.Algorithm {
		return own, nil
	}
	if alg, ok := transport.AlgorithmByID(r.offer.Algorithm); ok {
		return alg, nil
	}
	return chunk.Algorithm{}, &transport.RejectedError{Reason: transport.ReasonMalformed,
		Text: fmt.Sprintf("the receiver does not know the digest algorithm %d: use 1 (XXH3-128) or 2 (SHA-256)", r.offer.Algorithm)}
}

// fill writes what comes until the image is whole and committed.
func (r *receiving) fill(a *transport.Arrival) (transport.Receipt, error) {
	if a.Joined() {
		return r.join(a)
	}
	if r.offer.Flags&wire.OfferResume != 0 {
		if err := r.compare(a); err != nil {
			return transport.Receipt{}, err
		}
	}
	for {
		queue, fin, err := r.next()
		if err != nil {
			return transport.Receipt{}, err
		}
		if err := r.write(queue, func(q run) error { _, err := a.WriteAt(q.data, q.offset); return err }); err != nil {
			return transport.Receipt{}, err
		}
		if fin != nil {
			digest, err := chunk.NewDigest(fin.Algorithm, fin.Digest)
			if err != nil {
				return transport.Receipt{}, err
			}
			return r.finish(a, fin.Size, digest)
		}
	}
}

// compare tells the sender which blocks are held and waits until it has said which
// of them agree with its content.
func (r *receiving) compare(a *transport.Arrival) error {
	held := a.Held()
	r.s.do(func(e *arq.Engine) { _ = e.Accept(r.handle, held) })
	var use []int64
	for answered := 0; answered < len(held); {
		r.s.mu.Lock()
		resumed, fin := r.resumed, r.fin
		r.resumed = nil
		r.s.mu.Unlock()
		for _, f := range resumed {
			answered += int(f.Count)
			for i := range int(f.Count) {
				if f.Agrees(i) {
					use = append(use, int64(f.First)+int64(i))
				}
			}
		}
		if fin != nil && len(resumed) == 0 {
			break // the sender has sent all the rest without a look at the answer
		}
		if answered < len(held) {
			if err := context.Cause(r.ctx); err != nil {
				return err
			}
			r.wait()
		}
	}
	return a.Use(use)
}

// next waits for bytes to write or the end of them. What came before the transfer
// was given up is still worth writing, for a resume.
func (r *receiving) next() ([]run, *wire.Fin, error) {
	for {
		err := context.Cause(r.ctx)
		r.s.mu.Lock()
		queue, fin := r.queue, r.fin
		r.queue, r.spare = r.spare[:0], queue
		r.s.mu.Unlock()
		if len(queue) > 0 || fin != nil {
			return queue, fin, nil
		}
		if err != nil {
			return nil, nil, err
		}
		r.wait()
	}
}

func (r *receiving) wait() {
	select {
	case <-r.wake:
	case <-r.ctx.Done():
	}
}

// write hands runs on and gives their credit back, after an error too.
func (r *receiving) write(queue []run, to func(run) error) (err error) {
	for _, q := range queue {
		if err == nil {
			err = to(q)
		}
		r.s.consumed(len(q.data), q.events)
		q.memory.Release()
	}
	return err
}

// errUndecided ends a wait for a Handler that may still agree. The peer hears of the
// end of the session, and knows that it does not know.
var errUndecided = errors.New("the wait for the Handler was given up")

// finish makes the receipt, on this goroutine. If that takes longer than anybody waits for it,
// because of the Handler, it goes on, and the transfer ends without.
func (r *receiving) finish(a *transport.Arrival, size int64, digest chunk.Digest) (transport.Receipt, error) {
	defer context.AfterFunc(r.ctx, func() {
		if r.s.Err() == nil {
			select {
			case <-r.done: // the receipt was there already, which Shutdown counts on
			case <-time.After(receiptTime):
			}
		}
		r.answer(nil, errUndecided)
	})()
	receipt, err := a.Finish(context.WithoutCancel(r.ctx), size, digest)
	return receipt, undecided(err)
}

// join waits for the receipt of an image that is here already. If the wait is given up the
// receipt may be there too. What comes meanwhile does not keep credit from other transfers.
func (r *receiving) join(a *transport.Arrival) (transport.Receipt, error) {
	r.s.mu.Lock()
	bytes, events := r.drop()
	r.joined = true
	r.s.mu.Unlock()
	r.s.consumed(bytes, events)
	receipt, err := a.Finish(r.ctx, -1, chunk.Digest{})
	if err != nil && r.ctx.Err() != nil && r.s.Err() == nil {
		ctx, cancel := context.WithTimeout(context.Background(), receiptTime)
		defer cancel()
		receipt, err = a.Finish(ctx, -1, chunk.Digest{})
	}
	return receipt, undecided(err)
}

// undecided is err, or if it is no refusal errUndecided.
func undecided(err error) error {
	if refused := (*transport.RejectedError)(nil); err == nil || errors.As(err, &refused) {
		return err
	}
	return errUndecided
}

// dismiss ends the workers because nobody serves any more, and waits until they have
// written what has come and given their answers, unless user code holds them up.
func (s *Session) dismiss() {
	s.mu.Lock()
	workers := slices.Collect(maps.Values(s.in))
	s.mu.Unlock()
	gone := &transport.RejectedError{Reason: transport.ReasonGoingAway, Retryable: true, Text: "the receiver stops serving: try again later"}
	for _, r := range workers {
		r.cancel(gone)
	}
	patience := time.After(flushTime)
	for _, r := range workers {
		select {
		case <-r.done:
		case <-patience:
			return
		}
	}
}
