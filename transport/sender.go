package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Sender is what the Send methods of all Conns have in common, for those who implement one: it
// makes IDs, fills in options and metadata, opens bodies, retries, lets newer live frames replace
// older ones, checks receipts and wraps errors. A Conn has one Sender, whose zero value is ready
// to use. It is safe for concurrent use.
type Sender struct {
	mu       sync.Mutex
	closed   error
	running  map[*sending]struct{}
	live     map[string]*liveSource
	instance uint64
	counter  uint64
	active   []uint64 // counters of Sends that run, ascending
	failed   []uint64 // of those that may be sent again, ascending
}

// sending is a call of Send.
type sending struct {
	cancel context.CancelCauseFunc
	live   *liveSource   // that it is a frame of; nil: none
	turn   chan struct{} // closed when it may begin; nil: at once
	most   int           // frames that may be on their way with it

	captured time.Time // zero: unknown
}

// before reports whether it is known to be an older frame.
func (me *sending) before(other *sending) bool {
	return other != nil && !me.captured.IsZero() && !other.captured.IsZero() && me.captured.Before(other.captured)
}

// A liveSource is a queue of depth one: a frame begins when the one before it (or that many
// before it) has its answer, and a newer one takes the place of that which waits. So there is
// always one that arrives, however slow the link or the receiver, and none that gets old on its
// way.
type liveSource struct {
	source  string
	begun   []*sending // on their way
	waiting *sending
}

func (q *liveSource) enter(me *sending) {
	if slices.ContainsFunc(q.begun, me.before) || me.before(q.waiting) {
		me.cancel(cut{ErrSuperseded})
		return
	}
	if q.waiting != nil {
		q.waiting.cancel(cut{ErrSuperseded})
	}
	q.waiting = me
	q.next()
}

func (q *liveSource) leave(me *sending) {
	if i := slices.Index(q.begun, me); i >= 0 {
		q.begun = slices.Delete(q.begun, i, i+1)
	}
	if q.waiting == me {
		q.waiting = nil
	}
	q.next()
}

func (q *liveSource) next() {
	if me := q.waiting; me != nil && len(q.begun) < me.most {
		q.begun, q.waiting = append(q.begun, me), nil
		close(me.turn)
	}
}

// cut is the cause of a context that the Sender itself has ended.
type cut struct{ err error }

func (c cut) Error() string { return c.err.Error() }

// maxFailed bounds the failures that a Sender remembers.
const maxFailed = 1024

// Send implements a Conn's Send. It calls attempt with an Outgoing that is ready to go, again as
// o.Retry says, until there is a receipt. All its errors are *Error. The context of an attempt
// also ends when a live frame gets too old, and with Close; attempt then tells the peer and
// returns the context's error.
//
// attempt calls Outgoing.LastByteSent before the peer can have the whole image. It returns a
// *RejectedError for a refusal by the peer. For what it can never send, such as a name that does
// not fit the protocol, it returns an error that is not [Retryable]: one that wraps
// errors.ErrUnsupported, or a *TooLargeError. Other errors count as the network's and are tried
// again.
func (s *Sender) Send(ctx context.Context, info Info, img *Image, o *SendOptions, attempt func(context.Context, *Outgoing) (Receipt, error)) (Receipt, error) {
	if o == nil {
		o = &SendOptions{}
	}
	out := &Outgoing{Options: *o, ID: o.ID, size: -1}
	s.begin(out)
	r, err := s.send(ctx, info, img, out, attempt)
	s.end(out, err)
	if err != nil {
		return Receipt{}, &Error{Op: "send", ID: out.ID, Outcome: out.outcome(err), Err: err}
	}
	return r, nil
}

func (s *Sender) send(ctx context.Context, info Info, img *Image, out *Outgoing, attempt func(context.Context, *Outgoing) (Receipt, error)) (r Receipt, err error) {
	o := &out.Options
	o.Require = cmp.Or(o.Require, min(Received, info.Confirms))
	if err := o.check(img, info); err != nil {
		return r, err
	}
	ctx, me, err := s.enter(ctx, info, img, out)
	if err != nil {
		return r, err
	}
	defer s.leave(me)
	defer out.close()
	if me.turn != nil {
		select {
		case <-me.turn:
		case <-ctx.Done():
		}
	}
	err = Retry(ctx, o.Retry, func(ctx context.Context) error {
		r, out.last = s.try(ctx, info, img, out, attempt)
		return out.last
	})
	if err == nil {
		return r, nil
	}
	if c := (cut{}); errors.As(context.Cause(ctx), &c) {
		err = c.err
	}
	return r, err
}

// check says what is wrong with what is wanted.
func (o *SendOptions) check(img *Image, info Info) error {
	switch {
	case img == nil:
		return configError("no image: pass a *transport.Image")
	case o.Require > Kept:
		return configError("SendOptions.Require is %d: set it to Sent, Received or Kept", o.Require)
	case o.Priority > Interactive:
		return configError("SendOptions.Priority is %d: set it to Bulk or Interactive", o.Priority)
	case o.Require > info.Confirms:
		return fmt.Errorf("%v is wanted, %s confirms %v: %w", o.Require, info.Protocol, info.Confirms, ErrUnconfirmed)
	}
	return nil
}

