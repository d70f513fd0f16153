package transport

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/pixferry/pixferry/chunk"
)

// An assembly is one image on its way in. It belongs to the Server and goes by
// the ID alone, so that a sender finds it again over another Conn, from another
// address and through another protocol.
//
//	receiving --Finish--> finishing (verify, Handler, commit) --> ended
//	        \--- Abort, a failure, Shutdown ----------------------^
//
// While it is receiving one Arrival, the owner, feeds it; a higher attempt takes
// its place. Arrivals that come while it is finishing wait for its end.
type assembly struct {
	srv  *Server
	id   ID
	done chan struct{} // closed when ended

	// turn holds a token. Whoever took it may use what follows; in phase
	// finishing its goroutine has part, bytes, stored and stream to itself instead.
	turn    chan struct{}
	phase   phase
	owner   *Arrival
	joined  []*Arrival
	offer   Offer // of the owner
	part    Partial
	bytes   *chunk.Assembler
	found   []chunk.Block // held in part, until the owner has chosen from them
	settled bool          // the choice was made
	reused  int64
	resent  int64
	stored  string  // the Store's name for it, once committed
	stream  *stream // of the streaming Handler, once it runs
	last    *outcome
}

type phase uint8

const (
	receiving phase = iota
	finishing
	ended
)

