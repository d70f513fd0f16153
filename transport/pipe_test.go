package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// pipeTo serves one end of a Pipe and returns the other one.
func pipeTo(t *testing.T, s *Server) Conn {
	a, b := Pipe()
	go s.ServeConn(context.Background(), b)
	t.Cleanup(func() { a.Close() })
	return a
}

func wantOutcome(t *testing.T, err error, want Outcome, target error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Outcome != want || e.Op != "send" || e.ID.IsZero() {
		t.Fatalf("got %v, want a send error with outcome %q", err, want)
	}
	if target != nil && !errors.Is(err, target) {
		t.Fatalf("got %v, want %v", err, target)
	}
}

func TestPipeBothWays(t *testing.T) {
	left, right := &MemStore{}, &MemStore{}
	s1, s2 := &Server{Store: left}, &Server{Store: right}
	bubble(t, s1, func(t *testing.T) {
		a, b := Pipe()
		// Sends may begin before the other end is served.
		type result struct {
			r   Receipt
			err error
		}
		results := make(chan result)
		send := func(c Conn, name string, n int) {
			r, err := c.Send(t.Context(), &Image{Name: name, Body: Bytes(picture(uint64(n), n))}, nil)
			results <- result{r, err}
		}
		sizes := []int{0, 1, 100_000, block - 1, block, block + 1, 5 * block}
		for _, n := range sizes {
			go send(a, "to right", n)
			go send(b, "to left", n)
		}
		synctest.Wait()
		go s1.ServeConn(t.Context(), a)
		go s2.ServeConn(t.Context(), b)
		for range 2 * len(sizes) {
			if got := <-results; got.err != nil || got.r.Level != Kept || got.r.Digest != digestOf(XXH3, picture(uint64(got.r.Bytes), int(got.r.Bytes))) {
				t.Errorf("%+v", got)
			}
		}
		for _, store := range []*MemStore{left, right} {
			var got []int
			for img := range store.All() {
				b, err := img.Body.ReadAll(t.Context())
				if err != nil || !bytes.Equal(b, picture(uint64(len(b)), len(b))) {
					t.Error(img.Name, len(b), err)
				}
				got = append(got, len(b))
			}
			if slices.Sort(got); !slices.Equal(got, sizes) {
				t.Error("kept sizes:", got)
			}
		}
		if err := s2.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestPipeMessages(t *testing.T) {
	s := &Server{Message: func(ctx context.Context, from Conn, m Message) error {
		if m.Type == "no" {
			return Reject("no")
		}
		return from.SendMessage(ctx, Message{Type: "answer", Data: m.Data})
	}}
	var got string
	client := &Server{Message: func(_ context.Context, _ Conn, m Message) error { got = m.Type + string(m.Data); return nil }}
	bubble(t, s, func(t *testing.T) {
		a, b := Pipe()
		go s.ServeConn(t.Context(), b)
		go client.ServeConn(t.Context(), a)
		if err := a.SendMessage(t.Context(), Message{Data: []byte("1")}); err != nil || got != "answer1" {
			t.Error(got, err)
		}
		err := a.SendMessage(t.Context(), Message{Type: "no"})
		wantReason(t, err, ReasonHandler, false)
		var e *Error
		if !errors.As(err, &e) || e.Op != "message" || e.Outcome != Rejected {
			t.Errorf("%#v", err)
		}
		client.Shutdown(t.Context())
	})
}

func TestPipeRefusesWhenServingHasEnded(t *testing.T) {
	s := &Server{Store: &MemStore{}}
	bubble(t, s, func(t *testing.T) {
		a, b := Pipe()
		defer a.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := a.Send(ctx, &Image{Body: Bytes(nil)}, nil)
		wantOutcome(t, err, NotKept, context.DeadlineExceeded) // nobody serves yet

		in := make(chan *Inbox, 1)
		go func() {
			b.Serve(ctx, &Inbox{}) // ends at once
			in <- nil
		}()
		<-in
		_, err = a.Send(t.Context(), &Image{Body: Bytes(nil)}, nil)
		wantOutcome(t, err, Rejected, nil)
		wantReason(t, err, ReasonNotServing, false)
		wantReason(t, a.SendMessage(t.Context(), Message{}), ReasonNotServing, false)
		if err := b.Serve(t.Context(), &Inbox{}); !errors.Is(err, ErrServed) {
			t.Error(err)
		}
	})
}

func TestPipeClose(t *testing.T) {
	for _, far := range []bool{false, true} {
		want := ErrClosed
		if far {
			want = ErrPeerClosed
		}
		s := &Server{Store: &MemStore{}, Message: func(ctx context.Context, _ Conn, _ Message) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		bubble(t, s, func(t *testing.T) {
			a, b := Pipe()
			go s.ServeConn(t.Context(), b)
			r, w := io.Pipe()
			results := make(chan error, 3)
			go func() {
				_, err := a.Send(t.Context(), &Image{Body: Stream(r)}, nil)
				results <- err
			}()
			go w.Write(make([]byte, 100))
			unserved := b // a is not served: its Sends wait
			go func() {
				_, err := unserved.Send(t.Context(), &Image{Body: Bytes(nil)}, nil)
				results <- err
			}()
			go func() { results <- a.SendMessage(t.Context(), Message{}) }() // its Handler does not return
			synctest.Wait()
			if far {
				b.Close()
			} else {
				a.Close()
			}
			seen := map[bool]int{}
			for range 3 {
				err := <-results
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				seen[errors.Is(err, ErrPeerClosed)]++
			}
			_, err := a.Send(t.Context(), &Image{Body: Bytes(nil)}, nil)
			wantOutcome(t, err, NotKept, want)
			if err := a.SendMessage(t.Context(), Message{}); !errors.Is(err, want) {
				t.Error(err)
			}
			if err := errors.Join(a.Close(), b.Close()); err != nil {
				t.Error("again:", err)
			}
			r.Close()
		})
	}
}

func TestPipeCancel(t *testing.T) {
	store := &MemStore{}
	s := &Server{Store: store}
	bubble(t, s, func(t *testing.T) {
		a := pipeTo(t, s)
		r, w := io.Pipe() // a source that blocks for ever
		go w.Write(make([]byte, 100))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := a.Send(ctx, &Image{Body: Stream(r)}, &SendOptions{Retry: &RetryPolicy{}})
		wantOutcome(t, err, NotKept, context.DeadlineExceeded)
		r.Close()
		synctest.Wait()
		if len(s.assemblies) != 0 || countKept(store) != 0 {
			t.Error("the transfer was not given up")
		}
		if _, err := a.Send(t.Context(), &Image{Body: Bytes([]byte("x"))}, nil); err != nil {
			t.Error("the Conn did not survive:", err)
		}
	})
}

// stuckAt is content of which a read blocks until back is closed.
type stuckAt struct {
	*bytes.Reader
	reads, stuck int
	back         chan struct{}
}

func (s *stuckAt) ReadAt(p []byte, off int64) (int, error) {
	if s.reads++; s.reads > s.stuck {
		<-s.back
	}
	return s.Reader.ReadAt(p, off)
}

// Content may be a file of a server that is away.
func TestPipeCancelWhileContentBlocks(t *testing.T) {
	for stuck := range 3 { // in the first read, for the media type, or in a later one
		store := &MemStore{}
		s := &Server{Store: store}
		bubble(t, s, func(t *testing.T) {
			a := pipeTo(t, s)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			content, back := picture(1, 3*block), make(chan struct{})
			_, err := a.Send(ctx, &Image{Body: Content(&stuckAt{bytes.NewReader(content), 0, stuck, back}, int64(len(content)))}, nil)
			close(back)
			wantOutcome(t, err, NotKept, context.DeadlineExceeded)
			if countKept(store) != 0 {
				t.Error("kept")
			}
		})
	}
}

func TestPipeCancelWhileHandled(t *testing.T) {
	var answer chan error
	store := &MemStore{}
	s := &Server{Store: store, Handler: func(context.Context, *Incoming) error { return <-answer }}
	bubble(t, s, func(t *testing.T) {
		answer = make(chan error)
		a := pipeTo(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		img := &Image{Name: "x", Body: Bytes([]byte("x"))}
		_, err := a.Send(ctx, img, nil)
		wantOutcome(t, err, Unknown, context.DeadlineExceeded)
		var e *Error
		errors.As(err, &e)
		answer <- nil
		r, err := a.Send(t.Context(), img, &SendOptions{ID: e.ID}) // ask again
		if err != nil || r.Reused != 1 || r.Resent != 0 || countKept(store) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestPipeResumes(t *testing.T) {
	content := picture(1, 4*block+5)
	path := filepath.Join(t.TempDir(), "x.jpg")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(content)
	changed[2*block]++
	for name, c := range map[string]struct {
		second []byte
		reused int64
	}{"same": {content, 3 * block}, "changed": {changed, 2 * block}} {
		t.Run(name, func(t *testing.T) {
			store := &MemStore{}
			s := &Server{Store: store}
			bubble(t, s, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				_, err := pipeTo(t, s).Send(ctx, &Image{Body: File(path)}, &SendOptions{Progress: func(acked, total int64) {
					if acked >= 3*block {
						cancel()
					}
				}})
				wantOutcome(t, err, NotKept, context.Canceled)
				var acked []int64
				img := &Image{Name: "x.jpg", Body: Bytes(c.second)}
				r, err := pipeTo(t, s).Send(t.Context(), img, &SendOptions{Progress: func(n, total int64) {
					acked = append(acked, n)
					if total != int64(len(content)) {
						t.Error("total:", total)
					}
				}})
				if err != nil || r.Reused != c.reused || r.Resent != 0 || r.Bytes != int64(len(content)) {
					t.Errorf("%+v, %v", r, err)
				}
				if !bytes.Equal(kept(t, store, "x.jpg"), c.second) {
					t.Error("other bytes were kept")
				}
				if acked[0] <= c.reused || acked[len(acked)-1] != r.Bytes || !slices.IsSorted(acked) {
					t.Error("progress:", acked)
				}
			})
		})
	}
}

func TestPipeNoticesAChangedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.jpg")
	if err := os.WriteFile(path, picture(1, 3*block), 0o600); err != nil {
		t.Fatal(err)
	}
	store := &MemStore{}
	s := &Server{Store: store}
	bubble(t, s, func(t *testing.T) {
		_, err := pipeTo(t, s).Send(t.Context(), &Image{Body: File(path)}, &SendOptions{Progress: func(acked, _ int64) {
			if acked == block {
				if err := os.WriteFile(path, picture(2, 3*block+1), 0o600); err != nil {
					t.Error(err)
				}
			}
		}})
		wantOutcome(t, err, NotKept, ErrSourceChanged)
		synctest.Wait()
		if countKept(store) != 0 {
			t.Error("a mixture was kept")
		}
	})
}

func TestPipeIDs(t *testing.T) {
	store := &MemStore{}
	s := &Server{Store: store}
	bubble(t, s, func(t *testing.T) {
		a := pipeTo(t, s)
		id := NewID()
		img := &Image{Name: "x", Body: Bytes(picture(1, 100))}
		first, err := a.Send(t.Context(), img, &SendOptions{ID: id})
		if err != nil || first.ID != id {
			t.Fatal(first, err)
		}
		again, err := a.Send(t.Context(), img, &SendOptions{ID: id})
		if err != nil || again.Digest != first.Digest || again.Reused != 100 || again.Resent != 0 {
			t.Error(again, err)
		}
		for name, other := range map[string][]byte{"content": picture(2, 100), "size": picture(1, 101)} {
			_, err = a.Send(t.Context(), &Image{Name: "x", Body: Bytes(other)}, &SendOptions{ID: id})
			if wantOutcome(t, err, NotKept, ErrIDUsed); Retryable(err) {
				t.Error(name, "can be retried")
			}
		}
		if countKept(store) != 1 {
			t.Error(countKept(store))
		}
		if _, err := a.Send(t.Context(), img, nil); err != nil || countKept(store) != 2 { // a new delivery
			t.Error(err, countKept(store))
		}
	})
}

func TestPipeRetries(t *testing.T) {
	calls, ids := 0, map[ID]bool{}
	s := &Server{Store: &MemStore{}, Handler: func(_ context.Context, in *Incoming) error {
		calls++
		ids[in.ID] = true
		if calls < 4 {
			return &RejectedError{Reason: ReasonBusy, Retryable: true, After: time.Minute}
		}
		return nil
	}}
	bubble(t, s, func(t *testing.T) {
		a := pipeTo(t, s)
		start := time.Now()
		var acked []int64
		r, err := a.Send(t.Context(), &Image{Body: Bytes(picture(1, 2*block))}, &SendOptions{
			Retry:    &RetryPolicy{},
			Progress: func(n, _ int64) { acked = append(acked, n) },
		})
		if err != nil || calls != 4 || len(ids) != 1 || !ids[r.ID] || time.Since(start) < 3*time.Minute {
			t.Error(err, calls, ids, time.Since(start))
		}
		if want := []int64{block, 2 * block}; !slices.Equal(acked, want) {
			t.Errorf("progress over the retries: %v, want %v", acked, want)
		}
		// Reused: the partial image was whole already. It is sent again without one.
		if r.Resent != 0 || r.Reused != 2*block {
			t.Errorf("%+v", r)
		}
	})
}

func TestPipeLive(t *testing.T) {
	var answer chan error
	s := &Server{Store: &MemStore{}, Handler: func(_ context.Context, in *Incoming) error {
		if in.Image.Name == "slow" {
			return <-answer
		}
		return nil
	}}
	bubble(t, s, func(t *testing.T) {
		answer = make(chan error)
		a := pipeTo(t, s)
		send := func(name string, live *Live) chan error {
			result := async(func() error {
				_, err := a.Send(t.Context(), &Image{Name: name, Source: "cam", Body: Bytes([]byte(name))}, &SendOptions{Live: live})
				return err
			})
			synctest.Wait()
			return result
		}
		old := send("slow", &Live{})
		if err := <-send("other source", &Live{Source: "mac"}); err != nil {
			t.Error(err)
		}
		if err := <-send("not live", nil); err != nil {
			t.Error(err)
		}
		if len(old) != 0 {
			t.Fatal("superseded by something else:", <-old)
		}
		superseded, newest := send("new", &Live{Source: "cam"}), send("newest", &Live{})
		wantOutcome(t, <-superseded, NotKept, ErrSuperseded)
		if len(newest) != 0 {
			t.Fatal("a frame has overtaken the one that is handled:", <-newest)
		}
		answer <- nil
		if err := errors.Join(<-old, <-newest); err != nil {
			t.Error(err)
		}

		start := time.Now()
		err := <-send("slow", &Live{MaxAge: time.Second})
		if wantOutcome(t, err, Unknown, ErrTooOld); time.Since(start) != time.Second {
			t.Error(time.Since(start))
		}
		answer <- nil
	})
}
