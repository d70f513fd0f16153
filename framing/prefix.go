package framing

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// Varint as Width of a Prefix means a varint as encoding/binary writes it.
const Varint = -1

const (
	defaultMax  = 16 << 20 // Prefix.Max and Layout.Max of 0
	firstGrowth = 64 << 10 // most memory taken ahead of a frame's first bytes
)

// A Prefix says how a length is written before a frame. The length counts the frame without the
// prefix. The zero value means 4 bytes, little-endian, for frames of at most 16 MiB.
//
//	+--------+---------------------+
//	| length | frame: length bytes |
//	+--------+---------------------+
//	  Width
type Prefix struct {
	Width int   // bytes: 1 to 8, or Varint; 0 means 4
	Order Order // of the length's bytes; without meaning for a varint
	Max   int   // longest frame in bytes, if Width has room for it; 0 means 16 MiB
}

// A TooLongError says that a frame is longer than its Prefix allows. On reading it often means a
// wrong Width or Order, or a peer with another protocol.
type TooLongError struct {
	Length uint64 // bytes announced, or asked to be written
	Max    uint64 // bytes allowed
}

func (e *TooLongError) Error() string {
	return fmt.Sprintf("framing: frame of %d bytes is over the limit of %d: check that both ends use the same prefix, or raise its Max or Width", e.Length, e.Max)
}

func (p Prefix) width() int {
	if p.Width == 0 {
		return 4
	}
	return p.Width
}

// check returns a *TooLongError if a frame of n bytes is not allowed.
func (p Prefix) check(n uint64) error {
	limit := uint64(defaultMax)
	if p.Max > 0 {
		limit = uint64(p.Max)
	}
	if w := p.width(); w != Varint {
		checkWidth(w)
		limit = min(limit, math.MaxUint64>>(64-8*w))
	}
	if n > limit {
		return &TooLongError{Length: n, Max: limit}
	}
	return nil
}

// appendLen appends the prefix of a frame of n bytes.
func (p Prefix) appendLen(b []byte, n int) []byte {
	if p.Width == Varint {
		return binary.AppendUvarint(b, uint64(n))
	}
	return AppendUint(b, p.Order, p.width(), uint64(n))
}

// AppendPrefixed appends the length of v, and v. If v is too long for p it returns b unchanged
// and a *TooLongError.
func AppendPrefixed[T ~[]byte | ~string](b []byte, p Prefix, v T) ([]byte, error) {
	if err := p.check(uint64(len(v))); err != nil {
		return b, err
	}
	return append(p.appendLen(b, len(v)), v...), nil
}

// ReadFrame reads one frame into the memory of buf, from its start, or into new memory if its
// capacity is too small, and returns the frame. Pass the result to the next call to reuse the
// memory; to avoid new memory set Max to the capacity of buf. However long the announced frame,
// memory grows in steps, each of at most 64 KiB or as many bytes as have already come.
//
// It reads nothing beyond the frame. Prefix and frame take one Read each, a varint one per byte:
// wrap a socket in a bufio.Reader.
//
// The error is io.EOF only if r ends before a frame, io.ErrUnexpectedEOF if it ends inside one, a
// *TooLongError if the length is over the limit (only the prefix was read, and no memory taken),
// or r's error. The returned frame is then empty, and no further frames can be read from r.
func (p Prefix) ReadFrame(r io.Reader, buf []byte) ([]byte, error) {
	n, buf, err := p.readLen(r, buf[:0])
	if err == nil {
		err = p.check(n)
	}
	if err != nil {
		return buf, err
	}
	frame, err := readFull(r, buf, int(n))
	if err == io.EOF { //nolint:errorlint // a wrapped EOF is a failure and no end
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return frame[:0], err
	}
	return frame, nil
}

// readLen reads the prefix, with buf as scratch space, which a local array
// could not be without an allocation.
func (p Prefix) readLen(r io.Reader, buf []byte) (uint64, []byte, error) {
	if p.Width != Varint {
		b, err := readFull(r, buf, p.width())
		if err != nil {
			return 0, b[:0], err
		}
		c := NewCursor(b)
		return c.Uint(p.Order, p.width()), b[:0], nil
	}
	for b := buf; ; {
		var err error
		if b, err = readFull(r, b, len(b)+1); err != nil {
			return 0, b[:0], err
		}
		if b[len(b)-1] < 0x80 || len(b) == binary.MaxVarintLen64 {
			c := NewCursor(b)
			return c.Uvarint(), b[:0], c.Err()
		}
	}
}

// readFull reads until b holds n bytes; io.EOF means that it holds none. Beyond
// the capacity memory is taken in steps: each at most what is held already, or
// firstGrowth.
func readFull(r io.Reader, b []byte, n int) ([]byte, error) {
	for len(b) < n {
		if len(b) == cap(b) {
			grown := make([]byte, len(b), len(b)+min(n-len(b), max(len(b), firstGrowth)))
			copy(grown, b)
			b = grown
		}
		k, err := io.ReadFull(r, b[len(b):min(n, cap(b))])
		b = b[:len(b)+k]
		if len(b) > 0 && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}
