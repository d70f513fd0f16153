package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/arq/cc"
	"github.com/pixferry/pixferry/internal/arq/sim"
	"github.com/pixferry/pixferry/internal/wire"
)

// modelMessage is the size of a flow's full messages.
const modelMessage = maxDatagram

// A flow is two engines on simulated links, without goroutines or sockets: the engine by itself,
// with any congestion control, over a link that flows may share.
type flow struct {
	clock    *sim.Clock
	rand     *rand.Rand
	ends     [2]*flowEnd // sender, receiver
	sending  []flowImage
	received int64         // bytes
	images   uint32        // counts
	spent    time.Duration // real time in the engines, without the simulation around them
}

// modelBytes are what flows send, again and again.
var modelBytes = make([]byte, 64<<10)

// flowImage is one on its way.
type flowImage struct {
	handle         uint16
	size, supplied int64
	done           func()
}

// flowEnd is one engine, its timer and its link to the other one.
type flowEnd struct {
	*arq.Engine
	flow  *flow
	link  *sim.Link // to peer
	peer  *flowEnd
	timer *sim.Timer
	event func(arq.Event)
	begin func(first []byte) // makes the engine of the receiver
	*medium
}

// medium is what ends write from and read into. They may share one, as sessions do their socket.
type medium struct {
	msgs [][]byte // to be written
	free [][]byte // memory of such
	read []byte   // what arrives, as a socket copies it to where the last one was
	idle []*passage
}

// passage is a message on its way. It makes no garbage: collecting that would cost the more, the more
// engines there are, and part of it would count as theirs.
type passage struct {
	to    *flowEnd
	msg   []byte
	timer *sim.Timer
}

// carry sends a copy of a message.
func (m *medium) carry(to *flowEnd, msg []byte, at time.Time) {
	var d *passage
	if last := len(m.idle) - 1; last >= 0 {
		d, m.idle = m.idle[last], m.idle[:last]
	} else {
		d = new(passage)
		d.timer = sim.NewTimer(func() {
			m.read = append(m.read[:0], d.msg...)
			m.idle = append(m.idle, d)
			d.to.arrive(m.read)
		})
	}
	d.to, d.msg = to, append(d.msg[:0], msg...)
	to.flow.clock.Set(d.timer, at)
}

func (m *medium) buffer() []byte {
	last := len(m.free) - 1
	if last < 0 {
		return make([]byte, modelMessage)
	}
	b := m.free[last]
	m.free = m.free[:last]
	return b[:modelMessage]
}

func (m *medium) release(msg []byte) { m.free = append(m.free, msg) }

// newFlow joins two engines. The sender has control, nil for what pixferry uses.
func newFlow(clock *sim.Clock, r *rand.Rand, there, back *sim.Link, control cc.Controller) *flow {
	f := &flow{clock: clock, rand: r}
	m := new(medium)
	a, b := &flowEnd{flow: f, link: there, medium: m}, &flowEnd{flow: f, link: back, medium: m}
	a.peer, b.peer = b, a
	a.timer, b.timer = sim.NewTimer(a.late), sim.NewTimer(b.late)
	f.ends = [2]*flowEnd{a, b}
	cfg := arq.Config{
		Initiator: true, MaxMessage: modelMessage, PadHello: wire.InitialMessage, Controller: control,
		LocalCID: f.cid(), RemoteCID: f.cid(), Idle: time.Hour,
		Local: wire.Hello{
			MaxMessage: modelMessage, Window: 64 << 20, Messages: wire.NoMessageLimit, AckRanges: 256, Transfers: 64, Metadata: 1 << 10,
			MessageBytes: 1 << 10, Reorder: 1<<32 - 1, IdleMillis: 3_600_000, Instance: 1,
		},
	}
	a.Engine, a.event = arq.New(cfg, clock.Now()), f.sender
	b.event = f.receiver
	b.begin = func(first []byte) {
		h, _, err := wire.Parse(first)
		if err != nil {
			return
		}
		c := cfg
		c.Initiator, c.Controller, c.LocalCID, c.RemoteCID, c.FirstCID, c.Unproven = false, nil, f.cid(), h.Source, h.Dest, true
		b.Engine = arq.New(c, clock.Now())
	}
	return f
}

func (f *flow) cid() wire.ConnID { return wire.ConnID(f.rand.Uint64() | 1) }

