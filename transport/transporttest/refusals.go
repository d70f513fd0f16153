package transporttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// refused checks that an error is a refusal.
func (r *rig) refused(err error, reason transport.Reason, retryable bool) {
	r.Helper()
	refusal, e := (*transport.RejectedError)(nil), (*transport.Error)(nil)
	if !errors.As(err, &refusal) || !errors.As(err, &e) {
		r.Errorf("got %v; want an *Error with a *RejectedError (%v)", err, reason)
		return
	}
	if refusal.Reason != reason || refusal.Retryable != retryable || e.Outcome != transport.Rejected {
		r.Errorf("refused for the reason %q, retryable %v, outcome %q; want %q, %v, %q: %v",
			refusal.Reason, refusal.Retryable, e.Outcome, reason, retryable, transport.Rejected, err)
	}
}

func checkRejection(t testing.TB, k transportKit) {
	var answer atomic.Pointer[error]
	r := k.rig(t, func(s *transport.Server) {
		s.Handler = func(context.Context, *transport.Incoming) error {
			if err := answer.Swap(nil); err != nil {
				return *err
			}
			return nil
		}
	})
	for _, tt := range []struct {
		err       error
		reason    transport.Reason
		retryable bool
	}{
		{transport.Reject("not a cat"), transport.ReasonHandler, false},
		{errors.New("database is down"), transport.ReasonHandler, true},
		{&transport.RejectedError{Reason: transport.ReasonBusy, Retryable: true, Text: "later", After: 3 * time.Second}, transport.ReasonBusy, true},
	} {
		answer.Store(&tt.err)
		c := r.next(false)
		img, b := r.image()
		_, err := r.send(t.Context(), c, img, nil)
		if err == nil && k.Confirms == transport.Kept {
			t.Errorf("the Handler's error %q was lost: Send says that the image is kept", tt.err)
		}
		if k.Rejections {
			r.refused(err, tt.reason, tt.retryable)
			if want, got := (*transport.RejectedError)(nil), (*transport.RejectedError)(nil); errors.As(tt.err, &want) && errors.As(err, &got) &&
				(got.Text != want.Text || got.After != want.After) {
				t.Errorf("the refusal %+v arrived as %+v", *want, *got)
			}
		}
		if err == nil { // the Handler may be yet to come
			waitFor(t, "the Handler", func() bool { return answer.Load() == nil })
		}
		r.works(err != nil && !k.Rejections, "a refusal")
		r.nothing(b)
	}
}

// waitFor waits for something that no channel tells.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	within(t, what, func() {
		for !ok() {
			time.Sleep(5 * time.Millisecond)
		}
	})
}

func checkRetry(t testing.TB, k transportKit) {
	if !k.Rejections {
		t.Skip("Rejections is not claimed")
	}
	var mu sync.Mutex
	var ids []transport.ID
	r := k.rig(t, func(s *transport.Server) {
		s.Handler = func(_ context.Context, in *transport.Incoming) error {
			mu.Lock()
			defer mu.Unlock()
			if ids = append(ids, in.ID); len(ids) < 3 {
				return errors.New("not yet")
			}
			return nil
		}
	})
	img, b := r.image()
	p := newProgress(t, int64(len(b)))
	r.deliver(r.conn, img, b, &transport.SendOptions{Retry: &transport.RetryPolicy{Initial: time.Millisecond}, Progress: p.report})
	p.ended(k)
	mu.Lock()
	defer mu.Unlock()
	if len(ids) != 3 || k.IDs && (ids[0] != ids[1] || ids[1] != ids[2]) {
		t.Errorf("the Handler saw the IDs %v; want three attempts under one", ids)
	}
}

func checkRequire(t testing.TB, k transportKit) {
	r := k.rig(t, nil)
	for level := k.Confirms + 1; level <= transport.Kept; level++ {
		img, b := r.image()
		_, err := r.send(t.Context(), r.conn, img, &transport.SendOptions{Require: level})
		if !errors.Is(err, transport.ErrUnconfirmed) {
			t.Errorf("Send with Require %q over a protocol that confirms %q: %v; want ErrUnconfirmed", level, k.Confirms, err)
		}
		r.works(false, "a Require that cannot be met")
		r.nothing(b)
	}
	for level := transport.Sent; level <= k.Confirms; level++ {
		c := r.next(false)
		img, b := r.image()
		r.deliver(c, img, b, &transport.SendOptions{Require: level})
	}
}