// try makes one attempt.
func (s *Sender) try(ctx context.Context, info Info, img *Image, out *Outgoing, attempt func(context.Context, *Outgoing) (Receipt, error)) (Receipt, error) {
	if err := out.open(ctx, img); err != nil {
		if out.last != nil && errors.Is(err, ErrBodyConsumed) {
			err = notAgain(out.last)
		}
		return Receipt{}, err
	}
	if info.MaxImage > 0 && out.size > info.MaxImage {
		return Receipt{}, &TooLargeError{What: "image", Size: out.size, Max: info.MaxImage}
	}
	lost := out.unknown.Load()
	out.Oldest, out.earlier = s.oldest(out.ID), out.wire.Load()
	r, err := attempt(ctx, out)
	if err == nil {
		err = out.check(ctx, &r)
	}
	if err == nil {
		if r.Level >= Received {
			out.Progress(r.Bytes)
		}
		return r, nil
	}
	// An attempt is a Conn's own affair; of its Error only the cause counts.
	if refused := (*RejectedError)(nil); errors.As(err, &refused) {
		out.unknown.Store(lost) // the answer to this attempt; what became of earlier ones stays open
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		out.unknown.Store(out.unknown.Load() || e.Outcome == Unknown)
		err = e.Err
	}
	if Retryable(err) && out.consumed() { // at the end of ctx somebody may be reading yet
		err = notAgain(err)
	}
	return Receipt{}, err
}

// notAgain is a failure that another attempt might have overcome, had the body not been read.
func notAgain(err error) error { return fmt.Errorf("%w, and no other try: %w", err, ErrBodyConsumed) }

// enter registers a Send, whose context ends with the Sender; that of a live
// frame also at its MaxAge, and with a newer one while it waits for its turn.
func (s *Sender) enter(ctx context.Context, info Info, img *Image, out *Outgoing) (context.Context, *sending, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != nil {
		return nil, nil, s.closed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	me := &sending{cancel: cancel, captured: img.Captured}
	if s.running == nil {
		s.running, s.live = make(map[*sending]struct{}), make(map[string]*liveSource)
	}
	s.running[me] = struct{}{}
	live := out.Options.Live
	if live == nil {
		return ctx, me, nil
	}
	source := cmp.Or(live.Source, img.Source)
	q := s.live[source]
	if q == nil {
		q = &liveSource{source: source}
		s.live[source] = q
	}
	me.live, me.turn, me.most = q, make(chan struct{}), max(1, min(live.InFlight, info.Concurrency))
	q.enter(me)
	if live.MaxAge > 0 {
		t := time.AfterFunc(live.MaxAge, func() { cancel(cut{ErrTooOld}) })
		context.AfterFunc(ctx, func() { t.Stop() })
	}
	return ctx, me, nil
}

func (s *Sender) leave(me *sending) {
	me.cancel(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, me)
	if q := me.live; q != nil {
		if q.leave(me); len(q.begun) == 0 && s.live[q.source] == q { // else it was over before, and another is in its place
			delete(s.live, q.source)
		}
	}
}

// Close ends all Sends, running and future ones, with cause: ErrClosed for a Conn that was
// closed, ErrPeerClosed for one that its peer has ended. It does not wait for them. Only the
// first call counts.
func (s *Sender) Close(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != nil {
		return
	}
	s.closed = cause
	for r := range s.running {
		r.cancel(cut{cause})
	}
}

// begin makes an ID if there is none, and counts the Sender's own as unfinished.
func (s *Sender) begin(out *Outgoing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.instance == 0 {
		s.instance = NewID().Instance()
	}
	if out.ID.IsZero() {
		s.counter++
		out.ID = MakeID(s.instance, s.counter)
	}
	if out.ID.Instance() == s.instance {
		i, _ := slices.BinarySearch(s.active, out.ID.Counter())
		s.active = slices.Insert(s.active, i, out.ID.Counter()) // once for each Send that runs under it
	}
}

// end counts an ID as finished unless its image may be sent again under it.
func (s *Sender) end(out *Outgoing, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if out.ID.Instance() != s.instance {
		return
	}
	s.active = without(s.active, out.ID.Counter())
	refused := (*RejectedError)(nil)
	switch {
	case err == nil, errors.Is(err, ErrSuperseded), errors.As(err, &refused) && !refused.Retryable:
		s.failed = without(s.failed, out.ID.Counter())
	case out.attempt.Load() > 0: // else it is as it was before
		s.failed = with(s.failed, out.ID.Counter())
		s.failed = s.failed[max(0, len(s.failed)-maxFailed):]
	}
}

// oldest is the lowest counter of the ID's instance that may still be offered;
// 0 for an ID that is not the Sender's own.
func (s *Sender) oldest(id ID) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id.Instance() != s.instance {
		return 0
	}
	oldest := id.Counter()
	for _, counters := range [][]uint64{s.active, s.failed} {
		if len(counters) > 0 {
			oldest = min(oldest, counters[0])
		}
	}
	return oldest
}

func with(set []uint64, n uint64) []uint64 {
	if i, found := slices.BinarySearch(set, n); !found {
		set = slices.Insert(set, i, n)
	}
	return set
}

func without(set []uint64, n uint64) []uint64 {
	if i, found := slices.BinarySearch(set, n); found {
		set = slices.Delete(set, i, i+1)
	}
	return set
}
