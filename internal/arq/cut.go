package arq

import (
	"fmt"
	"slices"

	"github.com/pixferry/pixferry/internal/wire"
)

// frameRoom returns how long a control frame may be at present.
func (e *Engine) frameRoom() int {
	return min(e.size.least()-wire.LongHeader-wire.Trailer, wire.FrameHeader+wire.MaxBody)
}

// cut makes the first frame of the queue fit. What does not follows it, in a frame of its own. That happens when the
// frame leaves, again if messages have become smaller since then. It reports false if nothing has changed.
func (e *Engine) cut(room int) bool {
	c := e.controls.next()
	switch f := c.frame.(type) {
	case *wire.Offer:
		head, rest := *f, *f
		n := room - wire.OfferHeader
		head.Meta, rest.Meta = f.Meta[:n], f.Meta[n:]
		rest.MetaOffset += uint16(n)
		o := e.numbered(f.Handle)
		o.controls = append(o.controls, e.controls.follow(&control{frame: &rest}))
		c.frame = &head
	case *wire.Accept:
		if !slices.Contains(c.in.held, heldRun{f.First, f.Count()}) { // it has its answer
			e.controlAcked(c)
			break
		}
		head, rest := *f, *f
		n := (room - wire.AcceptHeader) / int(f.DigestLength)
		head.Digests, rest.Digests = f.Digests[:n*int(f.DigestLength)], f.Digests[n*int(f.DigestLength):]
		rest.First += uint32(n)
		c.in.held = append(c.in.held, heldRun{head.First, n}, heldRun{rest.First, rest.Count()})
		c.in.open++
		e.controls.follow(&control{frame: &rest, in: c.in})
		c.frame = &head
	case *wire.Reject:
		short := *f
		short.Text = wire.CutText(f.Text, len(f.Text)+room-f.Len())
		c.frame = &short
	case *wire.Resume: // has to be as long as what it answers
		o := e.numbered(f.Handle)
		reject := &wire.Reject{Handle: f.Handle, ID: o.offer.ID, Reason: reasonTooLarge,
			Text: fmt.Sprintf("the answer about %d blocks that the peer holds is over what a message to it has room for", f.Count)}
		e.Cancel(o.handle, reasonTooLarge)
		e.events.push(Event{Kind: Rejected, Handle: o.handle, Reject: reject})
	default:
		return false
	}
	return true
}
