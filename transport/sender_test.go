package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/chunk"
)

var (
	everything = Info{Protocol: "test", Confirms: Kept}
	errNet     = errors.New("connection reset")
	jpegHead   = []byte("\xff\xd8\xff\xe0\x00\x10JFIF")
)

// keep is an attempt that succeeds.
func keep(_ context.Context, out *Outgoing) (Receipt, error) {
	return Receipt{Level: Kept, Bytes: out.Body.Size}, nil
}

func TestSendRefusesBeforeAnAttempt(t *testing.T) {
	dir := t.TempDir()
	one := Bytes([]byte("x"))
	for name, c := range map[string]struct {
		info    Info
		img     *Image
		o       *SendOptions
		outcome Outcome
		target  error // nil: any
	}{
		"no image":       {everything, nil, nil, NotKept, nil},
		"no body":        {everything, &Image{}, nil, NotKept, nil},
		"no such file":   {everything, &Image{Body: File(filepath.Join(dir, "none"))}, nil, NotKept, os.ErrNotExist},
		"directory":      {everything, &Image{Body: File(dir)}, nil, NotKept, nil},
		"path as name":   {everything, &Image{Name: "a/b", Body: one}, nil, Rejected, nil},
		"too large":      {Info{Confirms: Kept, MaxImage: 9}, &Image{Body: Bytes(make([]byte, 10))}, nil, NotKept, nil},
		"unconfirmed":    {Info{Confirms: Sent}, &Image{Body: one}, &SendOptions{Require: Received}, NotKept, ErrUnconfirmed},
		"kept by nobody": {Info{Confirms: Received}, &Image{Body: one}, &SendOptions{Require: Kept}, NotKept, ErrUnconfirmed},
		"no level":       {everything, &Image{Body: one}, &SendOptions{Require: Kept + 1}, NotKept, ErrConfig},
		"no priority":    {everything, &Image{Body: one}, &SendOptions{Priority: Interactive + 1}, NotKept, ErrConfig},
		"short content":  {everything, &Image{Body: Content(strings.NewReader("x"), 5)}, nil, NotKept, chunk.ErrSourceShort},
	} {
		t.Run(name, func(t *testing.T) {
			var s Sender
			o := &SendOptions{}
			if c.o != nil {
				o = c.o
			}
			o.Retry = &RetryPolicy{}
			_, err := s.Send(t.Context(), c.info, c.img, o, func(context.Context, *Outgoing) (Receipt, error) {
				t.Error("an attempt was made")
				return Receipt{}, nil
			})
			wantOutcome(t, err, c.outcome, c.target)
			if Retryable(err) {
				t.Error("can be retried:", err)
			}
		})
	}
}

