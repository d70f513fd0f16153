// Package sleep waits no longer than a context lasts.
package sleep

import (
	"context"
	"time"
)

// For waits for d or the end of the context, whose error it returns.
func For(ctx context.Context, d time.Duration) error {
	if d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}