// send offers an image and has done called at its receipt.
func (f *flow) send(size int64, done func()) {
	f.images++
	id := [16]byte{1}
	binary.BigEndian.PutUint32(id[12:], f.images)
	offer := &wire.Offer{ID: id, Size: size, Algorithm: chunk.SHA256.ID}
	f.sending = append(f.sending, flowImage{size: size, done: done})
	img, a := &f.sending[len(f.sending)-1], f.ends[0]
	now, began := a.flow.clock.Now(), time.Now() // the flow is in the caches now; the engine is not
	var err error
	if img.handle, err = a.Offer(offer); err != nil {
		panic(err)
	}
	a.pump(now, began)
}

func (f *flow) sender(ev arq.Event) {
	a := f.ends[0]
	i := slices.IndexFunc(f.sending, func(img flowImage) bool { return img.handle == ev.Handle })
	switch ev.Kind {
	case arq.Wanted:
		img := &f.sending[i]
		for a.Want(ev.Handle) > 0 && img.supplied < img.size {
			p := modelBytes[:min(img.size-img.supplied, int64(len(modelBytes)))]
			must(a.Supply(ev.Handle, img.supplied, p))
			img.supplied += int64(len(p))
		}
		if img.supplied == img.size {
			a.Finish(ev.Handle, img.size, modelDigest)
		}
	case arq.Receipted:
		done := f.sending[i].done
		f.sending = slices.Delete(f.sending, i, i+1)
		done()
	case arq.Closed, arq.Rejected:
		panic(fmt.Sprintf("the flow has ended: %v %+v", ev.Err, ev.Reject))
	}
}

func (f *flow) receiver(ev arq.Event) {
	b := f.ends[1]
	switch ev.Kind {
	case arq.Received:
		f.received += int64(len(ev.Data))
		b.Consumed(len(ev.Data), 1)
	case arq.Finished:
		must(b.Receipt(ev.Handle, &wire.Receipt{Level: wire.LevelKept, Bytes: ev.Fin.Size, Algorithm: ev.Fin.Algorithm, Digest: ev.Fin.Digest}))
	case arq.Closed:
		panic(fmt.Sprintf("the flow has ended: %v", ev.Err))
	}
}

func must(err error) {
	if err != nil {
		panic(err) // the engine is used wrongly here
	}
}

// modelDigest stands for a digest, which engines only carry.
var modelDigest, _ = chunk.NewDigest(chunk.SHA256.ID, make([]byte, sha256.Size))

// longestStep is what a step of an engine may take: in a longer one another program had the processor.
const longestStep = 100 * time.Microsecond

func (f *flow) spend(began time.Time) { f.spent += min(time.Since(began), longestStep) }

// pump ends a step that began then: it hands events out, sends what there is, and sets the timer.
func (e *flowEnd) pump(now, began time.Time) {
	for e.drain(); ; e.drain() {
		msg := e.buffer()
		n := e.Poll(now, msg)
		if n == 0 {
			e.release(msg)
			break
		}
		e.msgs = append(e.msgs, msg[:n])
	}
	at := e.Deadline()
	e.flow.spend(began)
	for _, msg := range e.msgs {
		e.write(msg)
	}
	e.msgs = e.msgs[:0]
	e.timer.Stop()
	if !at.IsZero() {
		e.flow.clock.Set(e.timer, at)
	}
}

func (e *flowEnd) late() {
	now, began := e.flow.clock.Now(), time.Now()
	e.Advance(now)
	e.pump(now, began)
}

func (e *flowEnd) drain() {
	for ev := e.NextEvent(); ev != nil; ev = e.NextEvent() {
		e.event(*ev)
	}
}

func (e *flowEnd) write(msg []byte) {
	var arrivals [2]sim.Delivery
	for _, d := range e.link.Transmit(e.flow.clock.Now(), len(msg), arrivals[:0]) {
		e.carry(e.peer, msg, d.At)
	}
	e.release(msg)
}

func (e *flowEnd) arrive(msg []byte) {
	if e.Engine == nil {
		if e.begin(msg); e.Engine == nil {
			return
		}
	}
	now, began := e.flow.clock.Now(), time.Now()
	_ = e.Receive(now, msg) // what it cannot use it drops
	e.pump(now, began)
}
