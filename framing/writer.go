package framing

import (
	"io"
	"net"
)

// Frames up to this size are copied behind their prefix; larger ones are handed
// to the connection where they are.
const copyLimit = 8 << 10

// A Writer writes frames, each behind its length. It is not safe for concurrent use.
type Writer struct {
	w      io.Writer
	prefix Prefix
	err    error

	small []byte      // prefixes and small frames of one call
	parts [][]byte    // of small, and the large frames between them
	queue net.Buffers // what is left of parts; a field, as a local one would escape
}

// NewWriter returns a Writer of frames to w.
func NewWriter(w io.Writer, p Prefix) *Writer {
	return &Writer{w: w, prefix: p}
}

// WriteFrames writes each argument as one frame, all in one Write. With frames over 8 KiB it is
// one vectored write if the connection supports that (see [net.Buffers]); otherwise each such
// frame, and what lies between them, is a Write of its own. It keeps no reference to the frames.
//
// If a frame is too long for the prefix the error is a *TooLongError, nothing is written, and the
// Writer stays usable. Any other error is that of the connection, which may have cut a frame: all
// later calls return it too.
func (w *Writer) WriteFrames(frames ...[]byte) error {
	if w.err != nil {
		return w.err
	}
	for _, f := range frames {
		if err := w.prefix.check(uint64(len(f))); err != nil {
			return err
		}
	}
	w.gather(frames)
	var total, n int64
	for _, p := range w.parts {
		total += int64(len(p))
	}
	if len(w.parts) == 1 {
		var k int
		k, w.err = w.w.Write(w.parts[0])
		n = int64(k)
	} else {
		w.queue = w.parts
		n, w.err = w.queue.WriteTo(w.w)
		w.queue = nil
	}
	if w.err == nil && n < total {
		w.err = io.ErrShortWrite
	}
	clear(w.parts)
	return w.err
}

// gather fills w.parts with the bytes to write, in order.
func (w *Writer) gather(frames [][]byte) {
	w.small, w.parts = w.small[:0], w.parts[:0]
	from := 0 // start of what small holds and parts does not have yet
	for _, f := range frames {
		w.small = w.prefix.appendLen(w.small, len(f))
		if len(f) <= copyLimit {
			w.small = append(w.small, f...)
			continue
		}
		// If small moves when it grows, this part stays where it was.
		w.parts = append(w.parts, w.small[from:], f)
		from = len(w.small)
	}
	if from < len(w.small) {
		w.parts = append(w.parts, w.small[from:])
	}
}
