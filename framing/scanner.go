package framing

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// scanSlack is what a Scanner reads at once, beyond the frame it is at.
const scanSlack = 4 << 10

// A Layout is what a Scanner must know of the frames it looks for:
//
//	|<----------- Size(header) ----------->|
//	+-------+------------+-----------------+
//	| Magic | and so on  | the rest        |
//	+-------+------------+-----------------+
//	|<----- Header ----->|
type Layout struct {
	Magic string // start of every frame; the longer, the fewer false starts

	Header int // number of bytes that Size needs, with the magic; no frame is shorter

	// Size returns the length in bytes of the whole frame that starts with these Header bytes. A
	// length less than Header or more than Max, for example 0 or -1, means that this is no frame.
	// Size must not keep the slice. If the header has a checksum of its own, check it here: then
	// a broken length makes nobody wait for the end that it promised.
	Size func(header []byte) int64

	// Valid, if not nil, reports whether a frame of the right size is good, for example by its
	// checksum. It must not keep the slice.
	Valid func(frame []byte) bool

	Max int // longest frame in bytes; 0 means 16 MiB
}

// A Scanner finds frames in a stream of bytes that may also hold garbage and broken frames. It
// returns exactly the frames that a search from each position in turn would find: after a frame
// it continues at the frame's end, after anything else one byte further, also inside bytes
// already read, so that a good frame that begins inside a bad one is not lost. It is not safe for
// concurrent use.
//
// A broken length can delay the frames behind it by up to Max bytes, and hostile input can cause
// a call of Valid on Max bytes for every magic: keep Max as small as the protocol allows. Memory
// is at most Max + 4 KiB and grows only as bytes arrive.
type Scanner struct {
	r       io.Reader
	layout  Layout
	magic   []byte
	buf     []byte // unread bytes are buf[start:]
	start   int
	err     error // why r ended
	skipped int64
}

// NewScanner returns a Scanner of r for frames of layout l. It reads ahead, so that nobody else
// can read from r after it.
func NewScanner(r io.Reader, l Layout) *Scanner {
	if l.Max <= 0 {
		l.Max = defaultMax
	}
	l.Header = max(l.Header, len(l.Magic), 1)
	return &Scanner{r: r, layout: l, magic: []byte(l.Magic)}
}

// Skipped returns how many bytes so far belonged to no frame.
func (s *Scanner) Skipped() int64 { return s.skipped }

// Next returns the next frame, from its magic on. The slice is valid until the next call.
//
// The error is that of the reader: io.EOF at the end, also inside a frame, whose bytes then count
// as skipped. It comes only after all good frames, and then with every call. An error that
// matches os.ErrDeadlineExceeded is different: nothing is lost, and Next may be called again.
func (s *Scanner) Next() ([]byte, error) {
	for {
		frame, need := s.find()
		switch {
		case frame != nil:
			return frame, nil
		case s.err == nil:
			if err := s.fill(need); err != nil {
				return nil, err
			}
		case s.start < len(s.buf):
			s.skip(1) // what is missing here will not come
		default:
			return nil, s.err
		}
	}
}

// find skips to the first place where a frame may begin. It returns the frame,
// or how many bytes must be there to know more.
func (s *Scanner) find() (frame []byte, need int) {
	l := &s.layout
	for {
		i := bytes.Index(s.buf[s.start:], s.magic)
		if i < 0 { // but the magic may have begun
			s.skip(max(0, len(s.buf)-s.start-len(s.magic)+1))
			return nil, l.Header
		}
		s.skip(i)
		b := s.buf[s.start:]
		if len(b) < l.Header {
			return nil, l.Header
		}
		if size := l.Size(b[:l.Header:l.Header]); size >= int64(l.Header) && size <= int64(l.Max) {
			n := int(size)
			if n > len(b) {
				return nil, n
			}
			if frame = b[:n:n]; l.Valid == nil || l.Valid(frame) {
				s.start += n
				return frame, n
			}
		}
		s.skip(1)
	}
}

func (s *Scanner) skip(n int) {
	s.start += n
	s.skipped += int64(n)
}

// fill reads once, on the way to need unread bytes.
func (s *Scanner) fill(need int) error {
	held := len(s.buf) - s.start
	if held == 0 {
		s.buf, s.start = s.buf[:0], 0
	}
	if len(s.buf) == cap(s.buf) {
		into := s.buf
		if size := min(need, 2*held) + scanSlack; size > cap(into) {
			into = make([]byte, size)
		}
		s.buf, s.start = into[:copy(into, s.buf[s.start:])], 0
	}
	n, err := s.r.Read(s.buf[len(s.buf):cap(s.buf)])
	s.buf = s.buf[:len(s.buf)+n]
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if n > 0 {
			return nil // the next Read says it again
		}
		return err
	}
	s.err = err
	return nil
}
