package wire

import (
	"encoding/binary"

	"github.com/pixferry/pixferry/framing"
)

const (
	acceptFixed = 2 + 4 + 4 + 4 + 1
	resumeFixed = 2 + 4 + 4 + 2
	maxDigest   = 32
	maxBlock    = 1 << 28 // of 1 MiB each, in MaxSize
)

// Accept answers an OFFER with the flag OfferResume: what the receiver holds
// already. One frame has a run of blocks; all frames of an answer have the same
// Held, the number of blocks in all of them.
//
//	 3 ... 4  5 ... 8   9 ... 12  13 ... 16  17
//	+--------+---------+---------+----------+---------------+---------------------+
//	| handle | attempt | held    | first    | digest length | digests of the run  |
//	+--------+---------+---------+----------+---------------+---------------------+
type Accept struct {
	Handle       uint16
	Attempt      uint32
	Held         uint32 // blocks in all frames of this answer
	First        uint32 // index of this frame's first block
	DigestLength uint8  // bytes, 1 to 32; 0 without digests
	Digests      []byte // of consecutive blocks
}

// AcceptHeader is the size in bytes of an ACCEPT frame without digests.
const AcceptHeader = FrameHeader + acceptFixed

// Len returns the length of the frame in bytes.
func (f *Accept) Len() int { return AcceptHeader + len(f.Digests) }

// Count returns the number of blocks in this frame.
func (f *Accept) Count() int {
	if f.DigestLength == 0 {
		return 0
	}
	return len(f.Digests) / int(f.DigestLength)
}

// Append appends the frame to b.
func (f *Accept) Append(b []byte) []byte {
	b = appendFrame(b, TypeAccept, acceptFixed+len(f.Digests))
	b = binary.LittleEndian.AppendUint16(b, f.Handle)
	b = binary.LittleEndian.AppendUint32(b, f.Attempt)
	b = binary.LittleEndian.AppendUint32(b, f.Held)
	b = binary.LittleEndian.AppendUint32(b, f.First)
	b = append(b, f.DigestLength)
	return append(b, f.Digests...)
}

// Parse reads the body of a frame.
func (f *Accept) Parse(body []byte) error {
	c := framing.NewCursor(body)
	f.Handle = c.Uint16()
	f.Attempt = c.Uint32()
	f.Held = c.Uint32()
	f.First = c.Uint32()
	f.DigestLength = c.Uint8()
	f.Digests = c.Rest()
	if c.Err() != nil {
		return finish(&c, TypeAccept)
	}
	n := f.Count()
	switch {
	case f.DigestLength > maxDigest || len(f.Digests) != n*int(f.DigestLength):
		return malformed(TypeAccept, "%d bytes are no digests of %d bytes", len(f.Digests), f.DigestLength)
	case (n == 0) != (f.Held == 0) || uint64(n) > uint64(f.Held):
		return malformed(TypeAccept, "%d of %d held blocks", n, f.Held)
	case uint64(f.First)+uint64(n) > maxBlock:
		return malformed(TypeAccept, "blocks beyond the largest size, 2^48-1")
	}
	return nil
}

// Resume answers one ACCEPT frame with digests: which of its blocks agree with
// the sender's content. Those count as received, the others are forgotten.
//
//	 3 ... 4  5 ... 8   9 ... 12  13 ... 14
//	+--------+---------+---------+-----------+--------------------------------+
//	| handle | attempt | first   | count     | bits, the lowest of each byte  |
//	|        |         |         |           | first; those over count zero   |
//	+--------+---------+---------+-----------+--------------------------------+
type Resume struct {
	Handle  uint16
	Attempt uint32
	First   uint32
	Count   uint16
	Agree   []byte // (Count+7)/8 bytes
}

// Len returns the length of the frame in bytes.
func (f *Resume) Len() int { return FrameHeader + resumeFixed + len(f.Agree) }

// Agrees reports whether the block First+i agrees, i being below Count.
func (f *Resume) Agrees(i int) bool { return f.Agree[i/8]>>(i%8)&1 != 0 }

// Append appends the frame to b.
func (f *Resume) Append(b []byte) []byte {
	b = appendFrame(b, TypeResume, resumeFixed+len(f.Agree))
	b = binary.LittleEndian.AppendUint16(b, f.Handle)
	b = binary.LittleEndian.AppendUint32(b, f.Attempt)
	b = binary.LittleEndian.AppendUint32(b, f.First)
	b = binary.LittleEndian.AppendUint16(b, f.Count)
	return append(b, f.Agree...)
}

// Parse reads the body of a frame.
func (f *Resume) Parse(body []byte) error {
	c := framing.NewCursor(body)
	f.Handle = c.Uint16()
	f.Attempt = c.Uint32()
	f.First = c.Uint32()
	f.Count = c.Uint16()
	f.Agree = c.Bytes((int(f.Count) + 7) / 8)
	if err := finish(&c, TypeResume); err != nil {
		return err
	}
	if unused := -int(f.Count) & 7; f.Count == 0 || f.Agree[len(f.Agree)-1]>>(8-unused) != 0 {
		return malformed(TypeResume, "no blocks, or bits for more than the count of %d", f.Count)
	}
	return nil
}
