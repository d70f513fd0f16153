package native_test

import (
	"context"
	"sync"
	"testing"

	"github.com/pixferry/pixferry/transport/native"
)

// Both ends close at once, so that a session hears of its end from its timer, its reader
// and its owner in any order: Close returns when nothing of it runs any more.
func TestBothEndsClose(t *testing.T) {
	for range 100 {
		near, far := memLinks(reliable, 64)
		links := make(chan native.Link, 1)
		links <- far
		accept := func(ctx context.Context) (native.Link, error) {
			select {
			case l := <-links:
				return l, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		l, err := native.Over(nil, native.OneAtATime(accept), native.Config{}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a, err := native.Over(func(context.Context) (native.Link, error) { return near, nil }, nil, native.Config{}).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		both.Go(func() { a.Close() })
		both.Go(func() { b.Close() })
		both.Wait()
		for _, end := range []*memLink{near, far} {
			select {
			case <-end.closed:
			default:
				t.Fatal("a link is open after Close")
			}
		}
		l.Close()
	}
}
