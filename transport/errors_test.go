package transport

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/pixferry/pixferry/chunk"
)

func TestRetryable(t *testing.T) {
	_, missing := os.Open(filepath.Join(t.TempDir(), "none"))
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errNet, true},
		{missing, false},
		{&os.PathError{Op: "open", Path: "x", Err: os.ErrPermission}, false},
		{&os.SyscallError{Syscall: "sendto", Err: os.ErrPermission}, true}, // a firewall
		{fmt.Errorf("x: %w", context.Canceled), false},
		{context.DeadlineExceeded, false},
		{ErrIdle, true},
		{ErrPeerClosed, true},
		{ErrPeerRestarted, true},
		{ErrClosed, false},
		{ErrServerClosed, false},
		{ErrBodyConsumed, false},
		{ErrIDUsed, false},
		{ErrSuperseded, false},
		{ErrTooOld, false},
		{ErrNoReceiver, true},
		{chunk.ErrSourceShort, false},
		{&TooLargeError{What: "image", Size: 2, Max: 1}, false},
		{Reject("no"), false},
		{&Error{Op: "send", Outcome: Rejected, Err: &RejectedError{Reason: ReasonBusy, Retryable: true}}, true},
		{fmt.Errorf("dial: %w", configError("x")), false},
	} {
		if got := Retryable(c.err); got != c.want {
			t.Errorf("Retryable(%v) = %v", c.err, got)
		}
	}
}
