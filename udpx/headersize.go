package udpx

import (
	"errors"
	"fmt"
	"math"

	"github.com/pixferry/pixferry/framing"
)

// A SizeHeader is the datagram that announces an image in the protocol [Header]: the number of
// its bytes as a signed C long.
//
//	 0 .. Width-1
//	+-------------+
//	|    Size     |  signed, in Order
//	+-------------+
type SizeHeader struct {
	Size  int64
	Width int           // in bytes, 8 or 4; 0: 8
	Order framing.Order // by default LittleEndian
}

// Append appends the datagram to b. It fails for a width other than 8 and 4, and for a size that
// is not positive or does not fit.
func (h SizeHeader) Append(b []byte) ([]byte, error) {
	width, err := headerWidth(h.Width)
	if err != nil {
		return b, err
	}
	if most := maxHeaderSize(width); h.Size <= 0 || h.Size > most {
		return b, fmt.Errorf("an image of %d bytes: a header of %d bytes takes 1 to %d", h.Size, width, most)
	}
	return framing.AppendUint(b, h.Order, width, uint64(h.Size)), nil
}

var errNoHeader = errors.New("no header: it has 4 or 8 bytes and says 1 byte or more")

// Parse reads a datagram in h.Order and sets Size and Width. It fails if the datagram is no
// header: if its length is neither 4 nor 8, or its number not positive.
func (h *SizeHeader) Parse(datagram []byte) error {
	if len(datagram) != 4 && len(datagram) != 8 {
		return errNoHeader
	}
	c := framing.NewCursor(datagram)
	size := c.Int(h.Order, len(datagram))
	if size <= 0 {
		return errNoHeader
	}
	h.Size, h.Width = size, len(datagram)
	return nil
}

func headerWidth(width int) (int, error) {
	switch width {
	case 0:
		return 8, nil
	case 4, 8:
		return width, nil
	}
	return 0, fmt.Errorf("a header of %d bytes: Width is 8 or 4", width)
}

// maxHeaderSize is the largest size that a header can say.
func maxHeaderSize(width int) int64 {
	if width == 4 {
		return math.MaxInt32
	}
	return math.MaxInt64
}
