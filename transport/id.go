package transport

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// An ID names one delivery of one image: 8 bytes for the sender's instance and 8 for a counter,
// or any 16 bytes that you choose for this delivery and no other, such as a part of a hash. IDs
// are comparable. The zero ID means none.
type ID [16]byte

// NewID returns a random ID. Keep it beside the image, in a journal or a database, to send again
// after a crash without storing twice.
func NewID() ID {
	var id ID
	rand.Read(id[:])
	return id
}

// MakeID returns the ID made of a sender instance and its counter, both big-endian.
func MakeID(instance, counter uint64) ID {
	var id ID
	binary.BigEndian.PutUint64(id[:8], instance)
	binary.BigEndian.PutUint64(id[8:], counter)
	return id
}

// ParseID reads the 32 hexadecimal digits that String writes.
func ParseID(s string) (ID, error) {
	var id ID
	if err := id.UnmarshalText([]byte(s)); err != nil {
		return ID{}, err
	}
	return id, nil
}

// Instance returns the first 8 bytes: the sender's instance if MakeID made the ID.
func (id ID) Instance() uint64 { return binary.BigEndian.Uint64(id[:8]) }

// Counter returns the last 8 bytes: the counter if MakeID made the ID.
func (id ID) Counter() uint64 { return binary.BigEndian.Uint64(id[8:]) }

// IsZero reports whether id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// String returns 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns the 32 hexadecimal digits of String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (id *ID) UnmarshalText(text []byte) error {
	if len(text) != 2*len(id) {
		return fmt.Errorf("transfer ID %.40q: want %d hexadecimal digits", text, 2*len(id))
	}
	if _, err := hex.Decode(id[:], text); err != nil {
		return fmt.Errorf("transfer ID %.40q: %w", text, err)
	}
	return nil
}
