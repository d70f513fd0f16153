package wire

import (
	"encoding/binary"

	"github.com/pixferry/pixferry/framing"
)

const offerFixed = 2 + 4 + 16 + 8 + 1 + 1 + 1 + 8 + 2 + 2

// What a transfer carries.
const (
	KindImage   uint8 = 0
	KindMessage uint8 = 1 // a small message to the peer's program
)

// Bits of Offer.Flags. Unknown ones are ignored.
const (
	OfferInteractive uint8 = 1 << 0 // goes before bulk
	OfferLive        uint8 = 1 << 1 // a frame of a live source, soon out of date
	OfferResume      uint8 = 1 << 2 // DATA waits for ACCEPT, and held blocks are compared
)

// UnknownSize is Offer.Size before the end is known.
const UnknownSize = -1

// Offer announces a transfer. Metadata that does not fit goes in further OFFER
// frames that differ in nothing else.
//
//	 3 ... 4  5 ... 8   9 ... 24  25 ... 32  33     34      35
//	+--------+---------+---------+----------+------+-------+-----------+
//	| handle | attempt | ID      | oldest   | kind | flags | algorithm |
//	+--------+---------+---------+----------+------+-------+-----------+
//	 36 ... 43  44 ... 45       46 ... 47
//	+----------+---------------+-----------------+------------------------+
//	| size     | metadata size | metadata offset | metadata from there on |
//	+----------+---------------+-----------------+------------------------+
type Offer struct {
	Handle    uint16
	Attempt   uint32 // the higher wins
	ID        [16]byte
	Oldest    uint64 // oldest unfinished counter of the ID's instance
	Kind      uint8
	Flags     uint8
	Algorithm uint8 // of digests
	Size      int64 // bytes, at most MaxSize, or UnknownSize

	MetaSize   uint16 // of the encoded metadata
	MetaOffset uint16 // of Meta in it
	Meta       []byte // a part of, usually all, encoded metadata
}

// Len returns the length of the frame in bytes.
func (f *Offer) Len() int { return OfferHeader + len(f.Meta) }

// OfferHeader is the size in bytes of an OFFER frame without metadata.
const OfferHeader = FrameHeader + offerFixed

// Append appends the frame to b.
func (f *Offer) Append(b []byte) []byte {
	b = appendFrame(b, TypeOffer, offerFixed+len(f.Meta))
	b = binary.LittleEndian.AppendUint16(b, f.Handle)
	b = binary.LittleEndian.AppendUint32(b, f.Attempt)
	b = append(b, f.ID[:]...)
	b = binary.LittleEndian.AppendUint64(b, f.Oldest)
	b = append(b, f.Kind, f.Flags, f.Algorithm)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.Size))
	b = binary.LittleEndian.AppendUint16(b, f.MetaSize)
	b = binary.LittleEndian.AppendUint16(b, f.MetaOffset)
	return append(b, f.Meta...)
}

// Parse reads the body of a frame.
func (f *Offer) Parse(body []byte) error {
	c := framing.NewCursor(body)
	f.Handle = c.Uint16()
	f.Attempt = c.Uint32()
	copy(f.ID[:], c.Bytes(len(f.ID)))
	f.Oldest = c.Uint64()
	f.Kind = c.Uint8()
	f.Flags = c.Uint8()
	f.Algorithm = c.Uint8()
	f.Size = int64(c.Uint64())
	f.MetaSize = c.Uint16()
	f.MetaOffset = c.Uint16()
	f.Meta = c.Rest()
	switch {
	case c.Err() != nil:
		return finish(&c, TypeOffer)
	case f.ID == [16]byte{}:
		return malformed(TypeOffer, "the ID is zero")
	case f.Size != UnknownSize && (f.Size < 0 || f.Size > MaxSize):
		return malformed(TypeOffer, "the size is over the largest, 2^48-1")
	case int(f.MetaOffset)+len(f.Meta) > int(f.MetaSize):
		return malformed(TypeOffer, "more metadata than announced")
	}
	return nil
}
