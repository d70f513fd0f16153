package transport_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
)

func TestRetryAttempts(t *testing.T) {
	final := transport.Reject("not a cat")
	for _, tt := range []struct {
		name   string
		policy *transport.RetryPolicy
		fail   error
		heals  int // the attempt that succeeds; 0: none
		calls  int
		want   error
	}{
		{"nil policy", nil, io.ErrUnexpectedEOF, 0, 1, io.ErrUnexpectedEOF},
		{"zero policy", &transport.RetryPolicy{}, io.ErrUnexpectedEOF, 0, 5, io.ErrUnexpectedEOF},
		{"heals", &transport.RetryPolicy{}, io.ErrUnexpectedEOF, 3, 3, nil},
		{"no bound", &transport.RetryPolicy{MaxAttempts: -1}, io.ErrUnexpectedEOF, 100, 100, nil},
		{"one attempt", &transport.RetryPolicy{MaxAttempts: 1}, io.ErrUnexpectedEOF, 2, 1, io.ErrUnexpectedEOF},
		{"permanent", &transport.RetryPolicy{}, final, 0, 1, final},
		{"success", &transport.RetryPolicy{}, nil, 0, 1, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				err := transport.Retry(t.Context(), tt.policy, func(context.Context) error {
					if calls++; calls == tt.heals {
						return nil
					}
					return tt.fail
				})
				if !errors.Is(err, tt.want) || calls != tt.calls {
					t.Errorf("%d calls and %v, want %d and %v", calls, err, tt.calls, tt.want)
				}
			})
		})
	}
}

// waits returns the pauses between n failing attempts, each of which Notify has told.
func waits(t *testing.T, p transport.RetryPolicy, n int, fail error) []time.Duration {
	var w, told []time.Duration
	last := time.Now()
	p.MaxAttempts = n
	p.Notify = func(attempt int, err error, wait time.Duration) {
		if told = append(told, wait); attempt != len(told) || !errors.Is(err, fail) {
			t.Errorf("attempt %d is told as %d, with %v", len(told), attempt, err)
		}
	}
	transport.Retry(t.Context(), &p, func(context.Context) error {
		w, last = append(w, time.Since(last)), time.Now()
		return fail
	})
	if !slices.Equal(told, w[1:]) {
		t.Errorf("pauses of %v are told as %v", w[1:], told)
	}
	return w[1:]
}

func TestRetryWaitsDoubleUpToMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second}
		most := make([]time.Duration, len(limits))
		for range 400 {
			for i, w := range waits(t, transport.RetryPolicy{Initial: time.Second, Max: 5 * time.Second}, len(limits)+1, io.EOF) {
				if w > limits[i] {
					t.Fatalf("wait %d took %v, over %v", i, w, limits[i])
				}
				most[i] = max(most[i], w)
			}
		}
		for i := range most { // 400 draws that all miss the upper tenth: 1 in 10^18
			if most[i] < limits[i]*9/10 {
				t.Errorf("wait %d never took more than %v, want up to %v", i, most[i], limits[i])
			}
		}
	})
}

func TestRetryWaitsAtLeastWhatThePeerAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := &transport.RejectedError{Reason: transport.ReasonBusy, Retryable: true, After: time.Minute}
		for _, w := range waits(t, transport.RetryPolicy{Initial: time.Millisecond}, 4, &transport.Error{Op: "send", Err: busy}) {
			if w < time.Minute || w > time.Minute+10*time.Millisecond {
				t.Errorf("waited %v, want a minute and a little", w)
			}
		}
	})
}

func TestRetryExtremeDurations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, p := range []transport.RetryPolicy{
			{Initial: 1<<63 - 1, Max: 1<<63 - 1}, {Initial: -1}, {Max: -1}, {Initial: time.Hour, Max: time.Nanosecond},
		} {
			p.MaxAttempts = 4
			calls := 0
			err := transport.Retry(t.Context(), &p, func(context.Context) error { calls++; return io.EOF })
			if err != io.EOF || calls != 4 {
				t.Errorf("%+v: %d calls, %v", p, calls, err)
			}
		}
	})
}

func TestRetryEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		busy := &transport.RejectedError{Reason: transport.ReasonBusy, Retryable: true, After: time.Hour}
		err := transport.Retry(ctx, &transport.RetryPolicy{MaxAttempts: -1}, func(context.Context) error { return busy })
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, busy) {
			t.Errorf("%v: want it to match the context's error and the refusal", err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %v, want the minute of the context", took)
		}
	})
}

func TestRetryDoesNotBeginAfterItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := transport.Retry(ctx, nil, func(context.Context) error { t.Error("called"); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	calls := 0
	ctx, cancel = context.WithCancel(t.Context())
	err = transport.Retry(ctx, &transport.RetryPolicy{Initial: 1}, func(context.Context) error { calls++; cancel(); return io.EOF })
	if calls != 1 || !errors.Is(err, context.Canceled) || !errors.Is(err, io.EOF) {
		t.Errorf("%d calls, %v", calls, err)
	}
}
