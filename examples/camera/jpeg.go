package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// A jpegCutter finds the pictures in a stream of JPEGs. It walks over the
// segments, for those may hold thumbnails with markers of their own:
//
//	ff d8 | segments: ff TYPE LENGTH(2, big endian, with itself) ... | ff da: scan, to the next marker | ff d9
type jpegCutter struct {
	r    *bufio.Reader
	data []byte
}

func newJPEGCutter(r io.Reader) *jpegCutter { return &jpegCutter{r: bufio.NewReaderSize(r, 64<<10)} }

const (
	markerStart = 0xd8
	markerEnd   = 0xd9
	markerScan  = 0xda
)

// errDamaged is the error of a picture that is none; the next one may be.
var errDamaged = errors.New("not a JPEG")

// next returns the next picture; io.EOF at the end of the stream. What is
// between pictures is skipped, and so is one that is cut off by the next.
func (c *jpegCutter) next() ([]byte, error) {
	for prev := byte(0); ; {
		b, err := c.r.ReadByte()
		if err != nil {
			return nil, err
		}
		if prev == 0xff && b == markerStart {
			break
		}
		prev = b
	}
	c.data = []byte{0xff, markerStart}
	marker, err := c.marker()
	for err == nil && marker != markerEnd {
		if marker == markerStart {
			c.data = []byte{0xff, markerStart}
		} else if !standsAlone(marker) {
			err = c.segment()
		}
		switch {
		case err != nil:
		case marker == markerScan:
			marker, err = c.scan()
		default:
			marker, err = c.marker()
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return c.data, err
}

// standsAlone: RSTn and TEM have no length.
func standsAlone(marker byte) bool { return marker >= 0xd0 && marker <= 0xd7 || marker == 0x01 }

// take moves n bytes to the picture.
func (c *jpegCutter) take(n int) error {
	if len(c.data)+n > maxFrame {
		return fmt.Errorf("%w: it is over %d bytes", errDamaged, maxFrame)
	}
	at := len(c.data)
	c.data = append(c.data, make([]byte, n)...)
	_, err := io.ReadFull(c.r, c.data[at:])
	return err
}

// marker reads ff, fill bytes and a marker.
func (c *jpegCutter) marker() (byte, error) {
	if err := c.take(1); err != nil {
		return 0, err
	}
	if last := c.data[len(c.data)-1]; last != 0xff {
		return 0, fmt.Errorf("%w: %#02x where a marker belongs", errDamaged, last)
	}
	for {
		if err := c.take(1); err != nil {
			return 0, err
		}
		if last := c.data[len(c.data)-1]; last != 0xff {
			return last, nil
		}
	}
}

func (c *jpegCutter) segment() error {
	if err := c.take(2); err != nil {
		return err
	}
	n := int(c.data[len(c.data)-2])<<8 | int(c.data[len(c.data)-1])
	if n < 2 {
		return fmt.Errorf("%w: a segment of %d bytes", errDamaged, n)
	}
	return c.take(n - 2)
}

// scan reads entropy-coded bytes up to the next marker but RSTn, and returns it.
func (c *jpegCutter) scan() (byte, error) {
	for {
		if err := c.take(1); err != nil {
			return 0, err
		}
		for c.data[len(c.data)-1] == 0xff {
			if err := c.take(1); err != nil {
				return 0, err
			}
			if m := c.data[len(c.data)-1]; m != 0 && m != 0xff && !standsAlone(m) {
				return m, nil
			}
		}
	}
}
