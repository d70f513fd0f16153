package wire

import (
	"encoding/binary"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pixferry/pixferry/framing"
)

const (
	// MaxText is the longest text for people in bytes, in REJECT and CLOSE.
	MaxText = 1024

	rejectFixed = 2 + 4 + 16 + 1 + 1 + 4
	cancelFixed = 2 + 4 + 1
)

// RejectRetryable in Reject.Flags: the same offer may be taken later. Unknown
// bits are ignored.
const RejectRetryable uint8 = 1 << 0

// Reject refuses a transfer, at its offer or later. Reasons are those of
// transport.Reason.
//
//	 3 ... 4  5 ... 8   9 ... 24  25       26      27 ... 30
//	+--------+---------+---------+--------+-------+------------+---------------+
//	| handle | attempt | ID      | reason | flags | after (ms) | text, UTF-8   |
//	+--------+---------+---------+--------+-------+------------+---------------+
type Reject struct {
	Handle      uint16
	Attempt     uint32
	ID          [16]byte
	Reason      uint8
	Flags       uint8
	AfterMillis uint32 // try again no earlier; 0: no wish
	Text        string // at most MaxText bytes: see CutText
}

// Len returns the length of the frame in bytes.
func (f *Reject) Len() int { return FrameHeader + rejectFixed + len(f.Text) }

// Append appends the frame to b.
func (f *Reject) Append(b []byte) []byte {
	b = appendFrame(b, TypeReject, rejectFixed+len(f.Text))
	b = binary.LittleEndian.AppendUint16(b, f.Handle)
	b = binary.LittleEndian.AppendUint32(b, f.Attempt)
	b = append(b, f.ID[:]...)
	b = append(b, f.Reason, f.Flags)
	b = binary.LittleEndian.AppendUint32(b, f.AfterMillis)
	return append(b, f.Text...)
}

// Parse reads the body of a frame.
func (f *Reject) Parse(body []byte) (err error) {
	c := framing.NewCursor(body)
	f.Handle = c.Uint16()
	f.Attempt = c.Uint32()
	copy(f.ID[:], c.Bytes(len(f.ID)))
	f.Reason = c.Uint8()
	f.Flags = c.Uint8()
	f.AfterMillis = c.Uint32()
	f.Text, err = parseText(&c, TypeReject)
	return err
}

// Cancel gives up a transfer; it comes from the sender of the content. Reasons
// are those of transport.Reason.
//
//	 3 ... 4  5 ... 8   9
//	+--------+---------+--------+
//	| handle | attempt | reason |
//	+--------+---------+--------+
type Cancel struct {
	Handle  uint16
	Attempt uint32
	Reason  uint8
}

// Len returns the length of the frame in bytes.
func (f *Cancel) Len() int { return FrameHeader + cancelFixed }

// Append appends the frame to b.
func (f *Cancel) Append(b []byte) []byte {
	b = appendFrame(b, TypeCancel, cancelFixed)
	b = binary.LittleEndian.AppendUint16(b, f.Handle)
	b = binary.LittleEndian.AppendUint32(b, f.Attempt)
	return append(b, f.Reason)
}

// Parse reads the body of a frame.
func (f *Cancel) Parse(body []byte) error {
	c := framing.NewCursor(body)
	f.Handle = c.Uint16()
	f.Attempt = c.Uint32()
	f.Reason = c.Uint8()
	return finish(&c, TypeCancel)
}

// Close ends the session.
//
//	 3      4
//	+------+---------------+
//	| code | text, UTF-8   |
//	+------+---------------+
type Close struct {
	Code Code
	Text string // at most MaxText bytes: see CutText
}

// Len returns the length of the frame in bytes.
func (f *Close) Len() int { return FrameHeader + 1 + len(f.Text) }

// Append appends the frame to b.
func (f *Close) Append(b []byte) []byte {
	b = appendFrame(b, TypeClose, 1+len(f.Text))
	b = append(b, byte(f.Code))
	return append(b, f.Text...)
}

// Parse reads the body of a frame.
func (f *Close) Parse(body []byte) (err error) {
	c := framing.NewCursor(body)
	f.Code = Code(c.Uint8())
	f.Text, err = parseText(&c, TypeClose)
	return err
}

// parseText reads the rest of a body, as valid UTF-8 without control characters: it goes into errors, which are printed.
func parseText(c *framing.Cursor, t Type) (string, error) {
	text := c.Rest()
	if c.Err() != nil {
		return "", finish(c, t)
	}
	if len(text) > MaxText {
		return "", malformed(t, "a text of %d bytes: at most %d", len(text), MaxText)
	}
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(string(text), "?")), nil
}

// CutText returns what of s a text of at most limit bytes may hold, without
// splitting a character.
func CutText(s string, limit int) string {
	limit = max(min(limit, MaxText), 0)
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