func TestRequireDefaultsToWhatTheProtocolCan(t *testing.T) {
	for confirms, want := range map[Level]Level{Sent: Sent, Received: Received, Kept: Received} {
		var s Sender
		_, err := s.Send(t.Context(), Info{Confirms: confirms}, &Image{Body: Bytes(nil)}, nil, func(_ context.Context, out *Outgoing) (Receipt, error) {
			if out.Options.Require != want {
				t.Errorf("%v is required of a protocol that confirms %v", out.Options.Require, confirms)
			}
			return Receipt{Level: want}, nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	var s Sender
	_, err := s.Send(t.Context(), everything, &Image{Body: Bytes(nil)}, &SendOptions{Require: Kept}, func(_ context.Context, out *Outgoing) (Receipt, error) {
		out.LastByteSent()
		return Receipt{Level: Received}, nil
	})
	wantOutcome(t, err, Unknown, ErrUnconfirmed)
}

func TestMetadataOfWhatIsSent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "on disk.dat")
	if err := os.WriteFile(path, jpegHead, 0o600); err != nil {
		t.Fatal(err)
	}
	id := MakeID(1, 2)
	for name, c := range map[string]struct {
		img             *Image
		name, mediaType string
	}{
		"file":         {&Image{Body: File(path)}, "on disk.dat", "image/jpeg"},
		"named":        {&Image{Name: "a", MediaType: "b/c", Body: File(path)}, "a", "b/c"},
		"bytes":        {&Image{Body: Bytes(jpegHead)}, id.String() + ".jpg", "image/jpeg"},
		"stream":       {&Image{Body: Stream(bytes.NewReader(jpegHead))}, id.String() + ".jpg", "image/jpeg"},
		"empty":        {&Image{Body: Bytes(nil)}, id.String() + ".bin", unknownType},
		"empty stream": {&Image{Body: Stream(strings.NewReader(""))}, id.String() + ".bin", unknownType},
	} {
		t.Run(name, func(t *testing.T) {
			var s Sender
			_, err := s.Send(t.Context(), everything, c.img, &SendOptions{ID: id}, func(ctx context.Context, out *Outgoing) (Receipt, error) {
				got, err := io.ReadAll(out.Body)
				if err != nil {
					return Receipt{}, err
				}
				if out.Image.Name != c.name || out.Image.MediaType != c.mediaType || len(got) > 0 && !bytes.Equal(got, jpegHead) {
					t.Errorf("%q, %q, %q", out.Image.Name, out.Image.MediaType, got)
				}
				return Receipt{Level: Kept, Bytes: int64(len(got))}, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSourceChangesWhileSent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	var s Sender
	n := 0
	_, err := s.Send(t.Context(), everything, &Image{Body: File(path)}, &SendOptions{Retry: &RetryPolicy{Initial: 1}}, func(_ context.Context, out *Outgoing) (Receipt, error) {
		if n++; n == 1 {
			if err := os.Truncate(path, 200); err != nil { // between two attempts
				t.Fatal(err)
			}
			return Receipt{}, errNet
		}
		return Receipt{}, out.Body.Check()
	})
	wantOutcome(t, err, NotKept, ErrSourceChanged)
}

func TestOutcomes(t *testing.T) {
	busy := later(ReasonBusy, "later")
	for name, c := range map[string]struct {
		attempts []func(*Outgoing) error
		want     Outcome
	}{
		"before the last byte":     {[]func(*Outgoing) error{func(*Outgoing) error { return errNet }}, NotKept},
		"after it":                 {[]func(*Outgoing) error{sentAll(errNet)}, Unknown},
		"refused after it":         {[]func(*Outgoing) error{sentAll(Reject("no"))}, Rejected},
		"busy":                     {[]func(*Outgoing) error{func(*Outgoing) error { return busy }}, Rejected},
		"as the attempt says":      {[]func(*Outgoing) error{func(*Outgoing) error { return &Error{Outcome: Unknown, Err: errNet} }}, Unknown},
		"lost, then no network":    {[]func(*Outgoing) error{sentAll(errNet), func(*Outgoing) error { return ErrNameTaken }}, Unknown},
		"lost, then refused":       {[]func(*Outgoing) error{sentAll(errNet), func(*Outgoing) error { return Reject("no") }}, Rejected},
		"lost, then busy for good": {[]func(*Outgoing) error{sentAll(errNet), func(*Outgoing) error { return busy }}, Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s Sender
				n := 0
				o := &SendOptions{Retry: &RetryPolicy{MaxAttempts: len(c.attempts)}}
				_, err := s.Send(t.Context(), everything, &Image{Body: Bytes(nil)}, o, func(_ context.Context, out *Outgoing) (Receipt, error) {
					n++
					return Receipt{}, c.attempts[n-1](out)
				})
				wantOutcome(t, err, c.want, nil)
				var e *Error
				if errors.As(errors.Unwrap(err), &e) {
					t.Error("an Error in an Error:", err)
				}
			})
		})
	}
}

func sentAll(err error) func(*Outgoing) error {
	return func(out *Outgoing) error { out.LastByteSent(); return err }
}

func TestReceiptsAreChecked(t *testing.T) {
	content := picture(1, 1000)
	digest, sha256 := digestOf(XXH3, content), digestOf(chunk.SHA256, content)
	for name, c := range map[string]struct {
		r      Receipt
		sent   int64
		want   Receipt
		target error
	}{
		"without size":     {Receipt{Level: Kept}, 0, Receipt{Level: Kept, Bytes: 1000}, nil},
		"resent":           {Receipt{Level: Kept, Bytes: 1000, Reused: 300}, 800, Receipt{Level: Kept, Bytes: 1000, Reused: 300, Resent: 100}, nil},
		"its own count":    {Receipt{Level: Kept, Bytes: 1000, Resent: 5}, 0, Receipt{Level: Kept, Bytes: 1000, Resent: 5}, nil},
		"digest":           {Receipt{Level: Kept, Bytes: 1000, Digest: digest}, 0, Receipt{Level: Kept, Bytes: 1000, Digest: digest}, nil},
		"other algorithm":  {Receipt{Level: Kept, Digest: sha256}, 0, Receipt{Level: Kept, Bytes: 1000, Digest: sha256}, nil},
		"another's by it":  {Receipt{Level: Kept, Digest: digestOf(chunk.SHA256, nil)}, 0, Receipt{}, ErrIDUsed},
		"another size":     {Receipt{Level: Kept, Bytes: 999}, 0, Receipt{}, ErrIDUsed},
		"another's digest": {Receipt{Level: Kept, Bytes: 1000, Digest: digestOf(XXH3, nil)}, 0, Receipt{}, ErrIDUsed},
	} {
		var s Sender
		id := MakeID(3, 4)
		r, err := s.Send(t.Context(), everything, &Image{Body: Bytes(content)}, &SendOptions{ID: id}, func(_ context.Context, out *Outgoing) (Receipt, error) {
			out.Digest = digest
			out.Count(c.sent)
			return c.r, nil
		})
		if c.target == nil {
			c.want.ID = id
		}
		if r != c.want || !errors.Is(err, c.target) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	// Nobody can tell any more.
	var s Sender
	_, err := s.Send(t.Context(), everything, &Image{Body: Stream(bytes.NewReader(content))}, nil, func(_ context.Context, out *Outgoing) (Receipt, error) {
		io.Copy(io.Discard, out.Body)
		out.Digest = digest
		return Receipt{Level: Kept, Bytes: 1000, Digest: sha256}, nil
	})
	if !errors.Is(err, ErrIDUsed) {
		t.Error("a stream, and a digest by another algorithm:", err)
	}
}

func TestProgressNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Sender
		var got []string
		n := 0
		o := &SendOptions{Retry: &RetryPolicy{}, Progress: func(acked, total int64) { got = append(got, fmt.Sprint(acked, "/", total)) }}
		_, err := s.Send(t.Context(), everything, &Image{Body: Bytes(make([]byte, 100))}, o, func(_ context.Context, out *Outgoing) (Receipt, error) {
			n++
			out.Progress(10)
			out.Progress(int64(60 / n))
			if n == 1 {
				return Receipt{}, errNet
			}
			out.Progress(80)
			return Receipt{Level: Received}, nil
		})
		if want := []string{"10/100", "60/100", "80/100", "100/100"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
		// What nobody acknowledged is no progress.
		got = nil
		o.Require = Sent
		_, err = s.Send(t.Context(), everything, &Image{Body: Bytes(make([]byte, 100))}, o, func(context.Context, *Outgoing) (Receipt, error) {
			return Receipt{Level: Sent}, nil
		})
		if err != nil || len(got) != 0 {
			t.Error(got, err)
		}
	})
}

func TestAttemptsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var last uint32
		next := func(out *Outgoing) {
			t.Helper()
			n := out.NextAttempt()
			if n <= last {
				t.Errorf("attempt %d after %d", n, last)
			}
			last = n
		}
		var s Sender
		n := 0
		s.Send(t.Context(), everything, &Image{Body: Bytes(nil)}, &SendOptions{Retry: &RetryPolicy{}}, func(_ context.Context, out *Outgoing) (Receipt, error) {
			next(out)
			next(out) // a reconnect
			if n++; n < 4 {
				return Receipt{}, errNet
			}
			return Receipt{Level: Kept}, nil
		})
		time.Sleep(time.Minute) // the program is started again
		s.Send(t.Context(), everything, &Image{Body: Bytes(nil)}, nil, func(_ context.Context, out *Outgoing) (Receipt, error) {
			next(out)
			return Receipt{Level: Kept}, nil
		})
	})
}

