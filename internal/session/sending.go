package session

import (
	"slices"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// sending is an upload on one session, whose mutex guards what is not the worker's.
type sending struct {
	s      *Session
	up     *upload
	handle uint16
	wake   chan struct{} // has a token after a change

	lent    []*Buffer      // to the engine, in the order of Supply
	held    []*wire.Accept // runs of blocks that the receiver holds, not yet answered
	listed  int64          // blocks in those so far, and runs
	receipt *wire.Receipt
	reject  *wire.Reject
	lost    bool

	// The worker's.
	waits    bool // for what the receiver holds
	answered int  // blocks of that
}

// event takes an event of the engine.
func (x *sending) event(ev *arq.Event) {
	switch ev.Kind {
	case arq.Released:
		x.release(ev.Data)
		return
	case arq.Progress:
		if ev.Offset > x.up.acked.Load() {
			x.up.acked.Store(ev.Offset)
			notify(x.up.moved)
		}
		if x.up.out.Options.Live == nil {
			return
		}
	case arq.Accepted:
		// Each may come twice, where an acknowledgement was late. More is a peer that wants memory.
		x.listed += 1 + int64(ev.Accept.Count())
		if !x.up.src.resumable() || x.listed > 4*(1+chunk.BlockCount(x.up.src.size)) {
			return
		}
		x.held = append(x.held, ev.Accept)
	case arq.Receipted:
		x.receipt = ev.Receipt
		x.up.out.Count(ev.Offset)
	case arq.Rejected:
		x.reject = ev.Reject
	}
	notify(x.wake)
}

// memory returns the lent buffer that p lies in.
func (x *sending) memory(p []byte) *Buffer {
	end := func(p []byte) *byte { return &p[:cap(p)][cap(p)-1] }
	for _, b := range x.lent {
		if end(b.mem) == end(p) {
			return b
		}
	}
	return nil
}

// release frees the buffer that p lies in.
func (x *sending) release(p []byte) {
	if i := slices.IndexFunc(x.lent, func(b *Buffer) bool { return &b.mem[0] == &p[0] }); i >= 0 {
		x.lent[i].Release()
		x.lent = slices.Delete(x.lent, i, i+1)
	}
}

// lose ends it because the engine has let go of everything.
func (x *sending) lose() {
	for _, b := range x.lent {
		b.Release()
	}
	x.lent, x.lost = nil, true
	notify(x.wake)
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// tooLarge says which of the peer's limits an offer is over.
func (s *Session) tooLarge(o *wire.Offer) error {
	s.mu.Lock()
	peer := s.peer
	s.mu.Unlock()
	if o.Kind == wire.KindMessage && o.Size > int64(peer.MessageBytes) {
		return &transport.TooLargeError{What: "message", Size: o.Size, Max: int64(peer.MessageBytes)}
	}
	return &transport.TooLargeError{What: "metadata", Size: int64(len(o.Meta)), Max: int64(peer.Metadata)}
}

// leave ends the transfer on its session; one that has no answer is cancelled. Before its offer it has no handle.
func (x *sending) leave() {
	x.s.do(func(e *arq.Engine) {
		if x.s.out[x.handle] == x {
			e.Cancel(x.handle, uint8(transport.ReasonCanceled)) // nothing if it is over
			delete(x.s.out, x.handle)
		}
		x.lose()
	})
}
