package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/chunk"
)

// counted is a reader that counts how often it is closed.
type counted struct {
	io.Reader
	closed *int
}

func (c counted) Close() error { *c.closed++; return nil }

func TestBodiesOverRetries(t *testing.T) {
	content := picture(1, 100_000)
	opened, closed := 0, 0
	again := OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
		opened++
		return counted{bytes.NewReader(content), &closed}, -1, nil
	})
	for name, c := range map[string]struct {
		body   Body
		read   int64 // of the first attempt
		opened int
		target error
	}{
		"ReaderAt":               {Bytes(content), 1000, 0, nil},
		"stream not yet read":    {Stream(bytes.NewReader(content)), 0, 0, nil},
		"stream, sniffed only":   {Stream(bytes.NewReader(content)), sniffLen, 0, nil},
		"stream that was read":   {Stream(bytes.NewReader(content)), sniffLen + 1, 0, ErrBodyConsumed},
		"OpenFunc not yet read":  {again, 0, 1, nil},
		"OpenFunc that was read": {again, 1000, 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opened, closed = 0, 0
				var s Sender
				n := 0
				_, err := s.Send(t.Context(), everything, &Image{Body: c.body}, &SendOptions{Retry: &RetryPolicy{}}, func(_ context.Context, out *Outgoing) (Receipt, error) {
					if n++; n == 1 {
						io.CopyN(io.Discard, out.Body, c.read)
						return Receipt{}, errNet
					}
					if got, err := io.ReadAll(out.Body); err != nil || !bytes.Equal(got, content) {
						t.Error("second attempt:", len(got), err)
					}
					return Receipt{Level: Kept, Bytes: int64(len(content))}, nil
				})
				if !errors.Is(err, c.target) || opened != c.opened || closed != opened {
					t.Errorf("%v; opened %d times, closed %d times", err, opened, closed)
				}
			})
		})
	}
}

// A stream that was read is final at once, whatever ended the attempt.
func TestStreamThatWasReadIsFinal(t *testing.T) {
	for _, cause := range []error{errNet, later(ReasonBusy, "busy")} {
		var s Sender
		n := 0
		_, err := s.Send(t.Context(), everything, &Image{Body: Stream(strings.NewReader("0123456789"))}, &SendOptions{Retry: &RetryPolicy{}}, func(_ context.Context, out *Outgoing) (Receipt, error) {
			n++
			io.ReadAll(out.Body)
			return Receipt{}, cause
		})
		if !errors.Is(err, ErrBodyConsumed) || !errors.Is(err, cause) || Retryable(err) || n != 1 {
			t.Errorf("%v after %d attempts", err, n)
		}
	}
}

// Where a stream fails before its first byte, another attempt finds it used; the error is the stream's still.
func TestStreamThatFailsSaysWhy(t *testing.T) {
	cause := errors.New("the camera is gone")
	for _, o := range []*SendOptions{nil, {Retry: &RetryPolicy{Initial: 1}}} {
		var s Sender
		_, err := s.Send(t.Context(), everything, &Image{Body: Stream(iotest.ErrReader(cause))}, o, func(context.Context, *Outgoing) (Receipt, error) {
			t.Error("an attempt without a body")
			return Receipt{}, nil
		})
		if !errors.Is(err, cause) || o != nil && Retryable(err) {
			t.Errorf("%v", err)
		}
	}
}

func TestBodySizeIsHeld(t *testing.T) {
	ten := func(size int64) Body {
		return OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
			return io.NopCloser(strings.NewReader("0123456789")), size, nil
		})
	}
	for name, c := range map[string]struct {
		body Body
		n    int
		want error
	}{
		"exact":             {ten(10), 10, nil},
		"unknown":           {ten(-1), 10, nil},
		"short":             {ten(11), 10, chunk.ErrSourceShort},
		"long":              {ten(9), 9, chunk.ErrSourceLong},
		"empty":             {Bytes(nil), 0, nil},
		"content":           {Content(strings.NewReader("0123456789"), 5), 5, nil},
		"short content":     {Content(strings.NewReader("0123"), 5), 4, chunk.ErrSourceShort},
		"short, and longer": {ten(0), 0, chunk.ErrSourceLong},
	} {
		b, err := c.body.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(b)
		if string(got) != "0123456789"[:c.n] || !errors.Is(err, c.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestReadAll(t *testing.T) {
	content := picture(1, 100_000)
	path := filepath.Join(t.TempDir(), "a.jpg")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	closed := 0
	opened := func(size int64, r io.Reader) Body {
		return OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
			return &closer{r, &closed}, size, nil
		})
	}
	torn := errors.New("torn")
	for name, c := range map[string]struct {
		body Body
		want []byte
		err  error
	}{
		"bytes":        {Bytes(content), content, nil},
		"nothing":      {Bytes(nil), nil, nil},
		"file":         {File(path), content, nil},
		"no file":      {File(path + "x"), nil, fs.ErrNotExist},
		"no body":      {Body{}, nil, ErrConfig},
		"stream":       {Stream(bytes.NewReader(content)), content, nil},
		"known size":   {opened(100_000, bytes.NewReader(content)), content, nil},
		"short":        {opened(100_001, bytes.NewReader(content)), nil, chunk.ErrSourceShort},
		"long":         {opened(99_999, bytes.NewReader(content)), nil, chunk.ErrSourceLong},
		"torn":         {opened(-1, io.MultiReader(bytes.NewReader(content), iotest.ErrReader(torn))), nil, torn},
		"a false size": {opened(math.MaxInt-1000, bytes.NewReader(content)), nil, chunk.ErrSourceShort},
	} {
		got, err := c.body.ReadAll(t.Context())
		if !bytes.Equal(got, c.want) || !errors.Is(err, c.err) {
			t.Errorf("%s: %d bytes and %v, want %d and %v", name, len(got), err, len(c.want), c.err)
		}
	}
	if closed != 5 {
		t.Errorf("%d of 5 were closed", closed)
	}
	_, err := opened(math.MaxInt64, nil).ReadAll(t.Context())
	if tooLarge := (*TooLargeError)(nil); !errors.As(err, &tooLarge) {
		t.Errorf("more than memory can have: %v", err)
	}
}

