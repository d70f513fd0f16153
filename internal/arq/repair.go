package arq

import (
	"bytes"
	"math"
	"math/bits"
	"sync"

	"github.com/pixferry/pixferry/internal/wire"
)

// Small images are repaired: with parity behind them they arrive whole in half a round trip though some
// messages are lost. Parity is sent only on links that have lost something of late.

// Coder is an erasure code over symbols of one length. It is safe for concurrent use.
type Coder interface {
	// Encode sets parity, which has its memory, to the parity of data.
	Encode(data, parity [][]byte) error
	// Repair sets the symbols of data that are nil. At most as many as that may be nil in parity.
	Repair(data, parity [][]byte) error
}

// maxRepaired is the largest image in bytes that is repaired, and the most parity of one.
const maxRepaired = 64<<10 - 1

// lossRate estimates which part of the messages is lost.
type lossRate struct{ lost, all int }

const lossMemory = 1024 // messages

func (l *lossRate) arrived() {
	if l.all++; l.all >= lossMemory {
		l.lost, l.all = l.lost/2, l.all/2
	}
}

func (l *lossRate) lose() {
	l.lost++
	l.all++
}

// parities returns how many symbols of parity protect n: for the mean and three standard deviations
// of what is lost, but at most for half of them.
func (l *lossRate) parities(n int) int {
	if l.lost <= 0 {
		return 0
	}
	p := min(float64(l.lost)/float64(l.all), 0.5)
	mean := float64(n) * p
	return min(int(math.Ceil(mean+3*math.Sqrt(mean*(1-p)))), n/2)
}

// ensure decides whether an image that begins gets parity, and cuts it into symbols, each of which fits a message
// beside what else is in it.
func (e *Engine) ensure(o *outgoing) {
	size, r := o.offer.Size, e.recovery
	if e.cfg.Coder == nil || r == nil || r.ordered || size < 0 || size > min(int64(e.handshake.peer.Repairs), maxRepaired) || o.copies == 0 {
		return
	}
	fin := wire.Fin{Digest: make([]byte, 32)}
	room := e.size.current - wire.ShortHeader - wire.Trailer - wire.ParityHeader - o.offer.Len() - fin.Len() - ackRoom/2
	if room < leastData {
		return
	}
	n := (int(size) + room - 1) / room
	if p := r.loss.parities(n); p > 0 && n+p <= wire.MaxSymbols {
		o.parities = p
		o.symbol = (int(size) + n - 1) / n
		o.copies = max(o.copies, o.parities+1) // parity is of no use without the offer either
	}
}

// encode makes the parity of an image that is complete.
func (e *Engine) encode(o *outgoing) {
	if o.symbol == 0 || o.size != o.offer.Size || o.acked.Count() > 0 {
		return
	}
	n := (int(o.size) + o.symbol - 1) / o.symbol
	stride := aligned(o.symbol)
	memory := make([]byte, (n+o.parities)*stride)
	symbols := make([][]byte, n+o.parities)
	for i := range symbols {
		symbols[i] = memory[i*stride:][:o.symbol:o.symbol]
		if start := i * o.symbol; i < n {
			o.pieces.copyTo(symbols[i][:0], int64(start), min(o.symbol, int(o.size)-start))
		}
	}
	if e.cfg.Coder.Encode(symbols[:n], symbols[n:]) == nil {
		o.parity = symbols[n:]
	}
}

// aligned returns how much memory a symbol has: coders read words of it, which have to begin at multiples of their size
// on processors such as MIPS and ARMv5.
func aligned(symbol int) int { return (symbol + 7) &^ 7 }

// parity adds the next symbol of parity, behind which the peer needs nothing else.
func (b *builder) parity(o *outgoing) {
	e := b.e
	e.repeat(b, o)
	f := wire.Parity{Handle: o.number, Size: uint32(o.size), Count: uint8(o.parities), Index: uint8(o.parities - len(o.parity)), Symbol: o.parity[0]}
	o.parity = o.parity[1:]
	if f.Len() <= b.left() {
		b.buf = f.Append(b.buf)
		b.eliciting = true
	}
	e.schedule.sent(o, f.Len())
}

