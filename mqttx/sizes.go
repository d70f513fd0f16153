package mqttx

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// ladder holds the message sizes that sessions probe for, in bytes: what brokers
// commonly take (AWS IoT 128 KB), less their headers and ours, and at last
// what holds a piece of an image. Larger messages would be hardly faster, and fall out of
// caches.
var ladder = []int{64 << 10, 120 << 10, largestSize}

const (
	firstSize   = 16 << 10 // with which sessions begin
	largestSize = 256<<10 + 256
	sharedSize  = 120 << 10 // the largest on a client with other traffic, which waits behind each message

	// trialTime is how long a connection must have lived with a size before its end
	// no longer speaks against the size.
	trialTime = 10 * time.Second

	// slowTime is too long for one message: pings and urgent messages wait behind it.
	slowTime = time.Second

	maxTries = 3 // losses of a probe after which its size counts as too large

	// guessTime is how long a limit holds that was concluded from the end of a connection, which may have had
	// other reasons: at first, and then ever longer.
	guessTime = 10 * time.Minute
)

// sizes are what is known about the messages that a broker takes. Brokers of MQTT
// 3.1.1 do not tell: they break the connection at a message that is too large, or
// drop it.
type sizes struct {
	mu    sync.Mutex
	limit int
	most  int               // that limit was at first
	until time.Time         // limit is a guess until then; zero: it is none
	holds time.Duration     // for how long the last guess did
	used  map[int]time.Time // since when this connection has carried messages over firstSize
}

// checkSize says what is wrong with a MaxMessage.
func checkSize(n int) error {
	if n != 0 && n < wire.MinMessage {
		return fmt.Errorf("%w: MaxMessage is %d: set it to %d bytes or more, or to 0 for what the broker takes", transport.ErrConfig, n, wire.MinMessage)
	}
	return nil
}

func newSizes(limit int, shared bool) *sizes {
	limit = min(cmp.Or(limit, largestSize), largestSize)
	if shared {
		limit = min(limit, sharedSize)
	}
	return &sizes{limit: limit, most: limit, used: make(map[int]time.Time)}
}

// begin returns the size that a session begins with and those that it may probe for.
func (z *sizes) begin(now time.Time) (first int, larger []int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if !z.until.IsZero() && now.After(z.until) {
		z.limit, z.until = z.most, time.Time{}
	}
	first = min(firstSize, z.limit)
	for size := first; size < z.limit; {
		size = z.above(size)
		larger = append(larger, size)
	}
	return first, larger
}

// above returns the size to probe for next, current if there is none. The mutex is held.
func (z *sizes) above(current int) int {
	for _, size := range ladder {
		if size > current {
			return max(min(size, z.limit), current)
		}
	}
	return current
}

// room returns the size of a buffer for a message of a session whose full messages
// have so many bytes at present, and for a probe for the next size.
func (z *sizes) room(current int) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.above(current)
}

// sent notes that a message leaves.
func (z *sizes) sent(size int, now time.Time) {
	if size <= firstSize {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if size = class(size); z.used[size].IsZero() {
		z.used[size] = now
	}
}

// lost notes the end of a connection. It reports whether the limit is lower now,
// because the largest message that this connection had just begun to carry may have
// been its end.
func (z *sizes) lost(now time.Time) bool {
	z.mu.Lock()
	suspect := 0
	for size, since := range z.used {
		if now.Sub(since) < trialTime {
			suspect = max(suspect, size)
		}
	}
	clear(z.used)
	defer z.mu.Unlock()
	if suspect == 0 || !z.lower(suspect) {
		return false
	}
	z.holds = max(guessTime, 2*z.holds)
	z.until = now.Add(z.holds)
	return true
}

// refused notes that messages of size bytes are too large.
func (z *sizes) refused(size int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.lower(size)
}

// lower is refused, with the mutex held. It reports whether that was news.
func (z *sizes) lower(size int) bool {
	below := firstSize
	for _, s := range ladder {
		if s < class(size) {
			below = s
		}
	}
	news := below < z.limit
	z.limit = min(z.limit, below)
	return news
}

// largest returns the limit at present.
func (z *sizes) largest() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.limit
}

// class returns the rung of the ladder that a message needs.
func class(size int) int {
	for _, s := range ladder {
		if size <= s {
			return s
		}
	}
	return ladder[len(ladder)-1]
}

// trial is one session's probing.
type trial struct {
	size  int // probed for last
	tries int
	last  time.Time
}

// sent notes a message of n bytes of a session whose full ones had so many bytes
// before and after. It returns a size that has proved to be too large, or 0.
func (p *trial) sent(n, before, after int, now time.Time) (tooLarge int) {
	switch {
	case after >= p.size:
		*p = trial{}
	case p.tries >= maxTries && now.Sub(p.last) > trialTime:
		tooLarge = p.size
		*p = trial{}
		return tooLarge
	}
	if n > before {
		if n != p.size {
			p.tries = 0
		}
		p.size, p.last = n, now
		p.tries++
	}
	return 0
}
