package arq

import (
	"math"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

const (
	sizeTries    = 3                // losses of a probe before its size counts as too large
	sizeInterval = time.Second      // between a lost probe and the next
	sizeRetry    = 10 * time.Minute // until a size that was too large is tried again (RFC 8899, PMTU_RAISE_TIMER)
	blackHole    = 3                // probe timeouts in a row before large messages are given up
	swallows     = 6                // losses of large messages in a row before they are
)

// sizer decides how large messages are and probes for larger ones as RFC 8899 does,
// but with messages full of data: a probe that arrives has not cost anything.
type sizer struct {
	base    int   // known to work
	limit   int   // of the peer and the link
	link    int   // what the link takes, as far as is known
	larger  []int // sizes to probe for, ascending
	current int

	probing bool  // a probe is outstanding
	holes   uint8 // losses in a row of messages of hole bytes or more
	tries   uint8
	hole    int32
	next    time.Duration // no probe before it
}

func newSizer(base int, larger []int, limit int) sizer {
	s := sizer{base: base, larger: larger, limit: limit, link: math.MaxInt}
	s.current = min(base, limit)
	return s
}

// least returns the size that control frames have to fit in, whatever becomes of current.
func (s *sizer) least() int { return min(s.base, s.current) }

// setLimit notes what the peer takes at most.
func (s *sizer) setLimit(limit int) {
	s.limit = min(limit, s.link)
	s.base = min(s.base, s.limit)
	s.current = min(max(s.current, s.base), limit)
}

// lower notes that the link does not take more than most, or than what every link takes.
func (s *sizer) lower(most int) {
	s.link = min(s.link, max(most, wire.MinMessage))
	s.limit = min(s.limit, s.link)
	s.base = min(s.base, s.limit)
	s.current = min(s.current, s.limit)
}

// probe returns a size to probe for now, 0 for none.
func (s *sizer) probe(now time.Duration) int {
	if s.probing || now < s.next {
		return 0
	}
	for _, size := range s.larger {
		if size > s.current && size <= s.limit {
			return size
		}
	}
	return 0
}

// sent notes that a probe has left.
func (s *sizer) sent() { s.probing = true }

// acked notes that a probe of so many bytes arrived.
func (s *sizer) acked(size int) {
	s.probing, s.tries, s.next = false, 0, 0
	s.current = max(s.current, min(size, s.limit))
}

// lost notes that a probe was lost.
func (s *sizer) lost(now time.Duration) {
	s.probing = false
	s.next = now + sizeInterval
	if s.tries++; s.tries >= sizeTries {
		s.tries = 0
		s.next = now + sizeRetry
	}
}

// swallowed notes that messages of size bytes and more were lost although a later one has arrived: after a few times,
// with none of that size that has arrived, messages get smaller, but not under least bytes. A broker that was started
// anew with a lower limit drops what is over it, without a word, and so does a path whose MTU has fallen.
func (s *sizer) swallowed(now time.Duration, size, least int) {
	if s.holes == 0 || size < int(s.hole) {
		s.hole = int32(size)
	}
	if s.holes++; s.holes < swallows {
		return
	}
	s.holes = 0
	if half := max(min(int(s.hole), s.base)/2, least); half < s.base && int(s.hole) <= s.base {
		s.larger = append([]int{s.base}, s.larger...)
		s.base = half
	}
	s.timeout(now, blackHole)
}

// arrived notes that a message of so many bytes has.
func (s *sizer) arrived(size int) {
	if size >= int(s.hole) {
		s.holes = 0
	}
}

// timeout notes that the probe timer has fired so many times in a row: the path may
// have come to swallow large messages.
func (s *sizer) timeout(now time.Duration, count int) {
	if count >= blackHole && s.current > s.base {
		s.current = s.base
		s.next = now + sizeInterval
	}
}
