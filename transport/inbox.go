package transport

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/pixferry/pixferry/chunk"
)

// An Inbox is where a protocol delivers what its peer sends: a Server makes one for each Conn and
// gives it to [Conn.Serve]. It checks limits, names, metadata, duplicates and digests, so that a
// protocol only parses and makes three calls: Offer, WriteAt and Finish. It is safe for
// concurrent use. An Inbox whose Serve has returned refuses everything.
type Inbox struct {
	srv  *Server
	conn Conn
	info Info

	mu       sync.Mutex
	closed   error
	arrivals map[*Arrival]bool // those that are not over; true: Offer has returned it
}

// An Offer announces an image on its way in.
type Offer struct {
	ID ID // zero: the protocol has none, and the Inbox makes one
	// Image is the metadata; its Body is ignored. An empty Name or MediaType is filled in from ID
	// and bytes, and without an ID an empty Source from the peer's IP address.
	Image Image
	Size  int64 // bytes; -1: unknown
	// Digest is the algorithm of the digest that Finish will get and of the blocks in Held. Its
	// ID suffices if AlgorithmByID knows it; zero means XXH3.
	Digest chunk.Algorithm
	// Attempt orders the offers of one ID. A higher one takes the image over from the Arrival of
	// a lower one. An equal or lower one waits a second for that Arrival to end, and is then
	// refused with ReasonMoved.
	Attempt uint32
	// Resume says that the sender can skip blocks that are held here (Held, Use), so that a
	// partial image is worth keeping.
	Resume bool
	// Oldest is the lowest counter of ID.Instance() that the sender may still offer. Receipts
	// below it are forgotten, and offers below it refused with ReasonStale. Zero means unknown.
	Oldest uint64
}

// Limits returns the Server's limits, with defaults filled in.
func (in *Inbox) Limits() Limits { return in.srv.limits }

// Offer begins an image and applies every rule about what is taken. The error is a
// *RejectedError, or the context's if that ends the wait for the Store or for another attempt.
// End the Arrival with Finish or Abort. The context bounds only this call.
func (in *Inbox) Offer(ctx context.Context, o Offer) (*Arrival, error) {
	if o.ID.IsZero() {
		o.ID = NewID()
		o.Image.Source = cmp.Or(o.Image.Source, in.info.host())
	}
	o.Image.Body = Body{}
	o.Size = max(o.Size, -1)
	a := &Arrival{in: in, offer: o}
	if f := in.srv.Hooks.Offered; f != nil {
		info := a.info()
		in.srv.hooks.add(func() { f(info) })
	}
	err := in.offer(ctx, a)
	if err != nil {
		a.complete(Receipt{}, err)
		return nil, err
	}
	return a, nil
}

func (in *Inbox) offer(ctx context.Context, a *Arrival) error {
	s, o := in.srv, &a.offer
	if s.Handler == nil && s.Store == nil {
		return reject(ReasonNotServing, "the receiver takes only messages: set Server.Handler or Server.Store there to take images")
	}
	if err := s.limits.check(&o.Image, o.Size); err != nil {
		return err
	}
	if o.Digest.New == nil {
		id := max(o.Digest.ID, XXH3.ID)
		var ok bool
		if o.Digest, ok = AlgorithmByID(id); !ok {
			return reject(ReasonMalformed, "the digest algorithm %d is not known at the receiver: use XXH3", id)
		}
	}
	if err := in.admit(a); err != nil {
		return err
	}
	if err := s.assemble(ctx, a); err != nil {
		in.dismiss(a)
		return err
	}
	if in.open(a) {
		return nil
	}
	a.Abort(in.closed)
	return asRejected(in.closed, ReasonCanceled)
}

// admit counts an Arrival against the Conn's limit.
func (in *Inbox) admit(a *Arrival) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.closed != nil:
		return asRejected(in.closed, ReasonCanceled)
	case len(in.arrivals) >= in.srv.limits.MaxTransfers:
		return later(ReasonBusy, "%d images of this connection are on their way already: wait for one to end, or raise Limits.MaxTransfers at the receiver", len(in.arrivals))
	}
	in.arrivals[a] = false
	return nil
}

// open leaves an Arrival to the protocol, unless the Conn has ended meanwhile.
func (in *Inbox) open(a *Arrival) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if _, ok := in.arrivals[a]; ok { // not a duplicate, which is over already
		in.arrivals[a] = true
	}
	return in.closed == nil
}

func (in *Inbox) dismiss(a *Arrival) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.arrivals, a)
}

