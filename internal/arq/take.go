package arq

import (
	"bytes"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

// Reasons of REJECT that the engine itself gives (SPEC.md, transport.Reason).
const (
	reasonTooLarge   = 1
	reasonMeta       = 3
	reasonNotServing = 12
	reasonMalformed  = 14
)

// crowdedTransfers is what many unproven peers share: in all they begin four times as many.
const crowdedTransfers = 128

// metaAhead is how many times as long as the parts that have come metadata may be until their last one: as many
// messages in a row may be late.
const metaAhead = 8

// find returns the peer's transfer that a frame is about. It is nil with a nil error if the transfer
// is over: the frame is late and to be ignored.
func (e *Engine) find(handle uint16) (*incoming, error) {
	if in := e.ins.get(handle); in != nil {
		return in, nil
	}
	if e.over.isOver(e.over.expand(handle)) {
		return nil, nil
	}
	return nil, errEarly
}

func (e *Engine) onOffer(body []byte) error {
	var f wire.Offer
	if err := f.Parse(body); err != nil {
		return err
	}
	e.batch.soon = true
	in, err := e.find(f.Handle)
	if err == nil && in == nil {
		return nil
	}
	if in == nil {
		if in, err = e.newIncoming(&f); err != nil || in.answered {
			return err
		}
	}
	if in.offered || in.answered || f.ID != in.id || f.Attempt != in.attempt || f.MetaSize != in.offer.MetaSize {
		return nil
	}
	end, come := int(f.MetaOffset)+len(f.Meta), int(in.meta.Covered())+len(f.Meta)
	if missing := end - len(in.offer.Meta); missing > 0 {
		if end > metaAhead*come { // no memory for what is only announced
			return errEarly
		}
		in.offer.Meta = append(in.offer.Meta, make([]byte, missing)...)
	}
	copy(in.offer.Meta[f.MetaOffset:], f.Meta)
	in.meta.Add(int64(f.MetaOffset), int64(end))
	if in.meta.Covered() == int64(f.MetaSize) {
		in.offered, in.meta = true, chunk.Ranges{}
		e.events.push(Event{Kind: Offered, Handle: in.handle, Offer: in.offer})
		e.checkFinished(in)
	}
	return nil
}

// newIncoming makes the record of an offered transfer, answered at once if the offer is over
// what this side's HELLO allows.
func (e *Engine) newIncoming(f *wire.Offer) (*incoming, error) {
	// A peer whose cancels are on their way may be a little over its limit; records of answered
	// transfers stay until the peer knows the answer.
	most := 2*int(e.cfg.Local.Transfers) + 16
	if e.handshake.unproven {
		most = min(earlyTransfers, crowdedTransfers/(int(e.cfg.Crowd)+1))
	}
	if e.ins.len() >= most {
		return nil, errNoRoom
	}
	in := &incoming{handle: f.Handle, counter: e.over.expand(f.Handle), id: f.ID, attempt: f.Attempt, told: &told{offer: *f}, size: f.Size}
	in.offer, in.got = &in.told.offer, chunk.NewRanges(in.run[:0])
	in.offer.Meta, in.offer.MetaOffset = nil, 0
	e.over.highest = max(e.over.highest, in.counter)
	e.ins.add(in.handle, in)
	switch {
	case f.MetaSize > e.cfg.Local.Metadata:
		e.refuse(in, reasonMeta, "more metadata than the HELLO allows")
	case f.Kind == wire.KindMessage && (f.Size < 0 || f.Size > int64(e.cfg.Local.MessageBytes)):
		e.refuse(in, reasonTooLarge, "a message over what the HELLO allows")
	}
	return in, nil
}

func (e *Engine) onData(body []byte) error {
	var f wire.Data
	if err := f.Parse(body); err != nil {
		return err
	}
	in, err := e.find(f.Handle)
	if err != nil || in == nil || in.answered {
		return err
	}
	if !in.offered {
		return errEarly
	}
	end := f.Offset + int64(len(f.Payload))
	if in.size >= 0 && end > in.size {
		e.refuse(in, reasonMalformed, "data beyond the end")
		return nil
	}
	if err := e.admit(in, f.Offset, len(f.Payload)); err != nil {
		return err
	}
	e.received(in, f.Offset, f.Payload)
	e.keep(in, f.Offset, f.Payload)
	e.checkFinished(in)
	return nil
}

// received reports what is new of bytes.
func (e *Engine) received(in *incoming, offset int64, p []byte) {
	end := offset + int64(len(p))
	if offset >= in.got.Max() && len(p) > 0 { // as nearly always
		e.window.received(int64(len(p)))
		e.events.push(Event{Kind: Received, Handle: in.handle, Offset: offset, Data: p})
		in.got.Add(offset, end)
		return
	}
	for g := range in.got.Gaps(offset, end) {
		e.window.received(g.Len())
		e.events.push(Event{Kind: Received, Handle: in.handle, Offset: g.Start, Data: p[g.Start-offset : g.End-offset]})
	}
	in.got.Add(offset, end)
}

// admit refuses data for which there is no room. On a reliable link that is a violation.
func (e *Engine) admit(in *incoming, offset int64, n int) error {
	if in.got.Contains(offset, offset+int64(n)) {
		return nil
	}
	ahead := offset - in.got.RunEnd(0)
	most := e.window.most
	if e.handshake.unproven {
		most = earlyBytes
	}
	switch {
	case e.window.waiting+int64(n) > most, in.got.Count() >= maxFragments && in.apart(offset, offset+int64(n)):
		return errNoRoom
	case ahead > 0 && ahead+int64(n) > int64(e.cfg.Local.Reorder):
		return errNoRoom
	}
	return nil
}

func (e *Engine) onFin(body []byte) error {
	var f wire.Fin
	if err := f.Parse(body); err != nil {
		return err
	}
	in, err := e.find(f.Handle)
	if err != nil || in == nil || in.answered || in.fin != nil || f.Attempt != in.attempt {
		return err
	}
	if in.size >= 0 && in.size != f.Size || in.got.Max() > f.Size {
		e.refuse(in, reasonMalformed, "the end is not where it was announced")
		return nil
	}
	in.told.fin = f
	in.size, in.fin = f.Size, &in.told.fin
	in.fin.Digest = append(in.told.digest[:0], f.Digest...)
	e.batch.urgent = e.batch.urgent || !in.complete()
	e.checkFinished(in)
	return nil
}

// checkFinished reports a transfer whose last byte or FIN has just arrived.
func (e *Engine) checkFinished(in *incoming) {
	if !in.finished && in.offered && in.complete() {
		in.finished = true
		e.batch.soon = true
		e.events.push(Event{Kind: Finished, Handle: in.handle, Fin: in.fin})
	}
}

func (e *Engine) onResume(body []byte) error {
	var f wire.Resume
	if err := f.Parse(body); err != nil {
		return err
	}
	e.batch.urgent = true
	in, err := e.find(f.Handle)
	if err != nil || in == nil || in.answered || f.Attempt != in.attempt || !in.resume(&f) {
		return err
	}
	f.Agree = bytes.Clone(f.Agree)
	e.events.push(Event{Kind: Resumed, Handle: in.handle, Resume: &f})
	e.checkFinished(in)
	return nil
}

func (e *Engine) onCancel(body []byte) error {
	var f wire.Cancel
	if err := f.Parse(body); err != nil {
		return err
	}
	in := e.ins.get(f.Handle)
	if in == nil { // the offer may come later: it is over already
		return e.forget(e.over.expand(f.Handle))
	}
	if f.Attempt != in.attempt {
		return nil
	}
	if !in.answered && in.offered {
		e.events.push(Event{Kind: Canceled, Handle: in.handle, Reason: f.Reason})
	}
	in.answered = true
	in.repair.end()
	e.ins.remove(in.handle)
	return e.forget(in.counter)
}

// retire forgets a transfer once the peer knows its end.
func (e *Engine) retire(in *incoming) {
	if in.answered && in.open == 0 && e.ins.get(in.handle) == in {
		e.ins.remove(in.handle)
		_ = e.forget(in.counter)
	}
}

func (e *Engine) forget(counter int64) error {
	if !e.over.end(counter) {
		return &wire.Error{Code: wire.CodeLimit, Frame: wire.NoFrame, Text: "transfers ended in more disorder than any sender needs"}
	}
	return nil
}

// answer queues the frame that ends a transfer.
func (e *Engine) answer(in *incoming, f frame) {
	in.answered = true
	in.got, in.meta, in.held, in.told, in.offer, in.fin = chunk.Ranges{}, chunk.Ranges{}, nil, nil, nil, nil
	in.repair.end()
	in.open++
	in.answer = control{frame: f, in: in, twice: true}
	e.controls.add(&in.answer)
}

func (e *Engine) refuse(in *incoming, reason uint8, text string) {
	if in.offered {
		e.events.push(Event{Kind: Canceled, Handle: in.handle, Reason: reason})
	}
	e.answer(in, &wire.Reject{Handle: in.handle, Attempt: in.attempt, ID: in.id, Reason: reason, Text: text})
}

// Accept answers an offer with OfferResume: it lists the held blocks in ascending order, or none.
// A Resumed event follows for each run of them.
func (e *Engine) Accept(handle uint16, held []chunk.Block) error {
	in := e.ins.get(handle)
	if in == nil || in.answered {
		return ErrHandle
	}
	if len(held) == 0 {
		e.accept(in, &wire.Accept{})
	}
	for i := 0; i < len(held); {
		f := &wire.Accept{Held: uint32(len(held)), First: uint32(held[i].Index), DigestLength: uint8(held[i].Digest.Len())}
		for j := i; i < len(held) && held[i].Index-held[j].Index == int64(i-j) &&
			held[i].Digest.Len() == int(f.DigestLength); i++ {
			f.Digests = held[i].Digest.Append(f.Digests)
		}
		in.held = append(in.held, heldRun{f.First, f.Count()})
		e.accept(in, f)
	}
	return nil
}

func (e *Engine) accept(in *incoming, f *wire.Accept) {
	f.Handle, f.Attempt = in.handle, in.attempt
	in.open++
	e.controls.add(&control{frame: f, in: in})
}

// Consumed gives credit back: so many bytes, of so many Received events, wait no longer for
// this side's disk or program. It reports whether Poll has to tell the peer.
func (e *Engine) Consumed(bytes, events int) (tell bool) {
	e.window.consumed(int64(bytes), events)
	if !e.cfg.Ordered {
		e.window.grow(e.now, e.rtt.min, int64(bytes))
	}
	if e.window.reopened() && !e.ending.over() {
		e.acks.now = true
		return true
	}
	return false
}

// SetWindow changes how much this side takes, at first Local's, for a pool shared by
// sessions. Less than what is on its way takes effect as that arrives. Of more than
// FirstWindow a part is given only as a long path needs it.
func (e *Engine) SetWindow(bytes, messages int) {
	c := &e.window
	c.setMax(bytes, messages)
	if e.recovery != nil { // what is on its way may be dropped
		c.most = max(c.maxBytes, earlyBytes)
	}
	if !e.cfg.Ordered && c.growth.limit < c.allowed {
		e.ping = true // a fresh round trip shows whether the path is long
	}
	if e.window.reopened() && !e.ending.over() {
		e.acks.now = true
	}
}

// Receipt confirms a transfer; r.Handle, r.Attempt and r.ID are filled in, and r stays the engine's.
func (e *Engine) Receipt(handle uint16, r *wire.Receipt) error {
	in := e.ins.get(handle)
	if in == nil || in.answered {
		return ErrHandle
	}
	r.Handle, r.Attempt, r.ID = handle, in.attempt, in.id
	e.answer(in, r)
	return nil
}

// Reject refuses a transfer; r.Handle, r.Attempt and r.ID are filled in, its text is cut to what
// fits, and r stays the engine's.
func (e *Engine) Reject(handle uint16, r *wire.Reject) error {
	in := e.ins.get(handle)
	if in == nil || in.answered {
		return ErrHandle
	}
	r.Handle, r.Attempt, r.ID = handle, in.attempt, in.id
	r.Text = wire.CutText(r.Text, wire.MaxText)
	e.answer(in, r)
	return nil
}
