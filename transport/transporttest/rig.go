package transporttest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
)

// A rig is a Server that listens and a Conn to it. It knows the content of every
// image that may arrive.
type rig struct {
	testing.TB
	k        transportKit
	srv      *transport.Server
	listener transport.Listener
	dialer   transport.Transport
	conn     transport.Conn
	serving  chan error // the result of Serve
	arrived  chan arrival

	mu    sync.Mutex
	known map[string]int // contents, by hash, and how often each may still arrive
	made  uint64
}

// An arrival is an image that the Handler has seen.
type arrival struct {
	*transport.Incoming
	body []byte
}

// rig listens, serves with what setup makes of the Server, and dials. The first
// Handler is setup's, if it sets one; the rig's own takes what that one allows.
func (k transportKit) rig(t testing.TB, setup func(*transport.Server)) *rig {
	t.Helper()
	r := k.listen(t)
	r.srv = r.server(setup)
	go func() { r.serving <- r.srv.Serve(t.Context(), r.listener) }()
	r.Cleanup(func() {
		r.within("Shutdown at the end", func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel() // at once
			r.srv.Shutdown(ctx)
		})
		r.listener.Close()
		await(t, "the end of Serve", r.serving)
	})
	r.conn = r.dial()
	return r
}

// listen makes a rig that listens and does no more.
func (k transportKit) listen(t testing.TB) *rig {
	t.Helper()
	r := &rig{TB: t, k: k, serving: make(chan error, 1), arrived: make(chan arrival, 1024), known: make(map[string]int)}
	listen, dial := k.make(t)
	r.within("Listen", func() {
		var err error
		if r.listener, err = listen.Listen(t.Context()); err != nil {
			t.Fatalf("Listen: %v", err)
		}
	})
	r.Cleanup(func() { r.listener.Close() })
	r.dialer = dial(r.listener.Addr())
	return r
}

func (r *rig) server(setup func(*transport.Server)) *transport.Server {
	srv := &transport.Server{}
	if setup != nil {
		setup(srv)
	}
	first := srv.Handler
	srv.Handler = func(ctx context.Context, in *transport.Incoming) error {
		if first != nil {
			if err := first(ctx, in); err != nil {
				return err
			}
		}
		body, err := in.Image.Body.ReadAll(ctx)
		if err != nil {
			return err
		}
		r.arrived <- arrival{in, body}
		return nil
	}
	return srv
}

func (r *rig) within(what string, f func()) { r.Helper(); within(r.TB, what, f) }

// dial returns a new Conn, which is closed at the end.
func (r *rig) dial() (c transport.Conn) {
	r.Helper()
	r.within("Dial", func() {
		var err error
		if c, err = r.dialer.Dial(r.Context()); err != nil {
			r.Fatalf("Dial: %v", err)
		}
	})
	r.Cleanup(func() { r.within("Close at the end", func() { c.Close() }) })
	return c
}

// next returns a Conn for one more image, and failed says that the last one on
// r.conn was given up half-way.
func (r *rig) next(failed bool) transport.Conn {
	if r.k.SingleUse || failed && !r.k.Aborts {
		r.conn.Close()
		r.conn = r.dial()
	}
	return r.conn
}

// usual is a size that every transport takes, over several chunks of most.
func (k transportKit) usual() int { return int(k.fit(200_000)) }

func (k transportKit) fit(size int64) int64 {
	if k.MaxSize > 0 {
		size = min(size, k.MaxSize)
	}
	return max(size, k.MinSize)
}

// content returns n bytes that no other call returns, and remembers that they may
// arrive, once.
func (r *rig) content(n int) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made++
	b := make([]byte, n)
	var seed [32]byte
	seed[0], seed[1] = byte(r.made), byte(r.made>>8)
	rand.NewChaCha8(seed).Read(b)
	r.known[key(b)]++
	return b
}

// again says that b may arrive n more times.
func (r *rig) again(b []byte, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[key(b)] += n
}

// image returns an image with new content of the usual size.
func (r *rig) image() (*transport.Image, []byte) {
	b := r.content(r.k.usual())
	return r.imageOf(b), b
}

func (r *rig) imageOf(b []byte) *transport.Image {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made++
	return &transport.Image{Name: fmt.Sprintf("%04d.bin", r.made), Body: transport.Bytes(b)}
}

func key(b []byte) string { return digest(b).String() }

