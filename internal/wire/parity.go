package wire

import (
	"encoding/binary"

	"github.com/pixferry/pixferry/framing"
)

// Parity is one symbol of a Reed-Solomon code over a small image, which is cut into symbols of the same
// length, the last one filled with zeros. As many symbols of image and parity as the image has give it back.
//
//	 3 ... 4   5 ... 8  9       10      11 ...
//	+---------+--------+-------+-------+--------+
//	| handle  | size   | count | index | symbol |
//	+---------+--------+-------+-------+--------+
type Parity struct {
	Handle uint16
	Size   uint32 // of the image in bytes
	Count  uint8  // symbols of parity
	Index  uint8  // of this one
	Symbol []byte // aliases the message after Parse
}

const parityFixed = 2 + 4 + 1 + 1

// ParityHeader is the size in bytes of the frame without the symbol.
const ParityHeader = FrameHeader + parityFixed

// MaxSymbols is the most symbols of image and parity together.
const MaxSymbols = 256

// symbols returns how many symbols the image has.
func (f *Parity) symbols() int64 {
	return (int64(f.Size) + int64(len(f.Symbol)) - 1) / int64(len(f.Symbol))
}

// Len returns the length of the frame in bytes.
func (f *Parity) Len() int { return ParityHeader + len(f.Symbol) }

// Append appends the frame to b.
func (f *Parity) Append(b []byte) []byte {
	b = appendFrame(b, TypeParity, parityFixed+len(f.Symbol))
	b = binary.LittleEndian.AppendUint16(b, f.Handle)
	b = binary.LittleEndian.AppendUint32(b, f.Size)
	return append(append(b, f.Count, f.Index), f.Symbol...)
}

// Parse reads the body of a frame.
func (f *Parity) Parse(body []byte) error {
	c := framing.NewCursor(body)
	f.Handle = c.Uint16()
	f.Size = c.Uint32()
	f.Count = c.Uint8()
	f.Index = c.Uint8()
	f.Symbol = c.Bytes(c.Len())
	if err := finish(&c, TypeParity); err != nil {
		return err
	}
	if len(f.Symbol) == 0 || f.Size == 0 || f.Index >= f.Count || f.symbols()+int64(f.Count) > MaxSymbols {
		return malformed(TypeParity, "symbol %d of %d, %d bytes long, over an image of %d", f.Index, f.Count, len(f.Symbol), f.Size)
	}
	return nil
}
