package wire

import (
	"encoding/binary"

	"github.com/pixferry/pixferry/framing"
)

// Reset says that its sender knows no such session. It travels in a message of
// VersionNone and echoes the message that it answers.
//
//	 3 ... 10  11 ... 14       15 ... 30
//	+---------+---------------+----------+
//	| dest    | packet number | token    |
//	+---------+---------------+----------+
type Reset struct {
	Dest   ConnID
	Number uint32
	Token  [16]byte // of the HELLO if it is still known, else zero
}

const resetFixed = 8 + 4 + 16

// Len returns the length of the frame in bytes.
func (f *Reset) Len() int { return FrameHeader + resetFixed }

// Append appends the frame to b.
func (f *Reset) Append(b []byte) []byte {
	b = appendFrame(b, TypeReset, resetFixed)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.Dest))
	b = binary.LittleEndian.AppendUint32(b, f.Number)
	return append(b, f.Token[:]...)
}

// Parse reads the body of a frame.
func (f *Reset) Parse(body []byte) error {
	c := framing.NewCursor(body)
	f.Dest = ConnID(c.Uint64())
	f.Number = c.Uint32()
	copy(f.Token[:], c.Bytes(len(f.Token)))
	return finish(&c, TypeReset)
}

// Versions refuses a version. It travels in a message of VersionNone to the
// source of the refused one.
//
//	 3 ...
//	+--------------------------+
//	| versions spoken, 1 each  |
//	+--------------------------+
type Versions struct {
	Spoken []byte // at least one
}

// Len returns the length of the frame in bytes.
func (f *Versions) Len() int { return FrameHeader + len(f.Spoken) }

// Append appends the frame to b.
func (f *Versions) Append(b []byte) []byte {
	return append(appendFrame(b, TypeVersions, len(f.Spoken)), f.Spoken...)
}

// Parse reads the body of a frame.
func (f *Versions) Parse(body []byte) error {
	if len(body) == 0 {
		return &Error{CodeTruncated, TypeVersions, "no version"}
	}
	f.Spoken = body
	return nil
}

// Path is a PATH_CHALLENGE, or a PATH_RESPONSE that repeats the data of one.
//
//	 3 ... 10
//	+---------+
//	| data    |
//	+---------+
type Path struct {
	Response bool
	Data     uint64 // random
}

func (f *Path) kind() Type {
	if f.Response {
		return TypePathResponse
	}
	return TypePathChallenge
}

// Len returns the length of the frame in bytes.
func (f *Path) Len() int { return FrameHeader + 8 }

// Append appends the frame to b.
func (f *Path) Append(b []byte) []byte {
	return binary.LittleEndian.AppendUint64(appendFrame(b, f.kind(), 8), f.Data)
}

// Parse reads the body of a frame; Response is the caller's to set.
func (f *Path) Parse(body []byte) error {
	c := framing.NewCursor(body)
	f.Data = c.Uint64()
	return finish(&c, f.kind())
}
