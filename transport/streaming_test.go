package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/chunk"
)

func TestStreamingWithoutHandler(t *testing.T) {
	store := &MemStore{}
	s := &Server{Store: store, Streaming: true}
	bubble(t, s, func(t *testing.T) {
		a := mustOffer(t, inbox(t, s, "p"), Offer{Size: 1000})
		for off := range int64(2) {
			mustWrite(t, a, make([]byte, 500), off*500)
			synctest.Wait()
		}
		if _, err := a.Finish(t.Context(), -1, chunk.Digest{}); err != nil || countKept(store) != 1 {
			t.Errorf("%d images kept, %v", countKept(store), err)
		}
	})
}

func TestStreamingReadsWhatHasArrived(t *testing.T) {
	content := picture(1, 2*block)
	reads := make(chan string, 100)
	s := &Server{Store: &MemStore{}, Streaming: true}
	bubble(t, s, func(t *testing.T) {
		var got []byte
		s.Handler = func(ctx context.Context, in *Incoming) error {
			body, err := in.Image.Body.Open(ctx)
			if err != nil {
				return err
			}
			buf := make([]byte, block)
			for {
				n, err := body.Read(buf)
				got = append(got, buf[:n]...)
				if err != nil {
					reads <- err.Error()
					return nil
				}
			}
		}
		a := mustOffer(t, inbox(t, s, "p"), Offer{Size: 2 * block})
		step := func(off, n, readable int) {
			t.Helper()
			mustWrite(t, a, content[off:off+n], int64(off))
			synctest.Wait()
			if len(got) != readable {
				t.Fatalf("after %d bytes at %d: %d were read, want %d", n, off, len(got), readable)
			}
		}
		step(0, 100, 100)
		step(100, block, block+100)
		step(block+200, 100, block+100) // behind a gap
		step(block+100, 100, block+300)
		step(block+300, block-300, 2*block)
		if len(reads) != 0 {
			t.Fatal("the body has ended before it was verified:", <-reads)
		}
		if _, err := a.Finish(t.Context(), -1, digestOf(XXH3, content)); err != nil {
			t.Fatal(err)
		}
		if end := <-reads; end != "EOF" || !bytes.Equal(got, content) {
			t.Error("end:", end)
		}
	})
}

func TestStreamingHearsFailures(t *testing.T) {
	content := picture(1, 1000)
	for name, c := range map[string]struct {
		do   func(t *testing.T, in *Inbox, a *Arrival, o Offer)
		want error
		text string
	}{
		"digest": {do: func(t *testing.T, in *Inbox, a *Arrival, o Offer) {
			mustWrite(t, a, content[500:], 500)
			_, err := a.Finish(t.Context(), -1, digestOf(XXH3, nil))
			wantReason(t, err, ReasonDigest, true)
		}, want: ErrDigest},
		"abort": {do: func(t *testing.T, in *Inbox, a *Arrival, o Offer) {
			a.Abort(errors.New("cable cut"))
		}, text: "canceled: cable cut"},
		"conn": {do: func(t *testing.T, in *Inbox, a *Arrival, o Offer) {
			in.conn.Close()
		}, text: "canceled: the connection has ended: closed on this side"},
		"missing bytes": {do: func(t *testing.T, in *Inbox, a *Arrival, o Offer) {
			_, err := a.Finish(t.Context(), -1, chunk.Digest{})
			wantReason(t, err, ReasonIncomplete, true)
		}, text: "incomplete: 500 of 1000 bytes are missing: 500 to 999"},
		"malformed": {do: func(t *testing.T, in *Inbox, a *Arrival, o Offer) {
			_, err := a.WriteAt(content, 1)
			wantReason(t, err, ReasonMalformed, false)
		}, text: "malformed: chunk: bytes beyond the end of the image: 1000 bytes at 1, its size is 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			end := make(chan error, 2)
			store := &MemStore{}
			s := &Server{Store: store, Streaming: true, Handler: func(ctx context.Context, in *Incoming) error {
				_, err := in.Image.Body.ReadAll(ctx)
				end <- err
				<-ctx.Done() // ends too
				return nil   // which keeps nothing
			}}
			bubble(t, s, func(t *testing.T) {
				end = make(chan error, 2)
				in := inbox(t, s, "p")
				o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: 1000}
				a := mustOffer(t, in, o)
				mustWrite(t, a, content[:500], 0)
				synctest.Wait()
				c.do(t, in, a, o)
				err := <-end
				if err == nil || c.want != nil && !errors.Is(err, c.want) || c.text != "" && err.Error() != c.text {
					t.Errorf("the Handler reads %q", err)
				}
				synctest.Wait()
				if countKept(store) != 0 {
					t.Error("kept")
				}
			})
		})
	}
}

func TestStreamingHandlerRefusesEarly(t *testing.T) {
	s := &Server{Store: &MemStore{}, Streaming: true, Handler: func(ctx context.Context, in *Incoming) error {
		return Reject("not today")
	}}
	bubble(t, s, func(t *testing.T) {
		a := mustOffer(t, inbox(t, s, "p"), Offer{Size: 1000})
		mustWrite(t, a, make([]byte, 500), 0)
		synctest.Wait()
		_, err := a.WriteAt(make([]byte, 500), 500)
		wantReason(t, err, ReasonHandler, false)
	})
}

