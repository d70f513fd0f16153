package transporttest

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// patience is how long a kit waits for something that must happen. The kits'
// own tests are less patient.
func patience(t testing.TB) time.Duration {
	if t, ok := t.(interface{ patience() time.Duration }); ok {
		return t.patience()
	}
	return 20 * time.Second
}

// A check looks at one promise. It takes a testing.TB so that the kits' own
// tests can watch it fail.
type check[K any] struct {
	name string
	run  func(t testing.TB, kit K)
}

func runAll[K any](t *testing.T, checks []check[K], kit K, bubble bool) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if !bubble {
				c.guarded(t, kit)
				return
			}
			skipped := false
			synctest.Test(t, func(t *testing.T) {
				t.Cleanup(func() { skipped = t.Skipped() }) // which stays within the bubble
				c.guarded(t, kit)
			})
			if skipped {
				t.SkipNow()
			}
		})
	}
}

// guarded runs the check and then, after everything that it cleans up, looks
// for goroutines that it has left behind.
func (c check[K]) guarded(t testing.TB, kit K) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		err := goleak.Find(before)
		for deadline := time.Now().Add(patience(t) / 4); err != nil && time.Now().Before(deadline); {
			err = goleak.Find(before)
		}
		if err != nil {
			t.Errorf("goroutines are left after everything was closed: %v", err)
		}
	})
	c.run(t, kit)
}

// within calls f and ends the test if it does not return in time.
func within(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	await(t, what, done)
}

// await receives from c and ends the test if nothing comes in time.
func await[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience(t)):
		stacks := make([]byte, 64<<10)
		t.Fatalf("%s: nothing after %v\n%s", what, patience(t), stacks[:runtime.Stack(stacks, true)])
	}
	return v
}