// close aborts the Arrivals that the Conn has left behind.
func (in *Inbox) close(cause error) {
	if cause == nil {
		cause = ErrPeerClosed
	}
	in.mu.Lock()
	in.closed = fmt.Errorf("the connection has ended: %w", cause)
	var left []*Arrival
	for a, opened := range in.arrivals {
		if opened {
			left = append(left, a)
		}
	}
	in.mu.Unlock()
	for _, a := range left {
		a.Abort(in.closed)
	}
}

// Message gives a message to the Server's Message function and waits for it. The error is a
// *RejectedError. It copies m.Data.
func (in *Inbox) Message(ctx context.Context, m Message) error {
	s := in.srv
	in.mu.Lock()
	closed := in.closed
	in.mu.Unlock()
	switch {
	case closed != nil:
		return asRejected(closed, ReasonCanceled)
	case s.Message == nil:
		return reject(ReasonNotServing, "the receiver takes no messages: set Server.Message there to take them")
	case len(m.Data) > s.limits.MaxMessage:
		return reject(ReasonTooLarge, "a message of %d bytes: at most %d are taken; send it as an image, or raise Limits.MaxMessage at the receiver", len(m.Data), s.limits.MaxMessage)
	}
	if err := s.limits.checkText("message type", m.Type); err != nil {
		return err
	}
	if !s.beginWork() {
		return errGoingAway()
	}
	m.Data = bytes.Clone(m.Data)
	running, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.life, func() { cancel(context.Cause(s.life)) })
	result := s.call(func() error { return s.Message(running, in.conn, m) }, func() {
		stop()
		cancel(nil)
		s.working.done()
	})
	select {
	case <-result.done:
		return s.refusal(result.err)
	case <-ctx.Done():
		return asRejected(context.Cause(ctx), ReasonCanceled)
	}
}

// beginWork counts one more in s.working, unless the Server shuts down.
func (s *Server) beginWork() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.working.add()
	}
	return !s.closing
}

// key is the offer's resume key: the sender's host without its port, which
// changes with each connection, or the Source, which outlives even a change of
// address; the name, the size and the digest algorithm.
func (o *Offer) key(info Info) string {
	if !o.Resume || o.Image.Name == "" {
		return ""
	}
	from := "peer " + info.Peer
	if host := info.host(); host != "" {
		from = "host " + host
	}
	if o.Image.Source != "" {
		from = "source " + o.Image.Source
	}
	return fmt.Sprintf("%s\x00%s\x00%d\x00%d", from, o.Image.Name, o.Size, o.Digest.ID)
}

// host is the peer's IP address; empty: it is known by a name.
func (i Info) host() string {
	addr, err := netip.ParseAddrPort(i.Peer)
	if err != nil {
		return ""
	}
	return addr.Addr().Unmap().String()
}

// info describes the Arrival to hooks.
func (a *Arrival) info() TransferInfo {
	o := &a.offer
	return TransferInfo{
		ID: o.ID, Conn: a.in.info, Size: o.Size, Attempt: o.Attempt, Duplicate: a.duplicate,
		Name: o.Image.Name, MediaType: o.Image.MediaType, Source: o.Image.Source,
	}
}

// withCause adds to a refusal what this side alone hears of it.
func withCause(err error) error {
	if refused := (*RejectedError)(nil); errors.As(err, &refused) && refused.cause != nil {
		return fmt.Errorf("%w: %w", err, refused.cause)
	}
	return err
}

// complete tells hooks and log what has become of an Arrival, once for each: one whose Conn ended while it was
// opened comes here twice.
func (a *Arrival) complete(r Receipt, err error) {
	if a.told.Swap(true) {
		return
	}
	s := a.in.srv
	err = withCause(err)
	if f := s.Hooks.Finished; f != nil {
		info := a.info()
		if err == nil && a.asm != nil {
			info.Stored = a.asm.stored
		}
		s.hooks.add(func() { f(info, r, err) })
	}
	if err == nil && !s.log.Enabled(s.life, slog.LevelInfo) {
		return // nobody reads what With would put together
	}
	log := s.log.With("id", a.offer.ID, "peer", a.in.info.Peer, "name", a.offer.Image.Name)
	if err != nil {
		log.Warn("image not kept", "err", err)
		return
	}
	log.Info("image kept", "bytes", r.Bytes, "digest", r.Digest, "resent", r.Resent, "reused", r.Reused, "duplicate", a.duplicate)
}