func TestOldestIsWhatMayStillBeOffered(t *testing.T) {
	var s Sender
	var first ID
	send := func(id ID, want uint64, result error) ID {
		t.Helper()
		_, err := s.Send(t.Context(), everything, &Image{Body: Bytes(nil)}, &SendOptions{ID: id}, func(_ context.Context, out *Outgoing) (Receipt, error) {
			out.NextAttempt()
			id = out.ID
			if out.Oldest != want {
				t.Errorf("counter %d: oldest %d, want %d", id.Counter(), out.Oldest, want)
			}
			return Receipt{Level: Kept}, result
		})
		if !errors.Is(err, result) {
			t.Error(err)
		}
		return id
	}
	first = send(ID{}, 1, nil)
	send(ID{}, 2, nil)
	failed := send(ID{}, 3, errNet)
	if first.Instance() != failed.Instance() || first.Instance() == 0 {
		t.Error("instances:", first, failed)
	}
	send(ID{}, 3, nil)          // 3 may be asked for again
	send(NewID(), 0, nil)       // not our own
	send(failed, 3, nil)        // it is
	send(ID{}, 5, Reject("no")) // final: nobody asks again
	send(ID{}, 6, nil)
	s.Send(t.Context(), everything, &Image{}, nil, keep) // failed before it was offered
	send(ID{}, 8, nil)

	// One that runs holds the others back.
	_, err := s.Send(t.Context(), everything, &Image{Body: Bytes(nil)}, nil, func(_ context.Context, out *Outgoing) (Receipt, error) {
		send(ID{}, 9, nil)
		return Receipt{Level: Kept}, nil
	})
	if err != nil {
		t.Error(err)
	}
	// The memory of failures is bounded.
	for range 3 * maxFailed {
		s.Send(t.Context(), everything, &Image{Body: Bytes(nil)}, nil, func(_ context.Context, out *Outgoing) (Receipt, error) {
			out.NextAttempt()
			return Receipt{}, errNet
		})
	}
	if len(s.failed) != maxFailed || len(s.active) != 0 || len(s.running) != 0 || len(s.live) != 0 {
		t.Errorf("%d failed, %d active, %d running, %d live", len(s.failed), len(s.active), len(s.running), len(s.live))
	}
}

