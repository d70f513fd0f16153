package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/pixferry/pixferry/chunk"
)

// spyStore records what happens to its partial images, and fails on request.
type spyStore struct {
	MemStore
	mu     sync.Mutex // of events
	events []string
	fail   map[string]error
}

func (s *spyStore) note(event string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, event)
	return s.fail[event]
}

func (s *spyStore) Open(ctx context.Context, o PartialOffer) (Partial, error) {
	if err := s.note("open"); err != nil {
		return nil, err
	}
	p, err := s.MemStore.Open(ctx, o)
	return &spyPartial{p, s}, err
}

func (s *spyStore) Receipt(ctx context.Context, id ID) (Receipt, bool, error) {
	if err := s.fail["receipt"]; err != nil {
		return Receipt{}, false, err
	}
	return s.MemStore.Receipt(ctx, id)
}

type spyPartial struct {
	Partial
	s *spyStore
}

func (p *spyPartial) WriteAt(b []byte, off int64) (int, error) {
	if err := p.s.fail["write"]; err != nil {
		return 0, err
	}
	return p.Partial.WriteAt(b, off)
}

func (p *spyPartial) ReadAt(b []byte, off int64) (int, error) {
	if err := p.s.fail["read"]; err != nil {
		return 0, err
	}
	return p.Partial.ReadAt(b, off)
}

func (p *spyPartial) Checkpoint(b []chunk.Block) error {
	if err := p.s.note("checkpoint"); err != nil {
		return err
	}
	return p.Partial.Checkpoint(b)
}

func (p *spyPartial) Drop(indices []int64) error {
	if err := p.s.fail["drop"]; err != nil {
		return err
	}
	return p.Partial.Drop(indices)
}

func (p *spyPartial) Commit(ctx context.Context, img *Image, r Receipt) (string, error) {
	if err := p.s.note("commit"); err != nil {
		return "", err
	}
	return p.Partial.Commit(ctx, img, r)
}

func (p *spyPartial) Keep() error    { return errors.Join(p.s.note("keep"), p.Partial.Keep()) }
func (p *spyPartial) Discard() error { return errors.Join(p.s.note("discard"), p.Partial.Discard()) }

// deliverTo sends content into an Inbox, all at once.
func deliverTo(ctx context.Context, in *Inbox, o Offer, content []byte) (Receipt, error) {
	a, err := in.Offer(ctx, o)
	if err != nil {
		return Receipt{}, err
	}
	if _, err := a.WriteAt(content, 0); err != nil {
		return Receipt{}, err
	}
	return a.Finish(ctx, -1, digestOf(XXH3, content))
}

func TestOrderIsVerifyHandleCommitReceipt(t *testing.T) {
	content := picture(1, 2*block)
	for _, streaming := range []bool{false, true} {
		store := &spyStore{}
		s := &Server{Store: store, Streaming: streaming}
		s.Handler = func(ctx context.Context, in *Incoming) error {
			got, err := in.Image.Body.ReadAll(ctx)
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("the Handler reads %d bytes, %v", len(got), err)
			}
			if _, known, _ := store.Receipt(ctx, in.ID); known {
				t.Error("a receipt before the Handler has agreed")
			}
			if !streaming && (in.Digest != digestOf(XXH3, content) || in.Size != int64(len(content))) {
				t.Error("incoming:", in.Digest, in.Size)
			}
			if in.Peer != "p" || in.Conn == nil {
				t.Error("incoming:", in)
			}
			return store.note("handled")
		}
		bubble(t, s, func(t *testing.T) {
			r, err := deliverTo(t.Context(), inbox(t, s, "p"), Offer{Size: int64(len(content))}, content)
			if err != nil || r.Level != Kept {
				t.Fatal(r, err)
			}
			if want := []string{"open", "checkpoint", "handled", "commit"}; !slices.Equal(store.events, want) {
				t.Errorf("streaming %v: %v, want %v", streaming, store.events, want)
			}
		})
	}
}

func TestHandlerIsNotShownWhatIsWrong(t *testing.T) {
	s := &Server{Store: &MemStore{}, Handler: func(context.Context, *Incoming) error {
		t.Error("the Handler was called")
		return nil
	}}
	bubble(t, s, func(t *testing.T) {
		in := inbox(t, s, "p")
		a := mustOffer(t, in, Offer{Size: 100})
		mustWrite(t, a, make([]byte, 99), 0)
		_, err := a.Finish(t.Context(), -1, chunk.Digest{})
		wantReason(t, err, ReasonIncomplete, true)
		a = mustOffer(t, in, Offer{Size: 100})
		mustWrite(t, a, make([]byte, 100), 0)
		_, err = a.Finish(t.Context(), -1, digestOf(XXH3, nil))
		wantReason(t, err, ReasonDigest, true)
	})
}