type closer struct {
	io.Reader
	closed *int
}

func (c *closer) Close() error { *c.closed++; return nil }

func TestOpenFuncWithoutSize(t *testing.T) {
	closed := 0
	_, err := OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
		return counted{strings.NewReader("x"), &closed}, -7, nil
	}).Open(t.Context())
	if !errors.Is(err, ErrConfig) || closed != 1 {
		t.Errorf("%v, closed %d times", err, closed)
	}
}

// openedFile returns a file of 100 bytes, and its open body.
func openedFile(t *testing.T) (path string, b *OpenBody) {
	path = filepath.Join(t.TempDir(), "x.jpg")
	if err := os.WriteFile(path, picture(1, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := File(path).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return path, b
}

func TestCutFileHasChanged(t *testing.T) {
	path, b := openedFile(t)
	if err := os.Truncate(path, 40); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); !errors.Is(err, ErrSourceChanged) || !strings.Contains(err.Error(), "x.jpg") || len(got) != 40 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := chunk.ReadFullAt(b.ReaderAt, make([]byte, 50), 0); !errors.Is(err, ErrSourceChanged) {
		t.Error(err)
	}
}

// Bytes that were written over in place are of two images, which the size does not tell.
func TestOverwrittenFileHasChanged(t *testing.T) {
	path, b := openedFile(t)
	if err := b.Check(); err != nil {
		t.Error("unchanged:", err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil { // as of a write, whatever the clock's resolution
		t.Fatal(err)
	}
	if err := b.Check(); !errors.Is(err, ErrSourceChanged) {
		t.Error(err)
	}
}

// What was opened and cannot be sent is closed.
func TestBodyOfAnImageThatIsNotSentIsClosed(t *testing.T) {
	var s Sender
	closed := 0
	body := OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
		return counted{strings.NewReader("x"), &closed}, 1, nil
	})
	_, err := s.Send(t.Context(), everything, &Image{Name: "a/b", Body: body}, nil, keep)
	if wantOutcome(t, err, Rejected, nil); closed != 1 {
		t.Errorf("closed %d times", closed)
	}
}

// request is the body of an http.Request from a client that has sent some bytes and then nothing: its Close waits
// for its Read.
type request struct {
	sent    int
	reading chan struct{} // holds a token while nobody reads
	more    chan struct{}
}

func (r *request) Read(p []byte) (int, error) {
	<-r.reading
	defer func() { r.reading <- struct{}{} }()
	if n := min(len(p), r.sent); n > 0 {
		r.sent -= n
		return n, nil
	}
	<-r.more
	return 0, io.ErrUnexpectedEOF
}

func (r *request) Close() error {
	<-r.reading
	return nil
}

func TestSendEndsThoughCloseWaitsForRead(t *testing.T) {
	for _, sent := range []int{0, 5, 4 * sniffLen} {
		synctest.Test(t, func(t *testing.T) {
			r := &request{sent, make(chan struct{}, 1), make(chan struct{})}
			r.reading <- struct{}{}
			defer close(r.more)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			body := OpenFunc(func(context.Context) (io.ReadCloser, int64, error) { return r, 1 << 20, nil })
			var s Sender
			_, err := s.Send(ctx, everything, &Image{Body: body}, nil, func(ctx context.Context, out *Outgoing) (Receipt, error) {
				_, err := io.Copy(io.Discard, out.Body)
				return Receipt{}, err
			})
			wantOutcome(t, err, NotKept, context.DeadlineExceeded)
		})
	}
}
