package wire

import "encoding/binary"

const (
	// DataHeader is the size in bytes of a DATA frame without its payload.
	DataHeader = 1 + 2 + 6
	// MaxSize is the size of the largest image in bytes.
	MaxSize = 1<<48 - 1
)

// Data carries bytes of a transfer. It is the last frame of its message.
//
//	 0     1 ... 2  3 ... 8   9 ... end of the message
//	+-----+--------+---------+--------------------------+
//	| 0x01| handle | offset  | payload                  |
//	+-----+--------+---------+--------------------------+
type Data struct {
	Handle  uint16
	Offset  int64 // at most MaxSize
	Payload []byte
}

// Len returns the length of the frame in bytes.
func (f *Data) Len() int { return DataHeader + len(f.Payload) }

// Append appends the frame to b.
func (f *Data) Append(b []byte) []byte {
	b = append(b, byte(TypeData))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.Handle)|uint64(f.Offset)<<16)
	return append(b, f.Payload...)
}

// Parse reads the body of a frame.
func (f *Data) Parse(body []byte) error {
	if len(body) < DataHeader-1 {
		return &Error{CodeTruncated, TypeData, "the message ends inside the frame's header"}
	}
	v := binary.LittleEndian.Uint64(body)
	f.Handle, f.Offset, f.Payload = uint16(v), int64(v>>16), body[DataHeader-1:]
	if f.Offset+int64(len(f.Payload)) > MaxSize {
		return malformed(TypeData, "it ends beyond the largest size, 2^48-1")
	}
	return nil
}
