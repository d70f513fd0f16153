package arq

import (
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

const (
	ackRoom     = 64 // bytes for a few ranges
	leastData   = 32 // bytes of payload worth a DATA frame beside others
	leastApart  = 8 << 10
	leastProof  = wire.ShortHeader + wire.FrameHeader + 8 + wire.Trailer // a message with PATH_CHALLENGE
	pruneRanges = 8                                                      // an ACK with more ranges asks now and then for an acknowledgement of its own
	pruneEvery  = 16
)

// Apart is a message without its checksum, whose payload may lie elsewhere.
type Apart struct {
	Head    []byte // in PollApart's buffer; empty: there is no message
	Payload []byte // behind Head; nil: Head has all
	Covered int    // bytes of both, from the first on, that the checksum is of
	Handle  uint16 // of the transfer, if there is a Payload
}

// PollApart is Poll for a link that can write a message from several places, which spares a copy
// of the payload: a large one stays in what Supply was given for the transfer, which an event that
// is not drained yet may release. The checksum is the caller's to append.
func (e *Engine) PollApart(now time.Time, buf []byte) (m Apart) {
	e.step(now)
	e.settle()
	b := builder{e: e, apart: true}
	n := e.build(&b, buf)
	if n == 0 {
		return m
	}
	m.Head, m.Payload, m.Covered = b.buf, b.payload, b.covered()
	if b.payload != nil {
		m.Handle = b.message.from.handle
	}
	return m
}

// poll builds the next message in buf.
func (e *Engine) poll(buf []byte) int { return e.build(&builder{e: e}, buf) }

func (e *Engine) build(b *builder, buf []byte) int {
	if e.ending.over() {
		return e.pollClose(b, buf)
	}
	limit := e.room(len(buf))
	may := limit > 0 && (e.recovery == nil || e.recovery.may(e.now, e.size.current))
	if !may && !e.acks.now || limit == 0 {
		return 0
	}
	b.number, b.limit, b.buf = e.sent.next, limit-wire.Trailer, e.header().Append(buf[:0])
	b.start = len(b.buf)
	b.message = e.sent.push()
	*b.message = sentMessage{at: e.now, state: outstanding, ackLargest: -1, facts: b.message.facts}
	if h := e.handshake.hello; may && h != nil && (e.acks.now || h.due()) {
		b.introduce(ackRoom)
	}
	if may && e.challenging() { // first, as there may be room for nothing else
		b.control(e.path.challenge)
	}
	b.ack()
	if may {
		b.controls()
		if !b.probe() {
			b.data(len(buf))
		}
		b.extra()
	}
	if len(b.buf) == b.start {
		e.sent.next--
		e.acks.now = false
		if may && e.recovery != nil {
			e.recovery.starved()
		}
		return 0
	}
	return b.finish()
}

// room returns how large the next message may be, 0 if the peer's address is unproven
// and has had three times what it sent.
func (e *Engine) room(n int) int {
	n = min(n, e.size.current)
	if left, limited := e.allowance(); limited {
		if left < wire.MinMessage && (left < leastProof || !e.challenging()) {
			return 0
		}
		n = int(min(int64(n), left))
	}
	return n
}

func (e *Engine) header() *wire.Header {
	return &wire.Header{Long: e.handshake.long, Dest: e.handshake.dest, Number: uint32(e.sent.next),
		Version: wire.Version1, Source: e.cfg.LocalCID}
}

// pollClose builds the message that ends the session.
func (e *Engine) pollClose(b *builder, buf []byte) int {
	n := &e.ending
	if !n.due || e.room(len(buf)) == 0 {
		return 0
	}
	n.due = n.copies > 0
	n.copies = max(n.copies-1, 0)
	b.buf = n.frame.Append(e.header().Append(buf[:0]))
	e.sent.clear(e.sent.next + 1)
	return b.seal()
}

// builder puts one message together.
type builder struct {
	e         *Engine
	buf       []byte
	start     int // of the frames
	limit     int // of buf, leaving room for the trailer
	number    int64
	message   *sentMessage
	eliciting bool

	apart   bool   // a large payload stays where it is, and the caller seals
	payload []byte // which follows buf
}

func (b *builder) left() int { return b.limit - len(b.buf) - len(b.payload) }

// covered returns how much of the message the checksum is of.
func (b *builder) covered() int {
	n := len(b.buf) + len(b.payload)
	if m := b.message; b.e.recovery == nil && m != nil && m.from != nil {
		n -= int(m.length)
	}
	return n
}

// seal returns the length of buf with the checksum, which the caller appends if it takes payloads apart.
func (b *builder) seal() int {
	if !b.apart {
		b.buf = wire.SealReliable(b.buf, len(b.buf)-b.covered())
	}
	return len(b.buf)
}

// ack adds an ACK if one is due, or if there is news and a message to take it along: one with control
// frames, or on a reliable link, where it is short, any.
func (b *builder) ack() {
	a := &b.e.acks
	if !a.now && a.pending > 0 {
		a.now = b.e.controls.wanting() || b.e.recovery == nil && b.e.schedule.next() != nil
	}
	if !a.now || a.largest < 0 {
		return
	}
	ranges := wire.MaxAckRanges
	if b.e.handshake.known {
		ranges = int(b.e.handshake.peer.AckRanges)
	}
	f := wire.Ack{Delay: uint16(min((b.e.now-a.largestAt)/ackDelayUnit, mostAckDelay))}
	f.Window, f.Messages = b.e.window.tell()
	before := len(b.buf)
	b.buf = f.Append(b.buf, &a.got, ranges, b.left())
	if len(b.buf) > before {
		b.message.ackLargest = a.largest
		a.sent(b.e.now, b.e.rtt.estimate())
	}
}

// controls adds the control frames that are due, as far as they fit.
func (b *builder) controls() {
	q := &b.e.controls
	for q.wanting() {
		c := q.next()
		if room := b.e.frameRoom(); c.frame.Len() > room && b.e.cut(room) {
			continue
		}
		b.introduce(c.frame.Len())
		if c.frame.Len() > b.left() {
			return
		}
		q.pop()
		b.control(c)
	}
}

// introduce puts HELLO in front of what is about to be added, so many bytes. On a link that loses it
// is repeated until the peer is known to have it: without it the rest of the message is of no use.
func (b *builder) introduce(coming int) {
	c := b.e.handshake.hello
	if c == nil || b.eliciting || c.frame.Len()+coming > b.left() {
		return
	}
	if c.due() || c.fact >= 0 && b.e.handshake.long && b.e.recovery != nil {
		b.control(c)
	}
}

func (b *builder) control(c *control) {
	b.buf = c.frame.Append(b.buf)
	c.sent(b.number)
	b.message.facts = append(b.message.facts, c)
	b.eliciting = true
	if e := b.e; c.twice && e.recovery != nil {
		c.twice = false
		e.controls.later(c, e.now+max(e.rtt.estimate()/4, granularity))
	}
}

// data fills the message with the data of the transfer whose turn it is.
func (b *builder) data(room int) {
	e := b.e
	o := e.schedule.next()
	if o == nil || e.controls.wanting() { // an offer goes before its data
		return
	}
	if len(o.parity) > 0 && o.unsent == 0 && o.lost.Count() == 0 {
		b.parity(o)
		return
	}
	r, again := o.slice(int64(max(b.left()-wire.DataHeader, 1)))
	if !e.credit.allows(r.Len()) {
		e.shut()
		return
	}
	if again { // maybe for want of the offer
		o.copies = max(o.copies, 1)
	}
	b.introduce(wire.DataHeader + leastData)
	e.repeat(b, o)
	probe := e.probeSize(o, room)
	if probe > 0 {
		b.limit = probe - wire.Trailer
	}
	space := b.left() - wire.DataHeader
	if space < leastData && b.eliciting || space < 1 {
		return
	}
	r, again = o.slice(int64(space))
	n := min(r.Len(), e.credit.left())
	if b.apart && probe == 0 { // which is to have its full size
		b.payload = o.pieces.at(r.Start, int(n))
		if rest := int64(len(b.payload)); rest >= leastApart {
			n = rest
		} else { // the rest of a piece, with so little of the next one that most of that need not be copied
			b.payload, n = nil, min(n, rest+leastApart)
		}
	}
	r.End = r.Start + n
	b.addData(o, r, again)
	b.message.probe = len(b.buf)+len(b.payload)+wire.Trailer > e.size.current
	o.sent(r, again)
	if e.recovery == nil {
		var done scratch
		e.release(o, o.pieces.sent(o.next, done[:0]))
	}
	e.schedule.sent(o, int(n))
	e.wanted(o)
}

// addData adds a DATA frame with bytes of a transfer. If payload is set these are there already.
func (b *builder) addData(o *outgoing, r chunk.Range, again bool) {
	n := r.Len()
	b.pad(wire.DataHeader + int(n))
	f := wire.Data{Handle: o.number, Offset: r.Start}
	b.buf = f.Append(b.buf)
	if b.payload == nil {
		b.buf = o.pieces.copyTo(b.buf, r.Start, int(n))
	}
	b.eliciting = true
	m := b.message
	m.from, m.offset, m.length = o, r.Start, int32(n)
	b.e.credit.sent(n)
	if again {
		o.resent += n
		b.e.stats.ResentBytes += n
	}
}

// repeat adds an offer that the peer may not have to the first messages of data, and a FIN to the
// last: without them the data is of no use.
func (e *Engine) repeat(b *builder, o *outgoing) {
	if o.copies > 0 {
		o.copies--
		if c := o.controls[0]; c.fact >= 0 && c.fact < fact(b.number) && c.frame.Len() < b.left()/2 {
			b.control(c)
		}
	}
	if c := &o.usual.end; e.recovery != nil && c.frame != nil && c.fact >= 0 && c.fact < fact(b.number) &&
		o.size-o.next < int64(finCopies*e.size.current) && c.frame.Len() < b.left()/2 {
		b.control(c)
	}
}

// probeSize returns the size of a probe to be sent now, 0 for none.
func (e *Engine) probeSize(o *outgoing, room int) int {
	if _, limited := e.allowance(); limited || e.recovery == nil || e.handshake.long || e.recovery.timeouts > 0 {
		return 0
	}
	if size := e.size.probe(e.now); size <= room && o.lost.Count() == 0 && min(o.unsent, e.credit.left()) >= int64(size) {
		return size
	}
	return 0
}

// shut notes that the peer's window is shut. If nothing is outstanding, no acknowledgement
// will open it, and it is asked for after a while.
func (e *Engine) shut() {
	p := &e.persist
	if e.recovery == nil || p.at > 0 || e.ping || e.sent.firstOutstanding() < e.sent.next-1 {
		return
	}
	if p.interval == 0 {
		p.interval = e.rtt.probeTimeout()
	}
	p.at = e.now + p.interval
}

// extra adds what else a message is sent for: a probe of the probe timer, a PING.
func (b *builder) extra() {
	e := b.e
	if r := e.recovery; r != nil && r.probes > 0 && !b.eliciting {
		e.ping = true
	}
	if e.acks.unasked >= pruneEvery && b.message.ackLargest >= 0 {
		e.ping = true
	}
	if e.ping {
		b.introduce(0)
	}
	if e.ping && !b.eliciting && b.left() >= wire.FrameHeader {
		b.buf = wire.AppendPing(b.buf)
		b.eliciting = true
	}
	if b.eliciting {
		e.ping = false
	}
	b.pad(0)
}

// probe fills a message that the probe timer has asked for with the oldest bytes that are outstanding, and stay so:
// whoever takes nothing ahead of a gap acknowledges nothing else. The timer has queued the control frames of all
// messages.
func (b *builder) probe() bool {
	e := b.e
	if r := e.recovery; r == nil || r.probes == 0 || r.ordered {
		return false
	}
	o, g := e.sent.oldestGap()
	space := b.left() - wire.DataHeader
	if o == nil || space < 1 {
		return false
	}
	if o.symbol > 0 {
		space = min(space, o.symbol-int(g.Start%int64(o.symbol)))
	}
	g.End = min(g.End, g.Start+int64(space))
	b.addData(o, g, true)
	return true
}

// pad fills a message with an initiator's HELLO up to the configured length, with so many
// bytes still to come.
func (b *builder) pad(coming int) {
	h := b.e.handshake.hello
	if !b.e.cfg.Initiator || b.message.padded || h.fact != fact(b.number) {
		return
	}
	b.message.padded = true
	missing := b.e.cfg.PadHello - wire.Trailer - len(b.buf) - coming
	if missing = min(missing, b.left()-coming); missing >= wire.FrameHeader {
		b.buf = wire.AppendPadding(b.buf, missing)
	}
}

// finish seals the message and notes it as sent.
func (b *builder) finish() int {
	e, m := b.e, b.message
	m.size = int32(len(b.buf) + len(b.payload) + wire.Trailer)
	n := b.seal()
	e.stats.SentMessages++
	e.stats.SentBytes += int64(m.size)
	if m.probe {
		e.size.sent()
	}
	if !b.eliciting {
		m.state = resolved
		// Nobody acknowledges an ACK alone; now and then one asks for it, so that the next get shorter.
		if e.recovery != nil && e.acks.got.Count() > pruneRanges {
			e.acks.unasked++
		}
		return n
	}
	e.acks.unasked = 0
	if e.recovery != nil {
		e.recovery.sent(e.now, b.number, m)
	}
	return n
}