// A Handler that has seen enough does not end the transfer.
func TestStreamingHandlerAgreesEarly(t *testing.T) {
	store := &MemStore{}
	s := &Server{Store: store, Streaming: true, Handler: func(context.Context, *Incoming) error { return nil }}
	bubble(t, s, func(t *testing.T) {
		a := mustOffer(t, inbox(t, s, "p"), Offer{Size: 1000})
		mustWrite(t, a, make([]byte, 500), 0)
		synctest.Wait()
		_, err := a.Finish(t.Context(), -1, chunk.Digest{})
		wantReason(t, err, ReasonIncomplete, true)
		if countKept(store) != 0 {
			t.Error("a partial image was kept")
		}
		if _, err := deliverTo(t.Context(), inbox(t, s, "p"), Offer{Size: 1000}, make([]byte, 1000)); err != nil || countKept(store) != 1 {
			t.Error(err)
		}
	})
}

// The bytes that a Handler has seen of an older attempt may have changed: it
// starts again, and two of them never run at once.
func TestStreamingHandlerStartsAgainAfterTakeOver(t *testing.T) {
	before, after := picture(1, block+1000), picture(2, block+1000)
	copy(after, before[:block]) // the first block is the same
	var log []string
	s := &Server{Store: &MemStore{}, Streaming: true, Handler: func(ctx context.Context, in *Incoming) error {
		log = append(log, "start")
		body, err := in.Image.Body.Open(ctx)
		if err != nil {
			return err
		}
		defer body.Close()
		got, err := io.ReadAll(body)
		log = append(log, fmt.Sprint(len(got), " ", err))
		synctest.Wait() // slow to leave
		if err == nil && !bytes.Equal(got, after) {
			log = append(log, "WRONG BYTES")
		}
		log = append(log, "end")
		return err
	}}
	bubble(t, s, func(t *testing.T) {
		in := inbox(t, s, "p")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: int64(len(before)), Attempt: 1, Resume: true}
		old := mustOffer(t, in, o)
		mustWrite(t, old, before[:block+500], 0)
		synctest.Wait()
		o.Attempt = 2
		a := mustOffer(t, in, o)
		if err := a.Use([]int64{0}); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, a, after[block:], block)
		if _, err := a.Finish(t.Context(), -1, digestOf(XXH3, after)); err != nil {
			t.Error(err)
		}
		moved := "moved to a newer attempt: the same image, under the same ID, is being sent by another connection, which goes on with it: wait for that one, or send this one under a new ID"
		want := []string{"start", fmt.Sprint(block+500, " ", moved), "end", "start", fmt.Sprint(block+1000, " <nil>"), "end"}
		if !slices.Equal(log, want) {
			t.Errorf("%q\nwant %q", log, want)
		}
	})
}

// An image is not kept without its Handler, which waits here for that of an older attempt when Shutdown's patience ends.
func TestStreamingHandlerThatNeverBegan(t *testing.T) {
	content := picture(1, 1000)
	store := &MemStore{}
	calls := 0
	synctest.Test(t, func(t *testing.T) {
		leave := make(chan struct{})
		s := &Server{Store: store, Streaming: true, Handler: func(context.Context, *Incoming) error {
			calls++
			<-leave // heeds nothing
			return nil
		}}
		in := inbox(t, s, "p")
		o := Offer{ID: MakeID(1, 1), Image: Image{Name: "x"}, Size: int64(len(content)), Attempt: 1}
		mustWrite(t, mustOffer(t, in, o), content[:sniffLen], 0)
		o.Attempt = 2
		a := mustOffer(t, in, o)
		mustWrite(t, a, content, 0)
		result := async(func() error { _, err := a.Finish(context.Background(), -1, chunk.Digest{}); return err })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != context.DeadlineExceeded {
			t.Error(err)
		}
		err := <-result
		if wantReason(t, err, ReasonGoingAway, true); asRejected(err, ReasonOther).After == 0 {
			t.Error("the sender is not asked to wait: its attempts would be over before the shutdown is")
		}
		close(leave)
		if calls != 1 || countKept(store) != 0 {
			t.Errorf("%d calls, %d images kept", calls, countKept(store))
		}
	})
}

// io.EOF promises that the image is whole: a Store that has lost its end does not make one.
func TestStreamingFromAStoreThatHasLostBytes(t *testing.T) {
	store := &spyStore{fail: make(map[string]error)}
	s := &Server{Store: store, Streaming: true, Handler: func(ctx context.Context, in *Incoming) error {
		_, err := in.Image.Body.ReadAll(ctx)
		return err
	}}
	bubble(t, s, func(t *testing.T) {
		a := mustOffer(t, inbox(t, s, "p"), Offer{Image: Image{Name: "x", MediaType: "image/png"}, Size: 1000})
		store.fail["read"] = io.EOF
		mustWrite(t, a, picture(1, 1000), 0)
		_, err := a.Finish(t.Context(), -1, chunk.Digest{})
		wantReason(t, err, ReasonHandler, true)
		if !strings.Contains(err.Error(), io.ErrUnexpectedEOF.Error()) || countKept(&store.MemStore) != 0 {
			t.Errorf("%v; %d images kept", err, countKept(&store.MemStore))
		}
	})
}