func (m *assembly) take(ctx context.Context) error {
	select {
	case <-m.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *assembly) release() { m.turn <- struct{}{} }

// leaveTime is how long an offer waits for an attempt as new as itself to end: one that was given up, or whose Conn
// was closed, in the same second.
const leaveTime = time.Second

// assemble finds the assembly that a new Arrival belongs to, or begins one.
func (s *Server) assemble(ctx context.Context, a *Arrival) error {
	s.forget(a.offer.ID.Instance(), a.offer.Oldest)
	var patience <-chan time.Time
	for waited := false; ; {
		m, fresh, err := s.claim(&a.offer)
		if err != nil {
			return err
		}
		if fresh {
			defer m.release()
			return m.open(ctx, a)
		}
		if entered, err := m.enter(ctx, a); entered || err != nil {
			return err
		}
		if patience == nil {
			patience = time.After(leaveTime)
		}
		if waited {
			select {
			case <-m.done:
				continue
			default:
			}
			return later(ReasonMoved, "another attempt under this ID still runs at the receiver: send it again in a second, or set SendOptions.Retry")
		}
		select {
		case <-m.done:
		case <-patience:
			waited = true // and asks once more, as it may be finishing by now
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// enter takes an Arrival in, unless the assembly has ended or the Arrival of an attempt as new feeds it.
func (m *assembly) enter(ctx context.Context, a *Arrival) (entered bool, err error) {
	if err := m.take(ctx); err != nil {
		return false, err
	}
	defer m.release()
	switch {
	case m.phase == finishing:
		a.asm, a.duplicate = m, true
		m.joined = append(m.joined, a)
		return true, nil
	case m.phase == receiving && a.offer.Attempt > m.owner.offer.Attempt:
		return true, m.takeOver(ctx, a)
	}
	return false, nil
}

// forget lets go of what a sender has declared finished.
func (s *Server) forget(instance, oldest uint64) {
	s.mu.Lock()
	raised := oldest > s.floors[instance]
	if raised {
		if _, known := s.floors[instance]; !known && len(s.floors) >= s.limits.MaxReceipts {
			for sender := range s.floors { // whichever: its receipts are old by now
				delete(s.floors, sender)
				break
			}
		}
		s.floors[instance] = oldest
	}
	s.mu.Unlock()
	if raised {
		s.store.Forget(instance, oldest)
	}
}

// claim returns the assembly of an ID. A fresh one has its turn taken.
func (s *Server) claim(o *Offer) (m *assembly, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if floor := s.floors[o.ID.Instance()]; o.ID.Counter() < floor {
		return nil, false, reject(ReasonStale, "the sender has declared everything below %d finished: send it under a new ID", floor)
	}
	if m := s.assemblies[o.ID]; m != nil {
		return m, false, nil
	}
	switch {
	case s.closing:
		return nil, false, errGoingAway()
	case len(s.assemblies) >= s.limits.MaxActive:
		return nil, false, later(ReasonBusy, "%d images are on their way already: try again later, or raise Limits.MaxActive at the receiver", len(s.assemblies))
	}
	m = &assembly{srv: s, id: o.ID, done: make(chan struct{}), turn: make(chan struct{}, 1)}
	s.assemblies[o.ID] = m
	s.working.add()
	return m, true, nil
}

// open begins a fresh assembly, unless the image is kept already.
func (m *assembly) open(ctx context.Context, a *Arrival) error {
	r, known, err := m.srv.store.Receipt(ctx, m.id)
	switch {
	case err != nil:
		err = storeError(ctx, err)
	case known:
		m.end(r, nil)
		a.duplicate = true
		a.end(r.reused(), nil)
		return nil
	default:
		err = m.lease(ctx, a)
	}
	if err != nil {
		m.end(Receipt{}, err)
	}
	return err
}

// lease takes a partial image from the Store for a, the new owner.
func (m *assembly) lease(ctx context.Context, a *Arrival) error {
	o, limit := &a.offer, m.srv.limits.MaxImage
	key := o.key(a.in.info)
	part, err := m.srv.store.Open(ctx, PartialOffer{ID: m.id, Key: key, Image: o.Image, Size: o.Size, Algorithm: o.Digest})
	if err != nil {
		return storeError(ctx, err)
	}
	m.part = part
	m.bytes, err = chunk.NewAssembler(part, o.Digest, o.Size, limit)
	if err != nil {
		part.Discard()
		return writeError(err)
	}
	if key != "" {
		m.found = part.Held()
	}
	m.own(a)
	return nil
}

// own makes a the owner, who chooses among the blocks found.
func (m *assembly) own(a *Arrival) {
	m.owner, m.offer, m.settled, m.reused = a, a.offer, false, 0
	a.asm, a.held = m, slices.SortedFunc(slices.Values(m.found), func(x, y chunk.Block) int { return cmp.Compare(x.Index, y.Index) })
}

// takeOver gives the image to the Arrival of a newer attempt. What the older one
// completed, block by block, stays; a streaming Handler starts again, because
// the bytes that it has seen of incomplete blocks may come differently now.
func (m *assembly) takeOver(ctx context.Context, a *Arrival) error {
	old := m.owner
	moved := reject(ReasonMoved, "the same image, under the same ID, is being sent by another connection, which goes on with it: wait for that one, or send this one under a new ID")
	old.end(Receipt{}, moved)
	m.owner = nil
	m.stopStream(moved)
	var err error
	if before, now := &old.offer, &a.offer; before.Size == now.Size && before.Digest.ID == now.Digest.ID && before.Image.Name == now.Image.Name {
		if m.settled {
			m.found = slices.Collect(m.bytes.Blocks())
			m.resent += m.bytes.Covered() - m.length(m.found)
		}
		if m.bytes, err = chunk.NewAssembler(m.part, now.Digest, now.Size, m.srv.limits.MaxImage); err == nil {
			m.own(a)
			return nil
		}
	}
	m.part.Discard() // another image under the same ID
	m.found, m.resent = nil, 0
	if err = m.lease(ctx, a); err != nil {
		m.end(Receipt{}, err)
	}
	return err
}

func (m *assembly) length(blocks []chunk.Block) (n int64) {
	for _, b := range blocks {
		n += chunk.BlockRange(b.Index, m.bytes.Size()).Len()
	}
	return n
}

// settle keeps those of the blocks found that the owner's content has too.
func (m *assembly) settle(keep []int64) error {
	if m.settled {
		return nil
	}
	var same []chunk.Block
	var others []int64
	wanted := make(map[int64]bool, len(keep))
	for _, i := range keep {
		wanted[i] = true
	}
	for _, b := range m.found {
		if wanted[b.Index] {
			same = append(same, b)
		} else {
			others = append(others, b.Index)
		}
	}
	if err := m.bytes.Hold(same); err != nil { // the Store's list is damaged
		for _, b := range same {
			others = append(others, b.Index)
		}
	}
	m.settled, m.found = true, nil
	m.reused = m.bytes.Covered()
	m.owner.received.Store(m.reused)
	if len(others) == 0 {
		return nil
	}
	return m.part.Drop(others)
}

// write takes bytes from the owner.
func (m *assembly) write(p []byte, off int64) error {
	if m.stream != nil {
		select {
		case <-m.stream.outcome.done: // no need to go on if it has refused
			if err := m.stream.outcome.err; err != nil {
				return handlerError(err)
			}
		default:
		}
	}
	if err := m.settle(nil); err != nil {
		return err
	}
	before := m.bytes.Covered()
	_, err := m.bytes.WriteAt(p, off)
	if err != nil {
		return writeError(err)
	}
	covered := m.bytes.Covered()
	m.resent += int64(len(p)) - (covered - before)
	m.owner.received.Store(covered)
	if blocks := m.bytes.AppendCompleted(nil); len(blocks) > 0 {
		if err := m.part.Checkpoint(blocks); err != nil {
			return err
		}
	}
	return m.feedStream()
}

// end tells everybody who waits. Fresh and older Arrivals of the ID then find
// the Store's receipt, or begin again.
func (m *assembly) end(r Receipt, err error) {
	m.phase = ended
	s := m.srv
	s.mu.Lock()
	delete(s.assemblies, m.id)
	s.mu.Unlock()
	if m.owner != nil {
		m.owner.end(r, err)
	}
	for _, a := range m.joined {
		a.end(r.reused(), err)
	}
	close(m.done)
	s.working.done()
}

// fail ends an assembly that has a lease. The partial image is kept if that can
// save the sender anything.
func (m *assembly) fail(err error, keep bool) {
	m.stopStream(err)
	var lost error
	if keep && m.offer.Resume && m.bytes.Covered()+int64(len(m.found)) > 0 {
		lost = m.part.Keep()
	} else {
		lost = m.part.Discard()
	}
	if lost != nil {
		m.srv.log.Warn("cannot put a partial image aside", "id", m.id, "err", lost)
	}
	m.end(Receipt{}, err)
}

// abandon gives the image up if it is not finishing.
func (m *assembly) abandon(err error) {
	<-m.turn
	defer m.release()
	if m.phase == receiving {
		m.fail(err, true)
	}
}

// storeError is what a sender hears about a failure of the Store.
func storeError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return asRejected(err, ReasonDisk)
}

// writeError translates an Assembler's error.
func writeError(err error) error {
	switch {
	case errors.Is(err, chunk.ErrTooLarge):
		return reject(ReasonTooLarge, "%v: that is Limits.MaxImage", err)
	case errors.Is(err, chunk.ErrBeyondSize), errors.Is(err, chunk.ErrSizeConflict), errors.Is(err, chunk.ErrFragmented):
		return reject(ReasonMalformed, "%v", err)
	}
	return asRejected(err, ReasonDisk)
}
