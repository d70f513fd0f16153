package tcpx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pixferry/pixferry/framing"
	"github.com/pixferry/pixferry/transport"
)

// readAhead is how many bytes may be read beyond a message: the next one's length, or some
// small messages. A connection without traffic has no more memory for reading.
const readAhead = 512

// A messageReader reads messages with a read for each if they come one behind the other: a
// message is read into the caller's buffer, and with it the beginning of the next.
type messageReader struct {
	conn  io.Reader
	stall stall
	ahead []byte // of kept: what was read and is not yet returned
	kept  [readAhead]byte
}

// Read reads on within a message.
func (r *messageReader) Read(p []byte) (int, error) {
	r.stall.begin()
	n, err := r.conn.Read(p)
	r.stall.done()
	if err != nil && r.stall.over.Load() {
		err = fmt.Errorf("nothing of the rest of a message for %v: %w", r.stall.idle, transport.ErrIdle)
	}
	return n, err
}

// await reads until n bytes are here, at most readAhead.
func (r *messageReader) await(n int) error {
	held := len(r.ahead)
	if held >= n {
		return nil
	}
	copy(r.kept[:], r.ahead)
	from := io.Reader(r)
	if held == 0 { // a peer may rest between two messages
		from = r.conn
	}
	k, err := io.ReadAtLeast(from, r.kept[held:], n-held)
	if held > 0 {
		err = noEOF(err)
	}
	r.ahead = r.kept[:held+k]
	return err
}

// read reads the next message into buf, whose end is scratch space.
func (r *messageReader) read(buf []byte) (int, error) {
	if err := r.await(prefix.Width); err != nil {
		return 0, err
	}
	announced := binary.LittleEndian.Uint32(r.ahead)
	if announced > maxMessage {
		return 0, &framing.TooLongError{Length: uint64(announced), Max: maxMessage}
	}
	length := int(announced)
	if length > len(buf) {
		return 0, io.ErrShortBuffer
	}
	n := copy(buf[:length], r.ahead[prefix.Width:])
	r.ahead = r.ahead[prefix.Width+n:]
	if n == length {
		return n, nil
	}
	k, err := io.ReadAtLeast(r, buf[n:min(len(buf), length+readAhead)], length-n)
	if err != nil {
		return 0, noEOF(err)
	}
	r.ahead = r.kept[:copy(r.kept[:], buf[length:n+k])]
	return length, nil
}

// noEOF makes io.EOF an end that was not due.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
