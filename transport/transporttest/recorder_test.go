package transporttest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A recorder is a testing.TB that keeps its failures to itself.
type recorder struct {
	testing.TB
	hangs    bool // something is meant to
	ctx      context.Context
	cancel   context.CancelFunc
	mu       sync.Mutex
	failures []string
	logs     []string
	cleanups []func()
}

// judge runs a check as a test of its own and returns what it complains about.
func judge(t *testing.T, hangs bool, f func(t testing.TB)) []string {
	r := &recorder{TB: t, hangs: hangs}
	r.ctx, r.cancel = context.WithCancel(t.Context())
	run := func(f func()) {
		done := make(chan struct{})
		go func() { defer close(done); f() }()
		<-done
	}
	run(func() { f(r) })
	r.cancel()
	for len(r.cleanups) > 0 {
		last := len(r.cleanups) - 1
		f := r.cleanups[last]
		r.cleanups = r.cleanups[:last]
		run(f)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.failures)
}

// mustComplain runs the named check, which must say something with says.
func mustComplain[K any](t *testing.T, checks []check[K], name string, kit K, says string) {
	t.Helper()
	c := checks[slices.IndexFunc(checks, func(c check[K]) bool { return c.name == name })]
	hangs := says == "nothing after" || says == leftBehind
	got := judge(t, hangs, func(t testing.TB) {
		if says == leftBehind { // a search takes its time
			c.guarded(t, kit)
		} else {
			c.run(t, kit)
		}
	})
	if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, says) }) {
		t.Errorf("%s says %.2000q; want something with %q", name, got, says)
	}
}

const leftBehind = "goroutines are left"

// patience is short where things are meant to hang: elsewhere a busy machine must not
// look like a complaint.
func (r *recorder) patience() time.Duration {
	if r.hangs {
		return 400 * time.Millisecond
	}
	return 2 * time.Second
}

func (r *recorder) fail(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, s)
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failures) > 0
}

func (r *recorder) Helper()                   {}
func (r *recorder) Context() context.Context  { return r.ctx }
func (r *recorder) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Error(a ...any)            { r.fail(fmt.Sprintln(a...)) }
func (r *recorder) Errorf(f string, a ...any) { r.fail(fmt.Sprintf(f, a...)) }
func (r *recorder) Fail()                     { r.fail("Fail") }
func (r *recorder) FailNow()                  { r.fail("FailNow"); runtime.Goexit() }
func (r *recorder) Fatal(a ...any)            { r.Error(a...); runtime.Goexit() }
func (r *recorder) Fatalf(f string, a ...any) { r.Errorf(f, a...); runtime.Goexit() }
func (r *recorder) Logf(f string, a ...any)   { r.logs = append(r.logs, fmt.Sprintf(f, a...)) }
func (r *recorder) Skip(a ...any)             { r.Logf("%s", fmt.Sprint(a...)); runtime.Goexit() }
