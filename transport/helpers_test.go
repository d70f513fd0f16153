package transport

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/pixferry/pixferry/chunk"
)

// tap is a Conn without a peer: its Serve hands the Inbox to the test.
type tap struct {
	UnimplementedConn
	peer   string
	inbox  chan *Inbox
	closed chan struct{}
	once   sync.Once
}

func newTap(peer string) *tap {
	return &tap{peer: peer, inbox: make(chan *Inbox, 1), closed: make(chan struct{})}
}

func (c *tap) Info() Info { return Info{Protocol: "tap", Peer: c.peer} }

func (c *tap) Serve(ctx context.Context, in *Inbox) error {
	c.inbox <- in
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closed:
		return ErrClosed
	}
}

func (c *tap) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// inbox serves a new tap and returns its Inbox.
func inbox(t *testing.T, s *Server, peer string) *Inbox {
	t.Helper()
	in, _ := inboxConn(t, s, peer)
	return in
}

func inboxConn(t *testing.T, s *Server, peer string) (*Inbox, *tap) {
	t.Helper()
	c := newTap(peer)
	go s.ServeConn(context.Background(), c)
	return <-c.inbox, c
}

// bubble runs a test in virtual time and shuts its Server down at the end.
func bubble(t *testing.T, s *Server, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error("Shutdown:", err)
			}
		}()
		test(t)
	})
}

func mustOffer(t *testing.T, in *Inbox, o Offer) *Arrival {
	t.Helper()
	a, err := in.Offer(t.Context(), o)
	if err != nil {
		t.Fatal("Offer:", err)
	}
	return a
}

func mustWrite(t *testing.T, a *Arrival, p []byte, off int64) {
	t.Helper()
	if n, err := a.WriteAt(p, off); n != len(p) || err != nil {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
	}
}

// async calls f on a goroutine of its own, and returns where its result comes.
func async(f func() error) chan error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	return result
}

func digestOf(alg chunk.Algorithm, b []byte) chunk.Digest {
	h := chunk.NewHasher(alg)
	h.Write(b)
	return h.Root()
}

// kept returns the content of an image in a MemStore.
func kept(t *testing.T, s *MemStore, name string) []byte {
	t.Helper()
	img, ok := s.Get(name)
	if !ok {
		t.Fatalf("%s is not kept", name)
	}
	b, err := img.Body.ReadAll(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func countKept(s *MemStore) (n int) {
	for range s.All() {
		n++
	}
	return n
}