// An ID that may be asked for again stays so when that was tried, and nothing was offered.
func TestOldestAfterASendThatOffersNothing(t *testing.T) {
	var s Sender
	send := func(id ID, body Body, result error) (_ ID, oldest uint64) {
		s.Send(t.Context(), everything, &Image{Body: body}, &SendOptions{ID: id}, func(_ context.Context, out *Outgoing) (Receipt, error) {
			out.NextAttempt()
			id, oldest = out.ID, out.Oldest
			return Receipt{Level: Kept}, result
		})
		return id, oldest
	}
	unknown, _ := send(ID{}, Bytes(nil), errNet)
	send(unknown, File("missing.jpg"), nil)
	if _, oldest := send(ID{}, Bytes(nil), nil); oldest != unknown.Counter() {
		t.Errorf("everything below %d is declared finished, and so is %d", oldest, unknown.Counter())
	}
	send(unknown, Bytes(nil), nil)
	if next, oldest := send(ID{}, Bytes(nil), nil); oldest != next.Counter() {
		t.Errorf("oldest %d, want %d", oldest, next.Counter())
	}
}

// Of two Sends under one ID of the Sender's own the first to end does not declare the other finished.
func TestOldestWhileOneIDIsSentTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Sender
		send := func(id ID, attempt func(*Outgoing)) (ID, chan error) {
			made, done := make(chan ID, 1), make(chan error, 1)
			go func() {
				_, err := s.Send(t.Context(), everything, &Image{Body: Bytes([]byte("x"))}, &SendOptions{ID: id}, func(_ context.Context, out *Outgoing) (Receipt, error) {
					made <- out.ID
					attempt(out)
					return Receipt{Level: Kept}, nil
				})
				done <- err
			}()
			return <-made, done
		}
		goOn := make(chan struct{})
		id, first := send(ID{}, func(*Outgoing) { <-goOn })
		_, second := send(id, func(*Outgoing) {})
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		_, third := send(ID{}, func(out *Outgoing) {
			if out.Oldest > id.Counter() {
				t.Errorf("everything below %d is declared finished while %d is on its way", out.Oldest, id.Counter())
			}
		})
		close(goOn)
		<-first
		<-third
	})
}

func TestSenderClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Sender
		result := async(func() error {
			_, err := s.Send(t.Context(), everything, &Image{Body: Bytes(nil)}, &SendOptions{Retry: &RetryPolicy{MaxAttempts: -1}}, func(ctx context.Context, out *Outgoing) (Receipt, error) {
				<-ctx.Done()
				return Receipt{}, ctx.Err()
			})
			return err
		})
		synctest.Wait()
		s.Close(ErrPeerClosed)
		s.Close(ErrClosed)
		wantOutcome(t, <-result, NotKept, ErrPeerClosed)
		_, err := s.Send(t.Context(), everything, &Image{Body: Bytes(nil)}, nil, keep)
		wantOutcome(t, err, NotKept, ErrPeerClosed)
	})
}

func TestSendsRunAtTheSameTime(t *testing.T) {
	var s Sender
	img := &Image{Name: "x", Body: Bytes(picture(1, 1000))}
	results := make(chan error)
	for range 500 {
		go func() {
			_, err := s.Send(t.Context(), everything, img, nil, func(_ context.Context, out *Outgoing) (Receipt, error) {
				n, err := io.Copy(io.Discard, out.Body)
				return Receipt{Level: Kept, Bytes: n}, err
			})
			results <- err
		}()
	}
	for range 500 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