// digest is an image's, by the default algorithm.
func digest(b []byte) chunk.Digest {
	h := chunk.NewHasher(transport.XXH3)
	h.Write(b)
	return h.Root()
}

// send is Send that must return in time, with a true receipt or a sound error.
func (r *rig) send(ctx context.Context, c transport.Conn, img *transport.Image, o *transport.SendOptions) (receipt transport.Receipt, err error) {
	r.Helper()
	r.within("Send", func() { receipt, err = c.Send(ctx, img, o) })
	if err != nil {
		r.sound(err)
		return receipt, err
	}
	want := min(transport.Received, r.k.Confirms)
	if o != nil {
		want = cmp.Or(o.Require, want)
	}
	if receipt.Level < want || receipt.Level > r.k.Confirms {
		r.Errorf("the receipt's level is %q; required is %q, and %q is what the protocol confirms", receipt.Level, want, r.k.Confirms)
	}
	if receipt.ID.IsZero() || o != nil && !o.ID.IsZero() && receipt.ID != o.ID {
		r.Errorf("the receipt's ID is %v, not that of the transfer", receipt.ID)
	}
	return receipt, nil
}

// sound checks the form of an error of Send.
func (r *rig) sound(err error) {
	r.Helper()
	e := (*transport.Error)(nil)
	if !errors.As(err, &e) {
		r.Errorf("Send failed with a %T (%v); its errors are *transport.Error", err, err)
		return
	}
	refusal := (*transport.RejectedError)(nil)
	if rejected := errors.As(err, &refusal); e.Outcome == transport.Rejected && !rejected {
		r.Errorf("Outcome is Rejected without a *RejectedError: %v", err)
	}
}

// deliver sends an image, which must arrive.
func (r *rig) deliver(c transport.Conn, img *transport.Image, b []byte, o *transport.SendOptions) arrival {
	r.Helper()
	receipt, err := r.send(r.Context(), c, img, o)
	if err != nil {
		r.Fatalf("Send of %d bytes: %v", len(b), err)
	}
	r.receiptOf(receipt, b)
	got := r.expect(b)
	if r.k.IDs && got.ID != receipt.ID {
		r.Errorf("the receipt's ID is %v, the receiver saw %v", receipt.ID, got.ID)
	}
	return got
}

func (r *rig) receiptOf(receipt transport.Receipt, b []byte) {
	r.Helper()
	if receipt.Bytes != int64(len(b)) {
		r.Errorf("the receipt says %d bytes for an image of %d", receipt.Bytes, len(b))
	}
	if r.k.Digests && receipt.Digest != digest(b) {
		r.Errorf("the receipt's digest is %v, the content's is %v", receipt.Digest, digest(b))
	}
}

// expect waits for the arrival of an image with content b. Others that may arrive
// may come before it.
func (r *rig) expect(b []byte) arrival {
	r.Helper()
	for {
		got := await(r.TB, fmt.Sprintf("the arrival of %d bytes", len(b)), r.arrived)
		if !r.mayArrive(got) {
			r.FailNow()
		}
		if bytes.Equal(got.body, b) {
			return got
		}
	}
}

func (r *rig) mayArrive(got arrival) bool {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	k := key(got.body)
	switch left, known := r.known[k]; {
	case !known:
		r.Errorf("an image of %d bytes arrived as %q that nobody has sent: it is cut, mixed or changed", len(got.body), got.Image.Name)
	case left == 0:
		r.Errorf("an image of %d bytes arrived once too often", len(got.body))
	default:
		r.known[k]--
		return true
	}
	return false
}

// nothing checks that nothing else has arrived: no image once too often, no part
// of one, no mixture, and none of those that are forbidden.
func (r *rig) nothing(forbidden ...[]byte) {
	r.Helper()
	for {
		select {
		case got := <-r.arrived:
			if r.mayArrive(got) && slices.ContainsFunc(forbidden, func(b []byte) bool { return bytes.Equal(got.body, b) }) {
				r.Errorf("an image of %d bytes arrived that must not", len(got.body))
			}
			continue
		default:
		}
		return
	}
}

// works checks that the next image gets through.
func (r *rig) works(failed bool, after string) {
	r.Helper()
	c := r.next(failed)
	img, b := r.image()
	receipt, err := r.send(r.Context(), c, img, nil)
	if err != nil {
		r.Fatalf("the next transfer after %s: %v", after, err)
	}
	r.receiptOf(receipt, b)
	r.expect(b)
}
