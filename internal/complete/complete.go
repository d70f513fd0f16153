// Package complete tells from an image's own structure whether it is whole, for
// protocols in which the end of the connection is the end of the image, so that a
// sender which died half-way looks like one that has finished.
//
//	format  whole when
//	BMP     the size in its header has come (a header that says 0 tells nothing)
//	WebP    the size in its RIFF header has come
//	JPEG    a walk over its segments and scans has met EOI
//	PNG     a walk over its chunks has passed IEND
//
// Bytes behind that end are no fault. Of any other format nothing can be told.
package complete

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// A Checker reads an image as it arrives: Write its bytes in order, then ask Err.
// It keeps a few bytes of state whatever the size. The zero value is ready.
type Checker struct {
	format string // "": nothing can be told
	size   int64  // bytes consumed
	end    int64  // the image's size as it says itself; 0: not yet known
	broken bool
	more   bool // than padding came behind the end

	skip  int64 // bytes that say nothing about the structure
	seek  bool  // skip to the next 0xff, where a JPEG's markers begin
	field [10]byte
	have  int
	need  int
	step  func(*Checker, []byte) // takes the next field, which has need bytes
}

var _ io.Writer = (*Checker)(nil)

// Write takes the next bytes. It never fails.
func (c *Checker) Write(p []byte) (int, error) {
	if c.size == 0 && c.step == nil && len(p) > 0 {
		c.await(2, (*Checker).begin)
	}
	n := len(p)
	for len(p) > 0 {
		used := len(p)
		switch {
		case c.step == nil: // nothing more to learn of the image
			c.behind(p)
		case c.skip > 0:
			used = int(min(c.skip, int64(used)))
			c.skip -= int64(used)
		case c.seek:
			if i := bytes.IndexByte(p, 0xff); i >= 0 {
				used, c.seek = i, false
			}
		default:
			used = copy(c.field[c.have:c.need], p)
			c.have += used
		}
		c.size += int64(used)
		p = p[used:]
		if c.step != nil && c.have == c.need {
			c.have = 0
			c.step(c, c.field[:c.need])
		}
	}
	return n, nil
}

// behind looks for what is no padding behind the image's end, of which p has the rest and what follows.
func (c *Checker) behind(p []byte) {
	if rest := c.end - c.size; c.end > 0 && rest < int64(len(p)) {
		c.more = c.more || slices.ContainsFunc(p[max(rest, 0):], func(b byte) bool { return b != 0 && b != 0xff })
	}
}

// Err returns nil if the image is whole, or of a format of which that cannot be
// told, or else what is missing.
func (c *Checker) Err() error {
	switch {
	case c.format == "":
		return nil
	case c.broken:
		return fmt.Errorf("the %s of %d bytes is damaged: its structure breaks off before its end", c.format, c.size)
	case c.end == 0:
		return fmt.Errorf("the %s is cut: its end mark has not come within %d bytes", c.format, c.size)
	case c.size < c.end:
		return fmt.Errorf("the %s is cut: %d of its %d bytes have come", c.format, c.size, c.end)
	}
	return nil
}

// Ended reports whether the image is known to be whole, and nothing came behind its end but padding, as in the buffers of
// cameras.
func (c *Checker) Ended() bool { return c.end > 0 && c.size >= c.end && !c.more && !c.broken }

func (c *Checker) await(n int, step func(*Checker, []byte)) { c.need, c.step = n, step }

// finish says where the image ends.
func (c *Checker) finish(end int64) { c.end, c.step = end, nil }

func (c *Checker) begin(magic []byte) {
	switch string(magic) {
	case "BM":
		c.format = "BMP"
		c.await(4, (*Checker).bmpSize)
	case "\xff\xd8":
		c.format = "JPEG"
		c.await(1, (*Checker).jpegStart)
	case "\x89P":
		c.format = "PNG"
		c.await(6, (*Checker).pngStart)
	case "RI":
		c.format = "WebP"
		c.await(10, (*Checker).riffStart)
	default:
		c.stranger()
	}
}

// stranger says that it is no format known here after all.
func (c *Checker) stranger() { c.format, c.step = "", nil }

//	0   1   2 ... 5
//
// +---+---+-----------+
// | B | M | size (LE) |
// +---+---+-----------+
func (c *Checker) bmpSize(f []byte) {
	if c.finish(int64(binary.LittleEndian.Uint32(f))); c.end == 0 {
		c.stranger()
	}
}

//	0 ... 3   4 ... 7           8 ... 11
//
// +--------+-----------------+--------+
// | R I F F| size (LE) from 8| W E B P|
// +--------+-----------------+--------+
func (c *Checker) riffStart(f []byte) {
	if string(f[:2]) != "FF" || string(f[6:]) != "WEBP" {
		c.stranger()
		return
	}
	c.finish(8 + int64(binary.LittleEndian.Uint32(f[2:6])))
}

func (c *Checker) pngStart(f []byte) {
	if string(f) != "NG\r\n\x1a\n" {
		c.stranger()
		return
	}
	c.await(8, (*Checker).pngChunk)
}

//	0 ... 3      4 ... 7  length   4
//
// +-------------+------+--------+-----+
// | length (BE) | type | data   | CRC |
// +-------------+------+--------+-----+
func (c *Checker) pngChunk(f []byte) {
	length := binary.BigEndian.Uint32(f)
	switch rest := int64(length) + 4; {
	case length > 1<<31-1:
		c.broken, c.step = true, nil
	case string(f[4:]) == "IEND":
		c.finish(c.size + rest)
	default:
		c.skip = rest
	}
}

func (c *Checker) jpegStart(f []byte) {
	if f[0] != 0xff {
		c.stranger()
		return
	}
	c.field[0], c.have = 0xff, 1
	c.await(2, (*Checker).jpegMarker)
}

// jpegMarker takes 0xff and a code. A scan's own 0xff is followed by 0; what else
// lies between segments is passed over, as decoders do.
func (c *Checker) jpegMarker(f []byte) {
	const soi, eoi, tem, rst0, rst7, sos = 0xd8, 0xd9, 0x01, 0xd0, 0xd7, 0xda
	switch code := f[1]; {
	case code == 0xff: // a fill byte
		c.have = 1
	case code == eoi:
		c.finish(c.size)
	case code == 0, code == tem, code == soi, rst0 <= code && code <= rst7:
		c.seek = true
	default:
		c.await(2, (*Checker).jpegSegment)
	}
}

// jpegSegment takes a segment's length, which counts itself.
func (c *Checker) jpegSegment(f []byte) {
	length := binary.BigEndian.Uint16(f)
	if length < 2 {
		c.broken, c.step = true, nil
		return
	}
	c.skip, c.seek = int64(length)-2, true
	c.await(2, (*Checker).jpegMarker)
}