func TestHandlerErrors(t *testing.T) {
	wrapped := fmt.Errorf("outer: %w", &RejectedError{Reason: ReasonBusy, Retryable: true, Text: "later"})
	for name, c := range map[string]struct {
		handler   func() error
		reason    Reason
		retryable bool
		end       string // of the partial image, if the sender can resume
	}{
		"any error":  {func() error { return errors.New("database down") }, ReasonHandler, true, "keep"},
		"Reject":     {func() error { return Reject("no %s", "faces") }, ReasonHandler, false, "discard"},
		"of its own": {func() error { return wrapped }, ReasonBusy, true, "keep"},
		"panic":      {func() error { panic("oh") }, ReasonHandler, true, "keep"},
		"Goexit":     {func() error { runtime.Goexit(); return nil }, ReasonHandler, true, "keep"},
		"huge error": {func() error { return errors.New(string(make([]byte, 10_000))) }, ReasonHandler, true, "keep"},
		"typed nil":  {func() error { return (*RejectedError)(nil) }, ReasonHandler, false, "discard"},
		"too large":  {func() error { return &TooLargeError{What: "image", Size: 2, Max: 1} }, ReasonTooLarge, false, "discard"},
	} {
		for _, streaming := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, streaming %v", name, streaming), func(t *testing.T) {
				store := &spyStore{}
				result := c.handler
				s := &Server{Store: store, Streaming: streaming, Handler: func(ctx context.Context, in *Incoming) error {
					if _, err := in.Image.Body.ReadAll(ctx); err != nil {
						t.Error(err)
					}
					return result()
				}}
				bubble(t, s, func(t *testing.T) {
					in := inbox(t, s, "p")
					o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: 100, Resume: true}
					_, err := deliverTo(t.Context(), in, o, picture(1, 100))
					wantReason(t, err, c.reason, c.retryable)
					if got := store.events[len(store.events)-1]; got != c.end || countKept(&store.MemStore) != 0 {
						t.Errorf("%v; %d images kept", store.events, countKept(&store.MemStore))
					}
					result = func() error { return nil }
					if _, err := deliverTo(t.Context(), in, o, picture(1, 100)); err != nil {
						t.Error("again under the same ID:", err)
					}
				})
			})
		}
	}
}

func TestStoreFailures(t *testing.T) {
	full := fmt.Errorf("put https://store/bucket?key=secret: %w", syscall.ENOSPC)
	away := errors.New("put https://store/bucket?key=secret: no answer")
	own := reject(ReasonExists, "there is one")
	for _, c := range []struct {
		at        string
		err       error
		reason    Reason
		retryable bool
	}{
		{"receipt", full, ReasonDisk, true},
		{"open", full, ReasonDisk, true},
		{"open", own, ReasonExists, false},
		{"open", away, ReasonDisk, true},
		{"write", full, ReasonDisk, true},
		{"checkpoint", full, ReasonDisk, true},
		{"read", full, ReasonDisk, true}, // for the media type
		{"commit", full, ReasonDisk, true},
		{"commit", own, ReasonExists, false},
	} {
		t.Run(c.at, func(t *testing.T) {
			store := &spyStore{fail: map[string]error{c.at: c.err}}
			var heard error
			s := &Server{Store: store, Limits: Limits{MaxActive: 1}, Hooks: Hooks{Finished: func(_ TransferInfo, _ Receipt, err error) { heard = err }}}
			bubble(t, s, func(t *testing.T) {
				in := inbox(t, s, "p")
				o := Offer{ID: MakeID(1, 1), Size: block}
				_, err := deliverTo(t.Context(), in, o, make([]byte, block))
				wantReason(t, err, c.reason, c.retryable)
				if synctest.Wait(); strings.Contains(err.Error(), "secret") || c.err != own && !errors.Is(heard, c.err) {
					t.Errorf("the sender hears %q, the receiver's hook %q", err, heard)
				}
				opened := c.at != "open" && c.at != "receipt"
				if n := len(store.events); opened && store.events[n-1] != "discard" {
					t.Error("the lease is not given up:", store.events)
				}
				store.fail = nil
				if _, err := deliverTo(t.Context(), in, o, make([]byte, block)); err != nil {
					t.Error("the next transfer:", err)
				}
			})
		})
	}
}

func TestBodyEndsWithTheHandler(t *testing.T) {
	content := picture(1, 1000)
	for _, streaming := range []bool{false, true} {
		var body *OpenBody
		s := &Server{Streaming: streaming, Handler: func(ctx context.Context, in *Incoming) (err error) {
			body, err = in.Image.Body.Open(ctx)
			if err != nil {
				return err
			}
			if streaming {
				_, err = in.Image.Body.Open(ctx)
				if !errors.Is(err, ErrBodyConsumed) {
					t.Error("opened twice:", err)
				}
				return nil
			}
			for range 2 {
				if got, err := in.Image.Body.ReadAll(ctx); err != nil || !bytes.Equal(got, content) {
					t.Error(len(got), err)
				}
			}
			part := make([]byte, 10)
			if _, err := body.ReaderAt.ReadAt(part, 500); err != nil || !bytes.Equal(part, content[500:510]) {
				t.Error(part, err)
			}
			if n, err := body.ReaderAt.ReadAt(part, 995); n != 5 || err != io.EOF {
				t.Error("over the end:", n, err)
			}
			return nil
		}}
		bubble(t, s, func(t *testing.T) {
			if _, err := deliverTo(t.Context(), inbox(t, s, "p"), Offer{Size: 1000}, content); err != nil {
				t.Fatal(err)
			}
			if n, err := body.Read(make([]byte, 10)); n != 0 || err == nil || err == io.EOF {
				t.Errorf("streaming %v: after the Handler: %d, %v", streaming, n, err)
			}
		})
	}
}

// Without a Store images pass through, and receipts stay.
func TestNoStore(t *testing.T) {
	calls := 0
	s := &Server{Handler: func(ctx context.Context, in *Incoming) error { calls++; return nil }}
	bubble(t, s, func(t *testing.T) {
		in := inbox(t, s, "p")
		content := make([]byte, 30*block)
		for i := range uint64(10) { // more than the memory that it may take
			for range 2 {
				if _, err := deliverTo(t.Context(), in, Offer{ID: MakeID(1, i), Size: -1}, content); err != nil {
					t.Fatal(i, err)
				}
			}
		}
		if calls != 10 {
			t.Error(calls, "Handler calls for 10 images, each sent twice")
		}
	})
}

func TestServerNeedsHandlerOrStore(t *testing.T) {
	if err := new(Server).ServeConn(t.Context(), newTap("p")); err == nil || Retryable(err) {
		t.Error(err)
	}
}
