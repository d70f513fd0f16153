package native

import (
	"fmt"
	"io"
	"net"

	"github.com/pixferry/pixferry/framing"
	"github.com/pixferry/pixferry/transport"
)

const (
	streamMagic   = "\xa5PF"
	streamHeader  = len(streamMagic) + 2 + 1
	streamTrailer = 4

	// streamMessage is small because a corrupted byte costs a whole message, and
	// because a line of 115,200 baud takes 90 ms for it.
	streamMessage = 1024
)

// Stream makes a Link of a byte stream that may lose or change bytes, such as a serial line: it
// finds the next good message after whatever was lost. The Link owns rwc, whose Close must free a
// blocked Read and Write.
//
// Each message, of at most 1,024 bytes, lies in a frame. Numbers are little-endian. The check is
// the exclusive or of the two bytes of the length and 0x5a, so that a broken length does not
// swallow the frames after it. The CRC32C covers all that is before it.
//
//	+-----------------+--------+-------+---------+--------+
//	| magic: a5 50 46 | length | check | message | CRC32C |
//	+-----------------+--------+-------+---------+--------+
//	  3                 2        1       length    4
func Stream(rwc io.ReadWriteCloser) Link {
	return &stream{rwc: rwc, in: framing.NewScanner(rwc, framing.Layout{
		Magic:  streamMagic,
		Header: streamHeader,
		Size:   streamFrameSize,
		Valid:  func(frame []byte) bool { _, err := framing.TrimCRC32C(frame); return err == nil },
		Max:    streamHeader + streamMessage + streamTrailer,
	})}
}

type stream struct {
	rwc io.ReadWriteCloser
	in  *framing.Scanner
	out []byte // the frame being written
}

// streamFrameSize is the length of the frame that begins with header, -1 if
// none does.
func streamFrameSize(header []byte) int64 {
	c := framing.NewCursor(header[len(streamMagic):])
	n := c.Uint16()
	if c.Uint8() != lengthCheck(n) || n > streamMessage {
		return -1
	}
	return int64(streamHeader) + int64(n) + streamTrailer
}

func lengthCheck(n uint16) uint8 { return uint8(n) ^ uint8(n>>8) ^ 0x5a }

func (s *stream) ReadMessage(buf []byte) (int, error) {
	frame, err := s.in.Next()
	if err != nil {
		return 0, err
	}
	return copy(buf, frame[streamHeader:len(frame)-streamTrailer]), nil
}

func (s *stream) WriteMessage(msg []byte) error {
	if len(msg) > streamMessage {
		return &transport.TooLargeError{What: "message", Size: int64(len(msg)), Max: streamMessage}
	}
	n := uint16(len(msg))
	s.out = append(s.out[:0], streamMagic...)
	s.out = append(framing.AppendUint(s.out, framing.LittleEndian, 2, uint64(n)), lengthCheck(n))
	s.out = framing.AppendCRC32C(append(s.out, msg...), 0)
	k, err := s.rwc.Write(s.out)
	if err == nil && k < len(s.out) {
		err = io.ErrShortWrite
	}
	return err
}

func (s *stream) Info() LinkInfo {
	info := LinkInfo{Protocol: "stream", Ordered: true, MaxMessage: streamMessage}
	switch c := s.rwc.(type) {
	case net.Conn:
		info.Peer = fmt.Sprint(c.RemoteAddr())
	case interface{ Name() string }: // an *os.File
		info.Peer = c.Name()
	}
	return info
}

func (s *stream) Close() error { return s.rwc.Close() }
