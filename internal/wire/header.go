package wire

import (
	"encoding/binary"

	"github.com/pixferry/pixferry/chunk"
)

// Sizes in bytes of the fixed parts of a message.
const (
	ShortHeader = 1 + 8 + 4
	LongHeader  = ShortHeader + 1 + 8
	Trailer     = 4

	MinMessage     = 256  // every peer takes messages of this size
	InitialMessage = 1200 // the largest message before the peer's HELLO is known
)

// Versions of the protocol in long headers.
const (
	VersionNone uint8 = 0 // an answer outside any session: VERSIONS or RESET
	Version1    uint8 = 1
)

// ConnID names a session at the side that chose it, at random. 0 is no session.
type ConnID uint64

const flagLong = 1 << 7 // the only bit that may be set in version 1

// Header is what a message begins with. Epoch, key phase and protection have
// their place in the flags and are zero in version 1.
//
//	        0         1 ... 8             9 ... 12
//	short: +-------+---------------------+---------------+
//	       | flags | destination         | packet number |
//	       +-------+---------------------+---------------+
//	        0         1 ... 8             9 ... 12        13        14 ... 21
//	long:  +-------+---------------------+---------------+---------+----------+
//	       | flags | destination         | packet number | version | source   |
//	       +-------+---------------------+---------------+---------+----------+
//
//	flags: long 1 bit (0x80) | epoch 2 | key phase 1 | protection 3 | zero 1
//
// Frames follow, then a CRC32C, 4 bytes: of all before it, or on an ordered reliable link of all
// but the payload of DATA, for which the digest stands.
type Header struct {
	Long    bool
	Dest    ConnID
	Number  uint32 // low 32 bits of the packet number: see ExpandNumber
	Version uint8  // of a long header
	Source  ConnID // of a long header
}

// Append appends the header to b.
func (h *Header) Append(b []byte) []byte {
	if !h.Long {
		b = append(b, 0)
		b = binary.LittleEndian.AppendUint64(b, uint64(h.Dest))
		return binary.LittleEndian.AppendUint32(b, h.Number)
	}
	b = append(b, flagLong)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.Dest))
	b = binary.LittleEndian.AppendUint32(b, h.Number)
	b = append(b, h.Version)
	return binary.LittleEndian.AppendUint64(b, uint64(h.Source))
}

// Seal appends the checksum of the message msg.
func Seal(msg []byte) []byte { return SealReliable(msg, 0) }

// SealReliable appends the checksum of a message on an ordered reliable link, whose last payload
// bytes are those of DATA.
func SealReliable(msg []byte, payload int) []byte {
	return binary.LittleEndian.AppendUint32(msg, chunk.CRC32C(msg[:len(msg)-payload]))
}

var (
	errShort    = &Error{CodeTruncated, NoFrame, "shorter than a header and a checksum"}
	errChecksum = &Error{CodeChecksum, NoFrame, "wrong checksum: bytes were changed on the way"}
	errFlags    = &Error{CodeMalformed, NoFrame, "flags that version 1 does not have"}
	errVersion  = &Error{CodeVersion, NoFrame, "a version that is not spoken here"}
)

// PeekDest returns the destination of a message for finding its session. It
// holds for messages of every version and checks nothing but the length.
func PeekDest(msg []byte) (id ConnID, long, ok bool) {
	if len(msg) < ShortHeader+Trailer {
		return 0, false, false
	}
	return ConnID(binary.LittleEndian.Uint64(msg[1:])), msg[0]&flagLong != 0, true
}

// Parse checks a message and returns its header and its frames, which alias
// msg. For CodeVersion the header is valid in spite of the error, as the long
// header is the same in every version, and is what VERSIONS is sent in answer to.
func Parse(msg []byte) (h Header, frames []byte, err error) { return parse(msg, false) }

// ParseReliable is Parse of a message on an ordered reliable link.
func ParseReliable(msg []byte) (h Header, frames []byte, err error) { return parse(msg, true) }

func parse(msg []byte, reliable bool) (h Header, frames []byte, err error) {
	if len(msg) < ShortHeader+Trailer {
		return Header{}, nil, errShort
	}
	flags := msg[0]
	h.Dest = ConnID(binary.LittleEndian.Uint64(msg[1:]))
	h.Number = binary.LittleEndian.Uint32(msg[9:])
	n := ShortHeader
	if flags&flagLong != 0 {
		if len(msg) < LongHeader+Trailer {
			return Header{}, nil, errShort
		}
		h.Long, h.Version = true, msg[13]
		h.Source = ConnID(binary.LittleEndian.Uint64(msg[14:]))
		if h.Version > Version1 {
			return h, nil, errVersion
		}
		n = LongHeader
	}
	if flags&^flagLong != 0 {
		return Header{}, nil, errFlags
	}
	end := len(msg) - Trailer
	frames = msg[n:end:end]
	covered := end
	if reliable {
		covered -= payloadLen(frames)
	}
	if !sealed(msg[:covered], msg[end:]) {
		return Header{}, nil, errChecksum
	}
	return h, frames, nil
}

// sealed reports whether trailer is the checksum of b.
func sealed(b, trailer []byte) bool { return chunk.CRC32C(b) == binary.LittleEndian.Uint32(trailer) }

// payloadLen returns how much of frames that are not checked yet is the payload of DATA.
func payloadLen(frames []byte) int {
	r := NewReader(frames)
	for r.Next() {
		if r.Type == TypeData {
			return max(0, len(r.Body)-(DataHeader-1))
		}
	}
	return 0
}