// repairable is what is kept of a small image until it is complete.
type repairable struct {
	image  *copied
	symbol int      // length of the symbols of parity
	parity [][]byte // nil: not arrived
}

// copied is memory for an image, which receivers use in turn: nearly all images need no repair.
type copied struct{ bytes []byte }

const leastCopied = 12 // bits of the size of the smallest

var copies [maxCopied - leastCopied + 1]sync.Pool // by size, in powers of two

const maxCopied = 16 // bits of maxRepaired

// begin makes room for an image of size bytes.
func (q *repairable) begin(size int64) {
	n := max(bits.Len64(uint64(size)), leastCopied)
	if q.image, _ = copies[n-leastCopied].Get().(*copied); q.image == nil {
		q.image = &copied{make([]byte, 1<<n)}
	}
}

// end gives back the memory.
func (q *repairable) end() {
	if c := q.image; c != nil {
		copies[bits.Len(uint(len(c.bytes)))-1-leastCopied].Put(c)
	}
	*q = repairable{}
}

// keep keeps bytes for a repair.
func (e *Engine) keep(in *incoming, offset int64, p []byte) {
	if e.cfg.Local.Repairs == 0 || in.offer.Size < 0 || in.size > maxRepaired {
		return
	}
	if in.got.Covered() == in.size {
		in.repair.end()
		return
	}
	if in.repair.image == nil {
		in.repair.begin(in.size)
	}
	copy(in.repair.image.bytes[offset:], p)
	e.repair(in)
}

func (e *Engine) onParity(body []byte) error {
	if e.cfg.Local.Repairs == 0 {
		return &wire.Error{Code: wire.CodeUnknown, Frame: wire.TypeParity, Text: "the HELLO does not ask for it"}
	}
	var f wire.Parity
	if err := f.Parse(body); err != nil {
		return err
	}
	in, err := e.find(f.Handle)
	switch {
	case err != nil || in == nil || in.answered || in.finished:
		return err
	case !in.offered:
		return errEarly
	case in.got.Covered() == in.size:
		return nil
	case int64(f.Size) != in.offer.Size || in.size > maxRepaired || int(f.Count)*len(f.Symbol) > maxRepaired:
		return nil
	}
	q := &in.repair
	if q.parity == nil {
		q.parity, q.symbol = make([][]byte, f.Count), len(f.Symbol)
	}
	if len(q.parity) == int(f.Count) && q.symbol == len(f.Symbol) && q.parity[f.Index] == nil {
		q.parity[f.Index] = bytes.Clone(f.Symbol)
		e.repair(in)
		e.checkFinished(in)
	}
	return nil
}

// repair reports what is missing of an image if enough of it and of its parity is there.
func (e *Engine) repair(in *incoming) {
	q := &in.repair
	there := 0
	for _, p := range q.parity {
		if p != nil {
			there++
		}
	}
	if there == 0 || in.got.Covered() == in.size {
		return
	}
	n := (int(in.size) + q.symbol - 1) / q.symbol
	data := make([][]byte, n)
	for i := range data {
		if start, end := q.bounds(i, in.size); in.got.Contains(start, end) {
			data[i] = append(make([]byte, 0, aligned(q.symbol)), q.image.bytes[start:end]...)[:q.symbol]
		} else if there--; there < 0 {
			return
		}
	}
	if e.cfg.Coder.Repair(data, q.parity) != nil {
		return
	}
	for i, symbol := range data {
		start, end := q.bounds(i, in.size)
		if e.admit(in, start, int(end-start)) != nil {
			return
		}
		e.received(in, start, symbol[:end-start])
	}
}

// bounds returns which bytes of the image a symbol has.
func (q *repairable) bounds(i int, size int64) (start, end int64) {
	start = int64(i) * int64(q.symbol)
	return start, min(start+int64(q.symbol), size)
}
