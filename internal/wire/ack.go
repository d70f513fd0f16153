package wire

import (
	"encoding/binary"
	"iter"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/framing"
)

const (
	// MaxAckRanges is the most ranges in one ACK.
	MaxAckRanges = 256
	// NoMessageLimit as Ack.Messages or Hello.Messages: only bytes are limited.
	NoMessageLimit = 1<<16 - 1

	ackFixed   = FrameHeader + 4 + 2 + 4 + 2 + 1
	maxAckSpan = 1 << 31 // numbers, lest truncated ones become ambiguous
)

// Ack says which messages arrived, and how much may be in flight.
//
//	 3 ... 6   7 ... 8  9 ... 12  13 ... 14  15
//	+---------+--------+---------+----------+------+--------+------------------+
//	| largest | delay  | window  | messages | more | length | more times:      |
//	|         | (8 us) | (bytes) |          |      |        | gap, length      |
//	+---------+--------+---------+----------+------+--------+------------------+
//
// Lengths and gaps are varints (LEB128), counts of packet numbers and at least
// 1: length numbers up to largest arrived, then gap numbers below are not
// reported, then length numbers arrived, and so on downwards.
type Ack struct {
	Largest  uint32 // low 32 bits: see ExpandNumber
	Delay    uint16 // since largest arrived, in units of 8 us; saturates
	Window   uint32 // bytes of DATA payload that may be in flight after this ACK
	Messages uint16 // messages with DATA that may be in flight

	count  int
	ranges []byte
}

// Append appends an ACK of the packet numbers received, of which it reports the
// highest ranges, at most maxRanges of them and what fits room bytes. Largest is
// taken from the set. If the set is empty or there is no room for one range it
// returns b as it is.
func (f *Ack) Append(b []byte, received *chunk.Ranges, maxRanges, room int) []byte {
	n := min(received.Count(), maxRanges, MaxAckRanges)
	if n < 1 || room < ackFixed+binary.MaxVarintLen32 {
		return b
	}
	end := len(b) + room
	start := len(b)
	i := received.Count() - 1
	top := received.At(i)
	b = appendFrame(b, TypeAck, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(top.End-1))
	b = binary.LittleEndian.AppendUint16(b, f.Delay)
	b = binary.LittleEndian.AppendUint32(b, f.Window)
	b = binary.LittleEndian.AppendUint16(b, f.Messages)
	b = append(b, 0)
	b = binary.AppendUvarint(b, uint64(top.Len()))
	more, below := 0, top.Start
	for ; more+1 < n && end-len(b) >= 2*binary.MaxVarintLen32; more++ {
		i--
		r := received.At(i)
		if top.End-r.Start > maxAckSpan {
			break
		}
		b = binary.AppendUvarint(b, uint64(below-r.End))
		b = binary.AppendUvarint(b, uint64(r.Len()))
		below = r.Start
	}
	b[start+ackFixed-1] = byte(more)
	binary.LittleEndian.PutUint16(b[start+1:], uint16(len(b)-start-FrameHeader))
	return b
}

// Parse reads the body of a frame and checks all its ranges.
func (f *Ack) Parse(body []byte) error {
	c := framing.NewCursor(body)
	f.Largest = c.Uint32()
	f.Delay = c.Uint16()
	f.Window = c.Uint32()
	f.Messages = c.Uint16()
	f.count = int(c.Uint8()) + 1
	f.ranges = body[len(body)-c.Len():]
	left := int64(maxAckSpan)
	for i := range 2*f.count - 1 {
		n := c.Uvarint()
		if c.Err() != nil {
			break
		}
		if n == 0 || n > uint64(left) {
			return malformed(TypeAck, "range or gap number %d is empty or longer than 2^31", i)
		}
		left -= int64(n)
	}
	return finish(&c, TypeAck)
}

// Count returns the number of ranges of a parsed frame.
func (f *Ack) Count() int { return f.count }

// Ranges yields the ranges of a parsed frame from the highest to the lowest.
// largest is Largest expanded. With a lying peer, Start may be negative.
func (f *Ack) Ranges(largest int64) iter.Seq[chunk.Range] {
	return func(yield func(chunk.Range) bool) {
		b, end := f.ranges, largest+1
		for i := range f.count {
			if i > 0 {
				gap, n := binary.Uvarint(b)
				b = b[n:]
				end -= int64(gap)
			}
			length, n := binary.Uvarint(b)
			b = b[n:]
			if !yield(chunk.Range{Start: end - int64(length), End: end}) {
				return
			}
			end -= int64(length)
		}
	}
}
