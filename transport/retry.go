package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pixferry/pixferry/internal/sleep"
)

// A RetryPolicy says how often to try again and how long to wait. The zero value means 5 attempts
// with waits of at most 200 ms, 400 ms, 800 ms and 1.6 s.
//
// Each wait is random between 0 and a limit that doubles from Initial to Max ("full jitter"), so
// that peers that failed together do not all return at the same time.
type RetryPolicy struct {
	// MaxAttempts is the number of attempts, with the first one; 0 means 5, a negative number
	// means until the context ends.
	MaxAttempts int
	// Initial limits the first wait; 0 means 200 ms.
	Initial time.Duration
	// Max limits every wait; 0 means 10 s.
	Max time.Duration
	// Notify, if not nil, is called before each wait, for logs: the attempt with this number,
	// from 1, has failed with err, and the next one begins after wait. It must not block.
	Notify func(attempt int, err error, wait time.Duration)
}

// longest keeps sums of waits within a Duration.
const longest = time.Duration(1 << 61)

// Retry calls fn until it succeeds, fails with an error that is not [Retryable], or has used up
// the policy's attempts. It returns fn's last error. A nil policy means one attempt.
//
// If a [RejectedError] asks for a pause (After), the wait is longer by that. A wait ends with the
// context; the error then matches both fn's last error and the context's.
func Retry(ctx context.Context, p *RetryPolicy, fn func(ctx context.Context) error) error {
	attempts, limit, most := 1, time.Duration(0), time.Duration(0)
	if p != nil {
		attempts, limit, most = cmp.Or(p.MaxAttempts, 5), cmp.Or(p.Initial, 200*time.Millisecond), cmp.Or(p.Max, 10*time.Second)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for n := 1; ; n++ {
		err := fn(ctx)
		if err == nil || n == attempts || !Retryable(err) {
			return err
		}
		limit = max(0, min(limit, most, longest))
		wait := pause(err, limit)
		if p.Notify != nil {
			p.Notify(n, err, wait)
		}
		if ctxErr := sleep.For(ctx, wait); ctxErr != nil {
			return fmt.Errorf("%w (attempt %d of a retry that ended with its context: %w)", err, n, ctxErr)
		}
		limit += min(limit, most-limit) // doubled, without overflow
	}
}

// pause is a random part of limit on top of what the peer asks for: those whom
// it sent away at once shall not return at once either.
func pause(err error, limit time.Duration) time.Duration {
	wait := time.Duration(rand.Int64N(int64(limit) + 1))
	if r := (*RejectedError)(nil); errors.As(err, &r) && r.After > 0 {
		wait += min(r.After, longest)
	}
	return wait
}
