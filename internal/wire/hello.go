package wire

import (
	"encoding/binary"

	"github.com/pixferry/pixferry/framing"
)

const helloFixed = 4 + 4 + 2 + 2 + 2 + 2 + 4 + 4 + 4 + 8 + 16

// Hello states what its sender can take. Both peers send it first, once.
//
//	 3 ... 6       7 ... 10  11 ... 12  13 ... 14    15 ... 16   17 ... 18
//	+-------------+---------+----------+------------+-----------+----------+
//	| max message | window  | messages | ack ranges | transfers | metadata |
//	+-------------+---------+----------+------------+-----------+----------+
//	 19 ... 22       23 ... 26  27 ... 30  31 ... 38  39 ... 54
//	+---------------+----------+----------+----------+-------------+----------+
//	| message bytes | reorder  | idle     | instance | reset token | fields   |
//	+---------------+----------+----------+----------+-------------+----------+
//
// Fields have the form of frames: type 1, length 2, value. Those from 0x80 on that are
// not known are skipped. Known is 0x80, repairs, 4 bytes.
type Hello struct {
	MaxMessage   uint32 // bytes, at least MinMessage
	Window       uint32 // bytes of DATA payload in flight before the first ACK
	Messages     uint16 // messages with DATA in flight before the first ACK
	AckRanges    uint16 // most ranges in an ACK, at least 1
	Transfers    uint16 // transfers at once; 0: takes none
	Metadata     uint16 // bytes of an offer's metadata
	MessageBytes uint32 // size of a transfer of KindMessage; 0: takes none
	Reorder      uint32 // bytes of a transfer ahead of its first gap; 0: in order only
	IdleMillis   uint32 // silence that ends the session; 0: none
	Instance     uint64 // random, of this run of the program
	ResetToken   [16]byte
	Repairs      uint32 // largest image in bytes that is repaired with PARITY; 0: none
}

const fieldRepairs = 0x80

// Len returns the length of the frame in bytes.
func (f *Hello) Len() int { return FrameHeader + helloFixed + f.fields() }

func (f *Hello) fields() int {
	if f.Repairs == 0 {
		return 0
	}
	return FrameHeader + 4
}

// Append appends the frame to b.
func (f *Hello) Append(b []byte) []byte {
	b = appendFrame(b, TypeHello, helloFixed+f.fields())
	b = binary.LittleEndian.AppendUint32(b, f.MaxMessage)
	b = binary.LittleEndian.AppendUint32(b, f.Window)
	b = binary.LittleEndian.AppendUint16(b, f.Messages)
	b = binary.LittleEndian.AppendUint16(b, f.AckRanges)
	b = binary.LittleEndian.AppendUint16(b, f.Transfers)
	b = binary.LittleEndian.AppendUint16(b, f.Metadata)
	b = binary.LittleEndian.AppendUint32(b, f.MessageBytes)
	b = binary.LittleEndian.AppendUint32(b, f.Reorder)
	b = binary.LittleEndian.AppendUint32(b, f.IdleMillis)
	b = binary.LittleEndian.AppendUint64(b, f.Instance)
	b = append(b, f.ResetToken[:]...)
	if f.Repairs > 0 {
		b = binary.LittleEndian.AppendUint32(appendFrame(b, fieldRepairs, 4), f.Repairs)
	}
	return b
}

// Parse reads the body of a frame.
func (f *Hello) Parse(body []byte) error {
	c := framing.NewCursor(body)
	f.MaxMessage = c.Uint32()
	f.Window = c.Uint32()
	f.Messages = c.Uint16()
	f.AckRanges = c.Uint16()
	f.Transfers = c.Uint16()
	f.Metadata = c.Uint16()
	f.MessageBytes = c.Uint32()
	f.Reorder = c.Uint32()
	f.IdleMillis = c.Uint32()
	f.Instance = c.Uint64()
	copy(f.ResetToken[:], c.Bytes(len(f.ResetToken)))
	f.Repairs = 0
	for c.Len() > 0 {
		field, value := nextField(&c)
		switch {
		case field < firstField:
			return &Error{CodeUnknown, TypeHello, "a field that version 1 does not have"}
		case field == fieldRepairs && len(value) == 4:
			f.Repairs = binary.LittleEndian.Uint32(value)
		case field == fieldRepairs && c.Err() == nil:
			return malformed(TypeHello, "repairs of %d bytes: 4", len(value))
		}
	}
	if err := finish(&c, TypeHello); err != nil {
		return err
	}
	if f.MaxMessage < MinMessage || f.AckRanges < 1 {
		return malformed(TypeHello, "messages of %d bytes and %d ranges: at least %d and 1", f.MaxMessage, f.AckRanges, MinMessage)
	}
	return nil
}
