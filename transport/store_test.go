package transport

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pixferry/pixferry/chunk"
)

// A sender whose name or address has changed goes on under the same ID.
func TestStoresFindAPartialImageByItsIDOrElseByItsKey(t *testing.T) {
	block := bytes.Repeat([]byte{7}, chunk.BlockSize)
	offer := func(id byte, key string) PartialOffer {
		return PartialOffer{ID: ID{id}, Key: key, Image: Image{Name: "a.jpg"}, Size: 3 * chunk.BlockSize, Algorithm: XXH3}
	}
	dir := &DirStore{Dir: t.TempDir()}
	defer dir.Close()
	for name, store := range map[string]Store{"dir": dir, "mem": &MemStore{}} {
		t.Run(name, func(t *testing.T) {
			p := mustOpen(t, store, offer(1, "sender"))
			if _, err := p.WriteAt(block, 0); err != nil {
				t.Fatal(err)
			}
			sum := chunk.NewBlockHasher(XXH3)
			if err := p.Checkpoint([]chunk.Block{{Index: 0, Digest: sum.Sum(block)}}); err != nil {
				t.Fatal(err)
			}
			if err := p.Keep(); err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				what  string
				offer PartialOffer
				held  int
			}{
				{"another ID and key", offer(2, "other"), 0},
				{"the ID from elsewhere", offer(1, "moved"), 1},
				{"the key with another ID", offer(3, "sender"), 1},
			} {
				p := mustOpen(t, store, c.offer)
				if n := len(p.Held()); n != c.held {
					t.Errorf("%s: %d blocks held, want %d", c.what, n, c.held)
				}
				p.Keep()
			}
		})
	}
}

func TestServerWithAStoreThatCannotWorkFailsAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	srv := &Server{Store: &DirStore{Dir: filepath.Join(file, "below")}}
	if err := srv.Serve(t.Context(), nobody{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Serve: %v, want an error that names the directory", err)
	}
}

// nobody is a listener whom no peer finds.
type nobody struct{ Listener }

func (nobody) Close() error { return nil }

func TestFinishedHookSaysWhereTheImageIsStored(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.bin"), []byte("there first"), 0o600); err != nil {
		t.Fatal(err)
	}
	store := &DirStore{Dir: dir}
	defer store.Close()
	finished := make(chan TransferInfo, 2)
	srv := &Server{Store: store, Hooks: Hooks{Finished: func(i TransferInfo, _ Receipt, _ error) { finished <- i }}}
	a, b := Pipe()
	go srv.ServeConn(t.Context(), b)
	id := NewID()
	for _, want := range []string{"a (1).bin", ""} { // the second time it is not stored again
		if _, err := a.Send(t.Context(), &Image{Name: "a.bin", Body: Bytes([]byte("new"))}, &SendOptions{ID: id}); err != nil {
			t.Fatal(err)
		}
		if i := <-finished; i.Stored != want || i.Name != "a.bin" {
			t.Errorf("stored as %q of %q, want %q", i.Stored, i.Name, want)
		}
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// Two Servers, of two protocols maybe, with one Store get different images under one ID at once. One is kept, and
// the sender of the other hears so.
func TestTwoServersOfOneStore(t *testing.T) {
	for name, store := range map[string]Store{"mem": &MemStore{}, "dir": newDirStore(t, &DirStore{Dir: t.TempDir()})} {
		entered, goOn := make(chan struct{}, 2), make(chan struct{})
		handler := func(context.Context, *Incoming) error {
			entered <- struct{}{}
			<-goOn
			return nil
		}
		id, sent := NewID(), make(chan error, 2)
		for i := range 2 {
			a, b := Pipe()
			s := &Server{Store: store, Handler: handler}
			go s.ServeConn(t.Context(), b)
			go func() {
				_, err := a.Send(t.Context(), &Image{Name: "a.jpg", Body: Bytes(picture(uint64(i), 1000))}, &SendOptions{ID: id})
				a.Close()
				sent <- err
			}()
		}
		<-entered
		<-entered
		close(goOn)
		one, other := <-sent, <-sent
		if one != nil {
			one, other = other, one
		}
		if one != nil || !errors.Is(other, ErrIDUsed) && !Retryable(other) {
			t.Errorf("%s: %v and %v", name, one, other)
		}
	}
}

// forgetfulStore has an image under every ID already when it is to commit one, and cannot say which.
type forgetfulStore struct {
	MemStore
	committing bool
}

type forgetfulPartial struct {
	Partial
	s *forgetfulStore
}

func (s *forgetfulStore) Open(ctx context.Context, o PartialOffer) (Partial, error) {
	p, err := s.MemStore.Open(ctx, o)
	return &forgetfulPartial{p, s}, err
}

func (s *forgetfulStore) Receipt(ctx context.Context, id ID) (Receipt, bool, error) {
	if s.committing {
		return Receipt{}, false, syscall.EIO
	}
	return s.MemStore.Receipt(ctx, id)
}

func (p *forgetfulPartial) Commit(context.Context, *Image, Receipt) (string, error) {
	p.s.committing = true
	return "", p.Discard()
}

// Whether it is this image that is kept under the ID is not promised before the Store has said so.
func TestNoReceiptForAnImageThatTheStoreCannotCompare(t *testing.T) {
	s := &Server{Store: &forgetfulStore{}}
	bubble(t, s, func(t *testing.T) {
		_, err := deliverTo(t.Context(), inbox(t, s, "p"), Offer{ID: MakeID(1, 1), Size: 10}, make([]byte, 10))
		wantReason(t, err, ReasonDisk, true)
	})
}
