package framing

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var (
	// ErrShort says that the bytes end before the wanted field does.
	ErrShort = errors.New("framing: message ends in the middle of a field")

	// ErrMagic says that the bytes do not start with the magic of their format.
	ErrMagic = errors.New("framing: wrong magic")

	errVarint = errors.New("framing: varint is longer than 64 bits")
)

// Order is the byte order of an integer. The zero value is LittleEndian.
type Order uint8

const (
	LittleEndian Order = iota // least significant byte first
	BigEndian                 // most significant byte first ("network order")
)

// AppendUint appends the low width bytes of v; width is 1 to 8. Higher bytes are dropped, so
// check before whether a value fits. Pass a signed value as uint64(v) and read it back with
// [Cursor.Int].
//
// For widths 2, 4 and 8 the Append functions of encoding/binary do the same faster; write varints
// with [binary.AppendUvarint].
func AppendUint(b []byte, order Order, width int, v uint64) []byte {
	checkWidth(width)
	var tmp [8]byte
	if order == BigEndian {
		binary.BigEndian.PutUint64(tmp[:], v)
		return append(b, tmp[8-width:]...)
	}
	binary.LittleEndian.PutUint64(tmp[:], v)
	return append(b, tmp[:width]...)
}

func checkWidth(width int) {
	if width < 1 || width > 8 {
		panic(fmt.Sprintf("framing: integer of %d bytes: the width must be 1 to 8", width))
	}
}

// A Cursor reads fields from the front of a message. After the first failure every method returns
// zero and Err says why, so that a parser may read all fields and check once. It never copies:
// the slices that it returns alias the message. It is not safe for concurrent use.
type Cursor struct {
	b   []byte // what is left; nil after a failure
	err error
}

// NewCursor returns a Cursor at the start of b.
func NewCursor(b []byte) Cursor { return Cursor{b: b} }

// Err returns nil, or why the first method to fail has failed: an error that matches ErrShort or
// ErrMagic, a *TooLongError, or a varint over 64 bits.
func (c *Cursor) Err() error { return c.err }

// Len returns the number of bytes left, 0 after a failure.
func (c *Cursor) Len() int { return len(c.b) }

// Rest consumes all bytes that are left.
func (c *Cursor) Rest() []byte {
	b := c.b
	c.b = b[len(b):]
	return b
}

// fail ends the Cursor; the first error stays. It and the reads of fixed width
// are small enough for the compiler to inline, which the hot path counts on.
func (c *Cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

// Uint8 consumes one byte.
func (c *Cursor) Uint8() uint8 {
	b := c.b
	if len(b) < 1 {
		c.fail(ErrShort)
		return 0
	}
	c.b = b[1:]
	return b[0]
}

// Uint16 consumes a little-endian integer of 2 bytes.
func (c *Cursor) Uint16() uint16 {
	b := c.b
	if len(b) < 2 {
		c.fail(ErrShort)
		return 0
	}
	c.b = b[2:]
	return binary.LittleEndian.Uint16(b)
}

// Uint32 consumes a little-endian integer of 4 bytes.
func (c *Cursor) Uint32() uint32 {
	b := c.b
	if len(b) < 4 {
		c.fail(ErrShort)
		return 0
	}
	c.b = b[4:]
	return binary.LittleEndian.Uint32(b)
}

// Uint64 consumes a little-endian integer of 8 bytes.
func (c *Cursor) Uint64() uint64 {
	b := c.b
	if len(b) < 8 {
		c.fail(ErrShort)
		return 0
	}
	c.b = b[8:]
	return binary.LittleEndian.Uint64(b)
}

// Uint consumes an unsigned integer of 1 to 8 bytes.
func (c *Cursor) Uint(order Order, width int) uint64 {
	checkWidth(width)
	b := c.b
	if len(b) < width {
		c.fail(ErrShort)
		return 0
	}
	c.b = b[width:]
	load := b // of 8 bytes, whatever the width
	if len(b) < 8 {
		var tmp [8]byte
		copy(tmp[:], b)
		load = tmp[:]
	}
	if order == BigEndian {
		return binary.BigEndian.Uint64(load) >> (64 - 8*width)
	}
	return binary.LittleEndian.Uint64(load) & (1<<(8*width) - 1)
}

// Int consumes a signed integer (two's complement) of 1 to 8 bytes.
func (c *Cursor) Int(order Order, width int) int64 {
	unused := 64 - 8*width
	return int64(c.Uint(order, width)<<unused) >> unused
}

// Uvarint consumes a varint as [binary.AppendUvarint] writes it: 7 bits per byte, lowest first.
// It also accepts longer forms of a number, up to 10 bytes.
func (c *Cursor) Uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	switch {
	case n > 0:
		c.b = c.b[n:]
	case len(c.b) < binary.MaxVarintLen64:
		c.fail(ErrShort)
	default:
		c.fail(errVarint)
	}
	return v
}

// Bytes consumes n bytes. A negative n fails like one that is too large.
func (c *Cursor) Bytes(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.fail(ErrShort)
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

// Prefixed consumes a length and that many bytes, as [AppendPrefixed] writes them. A length over
// p.Max fails with a *TooLongError.
func (c *Cursor) Prefixed(p Prefix) []byte {
	var n uint64
	if p.Width == Varint {
		n = c.Uvarint()
	} else {
		n = c.Uint(p.Order, p.width())
	}
	if err := p.check(n); err != nil {
		c.fail(err)
		return nil
	}
	return c.Bytes(int(n))
}

// Magic consumes a magic. Other bytes fail with an error that matches ErrMagic and names them.
func (c *Cursor) Magic(want string) {
	if got := c.Bytes(len(want)); c.err == nil && string(got) != want {
		c.fail(fmt.Errorf("%w: found % x where % x belongs; the peer speaks another protocol or version", ErrMagic, got, want))
	}
}
