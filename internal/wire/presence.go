package wire

import (
	"encoding/binary"

	"github.com/pixferry/pixferry/framing"
)

// Presence is what a peer on MQTT keeps retained while it is there.
//
//	 0         1 ... 8    9 ... 12      13 ... 14   15 ... 18
//	+---------+----------+-------------+-----------+--------+
//	| version | instance | max message | transfers | CRC32C |
//	+---------+----------+-------------+-----------+--------+
//
// The rest as in Hello. An empty payload means that the peer has gone.
type Presence struct {
	Instance   uint64
	MaxMessage uint32
	Transfers  uint16
}

const presenceFixed = 1 + 8 + 4 + 2

// Append appends the payload to b, which holds nothing before it.
func (p *Presence) Append(b []byte) []byte {
	b = append(b, Version1)
	b = binary.LittleEndian.AppendUint64(b, p.Instance)
	b = binary.LittleEndian.AppendUint32(b, p.MaxMessage)
	b = binary.LittleEndian.AppendUint16(b, p.Transfers)
	return Seal(b)
}

// Parse reads a payload.
func (p *Presence) Parse(b []byte) error {
	if len(b) < presenceFixed+Trailer {
		return errShort
	}
	if b[0] != Version1 {
		return errVersion
	}
	end := len(b) - Trailer
	if !sealed(b[:end], b[end:]) {
		return errChecksum
	}
	c := framing.NewCursor(b[1:end])
	p.Instance = c.Uint64()
	p.MaxMessage = c.Uint32()
	p.Transfers = c.Uint16()
	return finish(&c, NoFrame)
}
