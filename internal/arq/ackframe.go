package arq

import (
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

const (
	ackDelayUnit = 8 * time.Microsecond
	mostAckDelay = 1<<16 - 1 // units: half a second
)

// onAck handles an ACK in message number.
func (e *Engine) onAck(number int64, body []byte) error {
	var f wire.Ack
	if err := f.Parse(body); err != nil {
		return err
	}
	largest := wire.ExpandNumber(f.Largest, e.sent.next-1)
	if largest >= e.sent.next || largest < 0 {
		return &wire.Error{Code: wire.CodeState, Frame: wire.TypeAck, Text: "for a message that was never sent"}
	}
	e.credit.set(number, min(int64(f.Window), e.cfg.MostSent), f.Messages)
	b := &e.batch
	if b.packets == 0 {
		b.largest = -1
		if e.recovery != nil {
			b.prior = e.recovery.inFlight
		}
	}
	before := b.largest
	for r := range f.Ranges(largest) {
		b.lowest = r.Start
		for n := max(r.Start, e.sent.base); n < r.End; {
			n = e.acked(n, r.End)
		}
		if r.Start <= e.sent.base {
			break
		}
	}
	e.dataAcked(&b.run)
	if b.largest > before {
		b.newest = b.largest == largest && f.Delay < mostAckDelay // which says no more than "at least"
		b.delay = time.Duration(f.Delay) * ackDelayUnit
	}
	if e.credit.left() > 0 {
		e.persist = persist{}
	}
	return nil
}

// acked notes that the peer has received a message, if that is news, as it has all before end. It returns the
// next one that may be news: a peer may repeat itself.
func (e *Engine) acked(number, end int64) (next int64) {
	m := e.sent.at(number)
	b := &e.batch
	switch m.state {
	case resolved:
		next = max(m.done, number+1)
		m.done = max(m.done, end)
		return next
	case lost:
		e.stats.SpuriousLosses++
		e.recovery.spurious(e, number, m)
	case outstanding:
		b.acked += int64(m.size)
		b.packets++
		if number > b.largest {
			b.largest, b.at, b.flight = number, m.at, m.flight
		}
		if m.from != nil {
			e.credit.done(int64(m.length))
		}
		if e.recovery != nil {
			e.recovery.acked(e.now, m)
		}
	}
	m.state, m.done = resolved, end
	if m.ackLargest >= 0 {
		e.acks.confirmed(m.ackLargest)
	}
	e.size.arrived(int(m.size))
	if m.probe {
		e.size.acked(int(m.size))
		e.resized()
	}
	for _, c := range m.facts {
		e.controlAcked(c)
	}
	if o := m.from; o != nil {
		if r := &b.run; r.of != o || r.end != m.offset {
			e.dataAcked(r)
			*r = ackedRun{o, m.offset, m.offset}
		}
		b.run.end += int64(m.length)
	}
	m.forget()
	return number + 1
}

// ackedRun is bytes of a transfer in messages behind each other that were acknowledged together.
type ackedRun struct {
	of         *outgoing
	start, end int64
}

// dataAcked notes that the peer has the bytes of a run, once.
func (e *Engine) dataAcked(r *ackedRun) {
	o := r.of
	if o == nil {
		return
	}
	r.of = nil
	if o.over {
		return
	}
	var done scratch
	released, fresh := o.ack(r.start, r.end, done[:0])
	e.release(o, released)
	e.wanted(o)
	if fresh && !o.progress {
		o.progress = true
		e.events.push(Event{Kind: Progress, Handle: o.handle})
	}
}

// controlAcked notes that the peer has a control frame.
func (e *Engine) controlAcked(c *control) {
	if !c.open() {
		return
	}
	c.acked()
	if in := c.in; in != nil {
		in.open--
		e.retire(in)
	}
}

// settleAcks ends a batch that acknowledged something.
func (e *Engine) settleAcks(b *batch) {
	if b.newest && b.largest > e.sampled {
		e.sampled = b.largest
		e.rtt.sample(e.now-b.at, b.delay)
	}
	if e.recovery != nil {
		e.recovery.settle(e, b)
	}
	e.sent.trim(e.now - 2*e.rtt.estimate())
}
