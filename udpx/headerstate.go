package udpx

import (
	"bytes"
	"fmt"
	"time"

	"github.com/pixferry/pixferry/framing"
	"github.com/pixferry/pixferry/transport"
)

// settled is the silence after which nothing more belongs to what came before. A sender
// waits for an answer after each image, and for no more than its pace within one.
const settled = 100 * time.Millisecond

// headerState is what a receiver knows of one sender of the protocol Header.
//
//	idle --header--> image --all bytes--> idle
//	    \              | a loss
//	     ---data----> rest --silence, "bad image"--> idle
//
// It is told of datagrams and of time, and says what to do.
type headerState struct {
	order framing.Order
	most  int64         // bytes of an image
	idle  time.Duration // negative: no limit

	phase    headerPhase
	width    int       // of the header; 0: it was not seen
	size     int64     // of the image; 0: its header was not seen
	got      int64     // bytes of it
	unsure   []byte    // came last, and is either the image's end or a header
	last     []byte    // piece, also of the image before
	at       time.Time // of last
	doubled  bool      // a piece was as the one before it
	deadline time.Time // to call expire; zero: never
}

type headerPhase uint8

const (
	headerIdle  headerPhase = iota
	headerImage             // an image is on its way
	headerRest              // what is left of one that is lost
)

// headerStep is something to do.
type headerStep struct {
	kind headerKind
	data []byte // headerData
	at   int64  // of data; headerBegins: the image's size
	err  error  // headerLost
}

type headerKind uint8

const (
	headerBegins headerKind = iota // an image
	headerData                     // a piece of it
	headerWhole                    // it is complete: answer what becomes of it
	headerLost                     // it never will be
	headerBad                      // answer so
)

// take handles a datagram that came at the time now.
func (s *headerState) take(now time.Time, d []byte) (steps []headerStep) {
	if !s.deadline.IsZero() && now.After(s.deadline) {
		steps = s.expire()
	}
	switch {
	case len(d) == 0 && s.full(): // some send an empty one after an image of n * 1,024 bytes
		return append(steps, s.expire()...)
	case len(d) == 0, s.phase == headerIdle && (isAnswer(d) || bytes.Equal(d, s.last) && now.Before(s.at.Add(settled))):
		return steps
	}
	if h, ok := s.header(s.unsure); ok {
		steps = s.begin(steps, now, h) // for something follows it
	}
	h, ok := s.header(d)
	switch {
	case !ok:
		return s.piece(steps, now, d)
	case s.mayEnd(d):
		s.unsure, s.deadline = d, now.Add(settled)
		return steps
	}
	return s.begin(steps, now, h)
}

// header returns what a datagram says if it can be a header. A sender's have one width.
func (s *headerState) header(d []byte) (SizeHeader, bool) {
	h := SizeHeader{Order: s.order}
	err := h.Parse(d)
	return h, err == nil && h.Size <= s.most && (s.width == 0 || s.width == h.Width)
}

// mayEnd reports whether the last datagram of what is on its way can be as long as d.
func (s *headerState) mayEnd(d []byte) bool {
	if s.size == 0 {
		return s.phase == headerRest
	}
	return !s.full() && int64(len(d)) == (s.size-1)%headerPiece+1
}

// full reports whether all bytes are here of an image that more may follow: a doubled
// datagram would have taken the last one's place.
func (s *headerState) full() bool { return s.phase == headerImage && s.got == s.size }

// begin handles a header.
func (s *headerState) begin(steps []headerStep, now time.Time, h SizeHeader) []headerStep {
	switch {
	case s.full():
		steps = append(steps, headerStep{kind: headerWhole})
	case s.phase == headerImage:
		steps = append(steps, s.lost("then the next image began"))
	}
	s.reset()
	s.phase, s.width, s.size = headerImage, h.Width, h.Size
	s.deadline = s.silence(now)
	return append(steps, headerStep{kind: headerBegins, at: h.Size})
}

// piece handles a datagram that is no header.
func (s *headerState) piece(steps []headerStep, now time.Time, d []byte) []headerStep {
	n := int64(len(d))
	if s.phase == headerImage && n == min(headerPiece, s.size-s.got) {
		steps = append(steps, headerStep{kind: headerData, data: d, at: s.got})
		s.doubled = s.doubled || bytes.Equal(d, s.last) && s.got > 0
		s.last, s.at = d, now
		switch s.got += n; {
		case s.got == s.size && n == headerPiece && s.doubled:
			s.deadline = now.Add(settled)
			return steps
		case s.got == s.size:
			s.reset()
			return append(steps, headerStep{kind: headerWhole})
		}
		s.deadline = s.silence(now)
		return steps
	}
	if s.phase != headerRest {
		steps = append(steps, s.lost(fmt.Sprintf("then a datagram of %d that does not fit", n)))
		s.phase = headerRest
	}
	s.got += n
	s.deadline = s.silence(now)
	if n < headerPiece || s.size > 0 && s.got >= s.size {
		s.deadline = now.Add(settled)
	}
	return steps
}

// expire handles the deadline.
func (s *headerState) expire() (steps []headerStep) {
	if end := s.unsure; end != nil {
		s.unsure = nil
		steps = s.piece(steps, s.deadline, end) // for nothing follows it
	} else if s.full() {
		s.reset()
		return append(steps, headerStep{kind: headerWhole})
	} else if s.phase == headerImage {
		steps = append(steps, s.lost(fmt.Sprintf("then nothing for %v", s.idle)))
	}
	if s.phase != headerIdle {
		s.reset()
		steps = append(steps, headerStep{kind: headerBad})
	}
	return steps
}

// reset makes the state idle.
func (s *headerState) reset() {
	*s = headerState{order: s.order, most: s.most, idle: s.idle, last: s.last, at: s.at}
}

// silence is when the wait for the next datagram ends.
func (s *headerState) silence(now time.Time) time.Time {
	if s.idle < 0 {
		return time.Time{}
	}
	return now.Add(s.idle)
}

func (s *headerState) lost(then string) headerStep {
	return headerStep{kind: headerLost, err: &transport.RejectedError{
		Reason: transport.ReasonIncomplete, Retryable: true,
		Text: fmt.Sprintf("%d of %d bytes came, %s", s.got, s.size, then),
	}}
}
