package session

import (
	"runtime"
	"time"
)

const (
	// longYield is how long a worker may take for a large message that the reader needs 40 µs for: more
	// than with XXH3 or BLAKE3, less than with SHA-256.
	longYield = 100 * time.Microsecond
	// maxSkipped bounds how many yields are left out, so that a faster worker is noticed.
	maxSkipped = 15
)

// A yielder leaves the processor to the worker that its owner, a reader, has just given bytes to, while
// they are in the caches; the reader would empty the medium first. But a worker that is much
// slower must not run out of bytes, and then it is better that the reader goes on. So yields that
// take long are left out, more of them each time (10 % with SHA-256: internal/bench, suite tcp).
type yielder struct{ skip, next int }

func (y *yielder) yield() {
	if !y.due() {
		return
	}
	began := time.Now()
	runtime.Gosched()
	y.took(time.Since(began))
}

// due reports whether to yield this time.
func (y *yielder) due() bool {
	if y.skip == 0 {
		return true
	}
	y.skip--
	return false
}

// took notes how long a yield was.
func (y *yielder) took(d time.Duration) {
	if d < longYield {
		y.next = 0
		return
	}
	y.skip, y.next = y.next, min(2*y.next+1, maxSkipped)
}
