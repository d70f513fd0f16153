package wire

import (
	"encoding/binary"

	"github.com/pixferry/pixferry/framing"
)

const (
	finFixed     = 2 + 4 + 8 + 1
	receiptFixed = 2 + 4 + 16 + 1 + 1 + 8 + 1
)

// Levels of a Receipt.
const (
	LevelReceived uint8 = 2 // all bytes arrived
	LevelKept     uint8 = 3 // verified, handled and stored
)

// ReceiptDuplicate in Receipt.Flags: the ID was kept before; nothing was stored
// again. Unknown bits are ignored.
const ReceiptDuplicate uint8 = 1 << 0

// Fin ends the content of a transfer.
//
//	 3 ... 4  5 ... 8   9 ... 16  17
//	+--------+---------+---------+-----------+----------------------+
//	| handle | attempt | size    | algorithm | digest, 1 to 32      |
//	+--------+---------+---------+-----------+----------------------+
type Fin struct {
	Handle    uint16
	Attempt   uint32
	Size      int64
	Algorithm uint8
	Digest    []byte
}

// Len returns the length of the frame in bytes.
func (f *Fin) Len() int { return FrameHeader + finFixed + len(f.Digest) }

// Append appends the frame to b.
func (f *Fin) Append(b []byte) []byte {
	b = appendFrame(b, TypeFin, finFixed+len(f.Digest))
	b = binary.LittleEndian.AppendUint16(b, f.Handle)
	b = binary.LittleEndian.AppendUint32(b, f.Attempt)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.Size))
	b = append(b, f.Algorithm)
	return append(b, f.Digest...)
}

// Parse reads the body of a frame.
func (f *Fin) Parse(body []byte) error {
	c := framing.NewCursor(body)
	f.Handle = c.Uint16()
	f.Attempt = c.Uint32()
	size := c.Uint64()
	f.Size = int64(size)
	f.Algorithm = c.Uint8()
	f.Digest = c.Rest()
	return finishDigest(&c, TypeFin, size, f.Digest)
}

// Receipt says that the transfer is complete.
//
//	 3 ... 4  5 ... 8   9 ... 24  25      26      27 ... 34  35
//	+--------+---------+---------+-------+-------+----------+-----------+------------------+
//	| handle | attempt | ID      | level | flags | bytes    | algorithm | digest, 1 to 32  |
//	+--------+---------+---------+-------+-------+----------+-----------+------------------+
type Receipt struct {
	Handle    uint16
	Attempt   uint32
	ID        [16]byte
	Level     uint8
	Flags     uint8
	Bytes     int64 // size of the content
	Algorithm uint8
	Digest    []byte
}

// Len returns the length of the frame in bytes.
func (f *Receipt) Len() int { return FrameHeader + receiptFixed + len(f.Digest) }

// Append appends the frame to b.
func (f *Receipt) Append(b []byte) []byte {
	b = appendFrame(b, TypeReceipt, receiptFixed+len(f.Digest))
	b = binary.LittleEndian.AppendUint16(b, f.Handle)
	b = binary.LittleEndian.AppendUint32(b, f.Attempt)
	b = append(b, f.ID[:]...)
	b = append(b, f.Level, f.Flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.Bytes))
	b = append(b, f.Algorithm)
	return append(b, f.Digest...)
}

// Parse reads the body of a frame.
func (f *Receipt) Parse(body []byte) error {
	c := framing.NewCursor(body)
	f.Handle = c.Uint16()
	f.Attempt = c.Uint32()
	copy(f.ID[:], c.Bytes(len(f.ID)))
	f.Level = c.Uint8()
	f.Flags = c.Uint8()
	size := c.Uint64()
	f.Bytes = int64(size)
	f.Algorithm = c.Uint8()
	f.Digest = c.Rest()
	if c.Err() == nil && f.Level != LevelReceived && f.Level != LevelKept {
		return malformed(TypeReceipt, "level %d", f.Level)
	}
	return finishDigest(&c, TypeReceipt, size, f.Digest)
}

func finishDigest(c *framing.Cursor, t Type, size uint64, digest []byte) error {
	switch {
	case c.Err() != nil:
		return finish(c, t)
	case size > MaxSize:
		return malformed(t, "the size is over the largest, 2^48-1")
	case len(digest) < 1 || len(digest) > maxDigest:
		return malformed(t, "a digest of %d bytes", len(digest))
	}
	return nil
}
