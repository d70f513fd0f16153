package wire

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/pixferry/pixferry/framing"
)

// Fields of an offer's metadata.
const (
	fieldName        = 0x01
	fieldMediaType   = 0x02
	fieldSource      = 0x03
	fieldCaptured    = 0x04
	fieldPair        = 0x05
	fieldMessageType = 0x06

	firstField = 0x80 // unknown fields from here on are skipped
)

// Metadata describes an image or a message. Each field is
//
//	+------+--------+-------+
//	| type | length | value |     type 1, length 2
//	+------+--------+-------+
//
// and absent if empty. A pair's value is: key length 2, key, value.
type Metadata struct {
	Name        string
	MediaType   string
	Source      string
	Captured    int64 // nanoseconds since 1970 UTC; 0: unknown
	Pairs       map[string]string
	MessageType string
}

// Append appends the encoded metadata to b, pairs in the order of their keys.
// Whoever calls it checks that it is not longer than the peer takes.
func (m *Metadata) Append(b []byte) []byte {
	b = appendText(slices.Grow(b, m.Len()), fieldName, m.Name)
	b = appendText(b, fieldMediaType, m.MediaType)
	b = appendText(b, fieldSource, m.Source)
	if m.Captured != 0 {
		b = appendFrame(b, fieldCaptured, 8)
		b = binary.LittleEndian.AppendUint64(b, uint64(m.Captured))
	}
	for _, key := range slices.Sorted(maps.Keys(m.Pairs)) {
		value := m.Pairs[key]
		b = appendFrame(b, fieldPair, 2+len(key)+len(value))
		b = binary.LittleEndian.AppendUint16(b, uint16(len(key)))
		b = append(b, key...)
		b = append(b, value...)
	}
	return appendText(b, fieldMessageType, m.MessageType)
}

// Len returns the length in bytes of what Append appends.
func (m *Metadata) Len() int {
	n := 0
	for _, s := range []string{m.Name, m.MediaType, m.Source, m.MessageType} {
		if s != "" {
			n += FrameHeader + len(s)
		}
	}
	if m.Captured != 0 {
		n += FrameHeader + 8
	}
	for key, value := range m.Pairs {
		n += FrameHeader + 2 + len(key) + len(value)
	}
	return n
}

func appendText(b []byte, field Type, s string) []byte {
	if s == "" {
		return b
	}
	return append(appendFrame(b, field, len(s)), s...)
}

// Parse reads encoded metadata, all of it. Memory is taken for its strings,
// together no longer than b. A *Error here refuses the offer and does not end
// the session.
func (m *Metadata) Parse(b []byte) error {
	*m = Metadata{}
	var seen [firstField]bool
	c := framing.NewCursor(b)
	for c.Len() > 0 {
		field, value := nextField(&c)
		if c.Err() != nil {
			break
		}
		if field < firstField && field != fieldPair {
			if seen[field] {
				return malformed(TypeOffer, "metadata field %d comes twice", field)
			}
			seen[field] = true
		}
		if err := m.parseField(field, value); err != nil {
			return err
		}
	}
	return finish(&c, TypeOffer)
}

func (m *Metadata) parseField(field uint8, value []byte) error {
	switch field {
	case fieldName:
		m.Name = string(value)
	case fieldMediaType:
		m.MediaType = string(value)
	case fieldSource:
		m.Source = string(value)
	case fieldMessageType:
		m.MessageType = string(value)
	case fieldCaptured:
		c := framing.NewCursor(value)
		m.Captured = int64(c.Uint64())
		return finish(&c, TypeOffer)
	case fieldPair:
		c := framing.NewCursor(value)
		key := string(c.Bytes(int(c.Uint16())))
		if c.Err() != nil {
			return finish(&c, TypeOffer)
		}
		if _, twice := m.Pairs[key]; twice {
			return malformed(TypeOffer, "the metadata key %.100q comes twice", key)
		}
		if m.Pairs == nil {
			m.Pairs = make(map[string]string)
		}
		m.Pairs[key] = string(c.Rest())
	default:
		if field < firstField {
			return &Error{CodeUnknown, TypeOffer, "a metadata field that version 1 does not have"}
		}
	}
	return nil
}

// nextField consumes one field: type 1, length 2, value.
func nextField(c *framing.Cursor) (field uint8, value []byte) {
	field = c.Uint8()
	return field, c.Bytes(int(c.Uint16()))
}
