package transport

import "github.com/pixferry/pixferry/chunk"

// A Level says how far an image has come. Levels are ordered: Sent < Received < Kept.
type Level uint8

const (
	Sent     Level = 1 + iota // its bytes have left this side
	Received                  // the peer answered that it has them
	Kept                      // the peer verified, handled and committed it
)

func (l Level) String() string {
	switch l {
	case Sent:
		return "sent"
	case Received:
		return "received"
	case Kept:
		return "kept"
	}
	return "none"
}

// A Receipt says what became of an image that was sent.
type Receipt struct {
	ID     ID
	Level  Level
	Digest chunk.Digest // zero where the protocol carries none
	Bytes  int64        // size of the image
	Resent int64        // bytes of it that went over the wire more than once
	Reused int64        // bytes of it that the peer held before this Send: all if it was kept already
}

// reused is r for a duplicate, of which nothing was needed.
func (r Receipt) reused() Receipt {
	r.Resent, r.Reused = 0, r.Bytes
	return r
}