func checkTooLarge(t testing.TB, k transportKit) {
	limit := k.fit(1000)
	r := k.rig(t, func(s *transport.Server) { s.Limits.MaxImage = limit })
	if k.MaxSize > 0 {
		b := make([]byte, k.MaxSize+1)
		_, err := r.send(t.Context(), r.conn, r.imageOf(b), nil)
		if tooLarge := (*transport.TooLargeError)(nil); !errors.As(err, &tooLarge) {
			t.Errorf("Send of %d bytes, one more than the protocol can: %v; want a *TooLargeError", len(b), err)
		}
	}
	if k.MaxSize == 0 || limit < k.MaxSize {
		b := r.content(int(limit) + 1)
		_, err := r.send(t.Context(), r.conn, r.imageOf(b), nil)
		if k.Rejections {
			r.refused(err, transport.ReasonTooLarge, false)
		} else if err == nil && k.Confirms == transport.Kept {
			t.Error("an image over the receiver's limit was kept, says Send")
		}
		if err == nil || !k.Rejections {
			r.conn.Close()
			r.conn = r.dial()
		}
		defer r.nothing(b)
	}
	c := r.next(false)
	b := r.content(int(limit))
	r.deliver(c, r.imageOf(b), b, nil)
}

var errSource = errors.New("the camera was unplugged")

// failing reads b and then fails.
func failing(b []byte, err error) io.ReadCloser {
	return io.NopCloser(io.MultiReader(&fitful{b}, readerFunc(func([]byte) (int, error) { return 0, err })))
}

// cut is a stream that says once that it was cut after b, and then that it ends, as the body of an HTTP request does.
func cut(b []byte, err error) transport.Body {
	said := false
	return transport.Stream(io.MultiReader(&fitful{b}, readerFunc(func([]byte) (int, error) {
		if said {
			return 0, io.EOF
		}
		said = true
		return 0, err
	})))
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func checkBadSource(t testing.TB, k transportKit) {
	r := k.rig(t, nil)
	b := make([]byte, k.usual())
	half, head := b[:len(b)/2], b[:len(b)/3%10]
	ended := fmt.Errorf("reading the upload: %w", io.EOF) // a failure, as it does not say that this is the end
	type source struct {
		name string
		body transport.Body
		want error // nil: any
		late bool  // the failure comes after bytes have left
	}
	sources := []source{
		{"no body", transport.Body{}, nil, false},
		{"a file that is not there", transport.File(filepath.Join(t.TempDir(), "x")), os.ErrNotExist, false},
		{"a body that does not open", transport.OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
			return nil, 0, errSource
		}), errSource, false},
		{"a reader that fails half-way", transport.OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
			return failing(half, errSource), int64(len(b)), nil
		}), errSource, true},
		{"a reader that ends early", transport.OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
			return io.NopCloser(&fitful{half}), int64(len(b)), nil
		}), nil, true},
		{"a ReaderAt that ends early", transport.Content(bytes.NewReader(half), int64(len(b))), nil, true},
	}
	if k.UnknownSize {
		sources = append(sources, []source{
			{"a stream that is cut", cut(half, io.ErrUnexpectedEOF), io.ErrUnexpectedEOF, true},
			{"a stream that is cut in its first bytes", cut(head, io.ErrUnexpectedEOF), io.ErrUnexpectedEOF, false},
			{"a stream whose connection ends", cut(half, ended), ended, true},
			{"a stream whose connection ends in its first bytes", cut(head, ended), ended, false},
		}...)
	}
	for _, tt := range sources {
		if len(b) < 2 && tt.late {
			continue
		}
		c := r.next(false)
		_, err := r.send(t.Context(), c, &transport.Image{Name: "bad.jpg", Body: tt.body}, nil)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: Send returned %v; want %v", tt.name, err, tt.want)
		}
		r.works(tt.late, tt.name)
	}
	r.nothing(b, half, head)
}
