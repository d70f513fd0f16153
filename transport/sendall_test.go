package transport_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// slowConn takes a second for each image, and fails those that it is told to
// after half a second.
type slowConn struct {
	transport.UnimplementedConn
	fail map[string]error

	mu           sync.Mutex
	active, most int
}

func (c *slowConn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active++
	c.most = max(c.most, c.active)
}

func (c *slowConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
}

func (c *slowConn) Info() transport.Info { return transport.Info{Concurrency: 3} }

func (c *slowConn) Send(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
	c.begin()
	defer c.end()
	takes, err := time.Second, c.fail[img.Name]
	if err != nil {
		takes /= 2
	}
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(takes):
	}
	if err != nil {
		return transport.Receipt{}, &transport.Error{Op: "send", Err: err}
	}
	r := transport.Receipt{Level: transport.Kept}
	if o != nil {
		r.ID = o.ID
	}
	return r, nil
}

// numbered yields images "0", "1", ... and after n of them err, if there is one,
// half a second later. It counts what was taken.
func numbered(n int, err error, taken *int) iter.Seq2[*transport.Image, error] {
	return func(yield func(*transport.Image, error) bool) {
		for i := range n {
			*taken++
			if !yield(&transport.Image{Name: fmt.Sprint(i)}, nil) {
				return
			}
		}
		if err != nil {
			time.Sleep(time.Second / 2)
			yield(nil, err)
		}
	}
}

var (
	errRefused = transport.Reject("no")
	errCamera  = errors.New("camera unplugged")
)

func TestSendAll(t *testing.T) {
	refusals := make(map[string]error)
	for i := range 200 {
		refusals[fmt.Sprint(i)] = errRefused
	}
	for _, tt := range []struct {
		name        string
		images      int
		sequence    error
		fail        map[string]error
		o           transport.SendAllOptions
		cancel      time.Duration
		want        []error // each is matched by the result; nil: success
		notIn       error
		taken, most int
		kept        int
		took        time.Duration
	}{
		{name: "none", took: 0},
		{name: "all, as many at once as the Conn likes", images: 7, kept: 7, taken: 7, most: 3, took: 3 * time.Second},
		{name: "concurrency", images: 7, o: transport.SendAllOptions{Concurrency: 1}, kept: 7, taken: 7, most: 1, took: 7 * time.Second},
		{name: "first failure cancels the rest", images: 100, fail: map[string]error{"4": errRefused},
			want: []error{errRefused}, notIn: context.Canceled, kept: 3, taken: 6, most: 3, took: 1500 * time.Millisecond},
		{name: "carry on", images: 6, fail: map[string]error{"1": errRefused, "4": errCamera}, o: transport.SendAllOptions{CarryOn: true},
			want: []error{errRefused, errCamera}, kept: 4, taken: 6, most: 3, took: 2 * time.Second},
		{name: "sequence fails", images: 2, sequence: errCamera,
			want: []error{errCamera}, notIn: context.Canceled, kept: 0, taken: 2, most: 2, took: time.Second / 2},
		{name: "sequence fails, carry on", images: 2, sequence: errCamera, o: transport.SendAllOptions{CarryOn: true},
			want: []error{errCamera}, kept: 2, taken: 2, most: 2, took: time.Second},
		{name: "sequence fails after many failures, carry on", images: 200, fail: refusals, sequence: errCamera, o: transport.SendAllOptions{CarryOn: true},
			want: []error{errRefused, errCamera}, taken: 200, most: 3, took: 33500 * time.Millisecond},
		{name: "context", images: 100, cancel: 2500 * time.Millisecond,
			want: []error{context.DeadlineExceeded}, kept: 6, taken: 9, most: 3, took: 2500 * time.Millisecond},
		{name: "context, carry on", images: 100, cancel: 2500 * time.Millisecond, o: transport.SendAllOptions{CarryOn: true},
			want: []error{context.DeadlineExceeded}, kept: 6, taken: 9, most: 3, took: 2500 * time.Millisecond},
		{name: "Conn closed, carry on", images: 100, fail: map[string]error{"4": transport.ErrPeerClosed}, o: transport.SendAllOptions{CarryOn: true},
			want: []error{transport.ErrPeerClosed}, kept: 3, taken: 6, most: 3, took: 1500 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tt.cancel > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.cancel)
					defer cancel()
				}
				kept, ended, taken := 0, 0, 0 // without a lock: calls of Each are serial
				tt.o.Each = func(img *transport.Image, r transport.Receipt, err error) {
					ended++
					if err == nil && r.Level == transport.Kept {
						kept++
					}
				}
				conn := &slowConn{fail: tt.fail}
				start := time.Now()
				err := transport.SendAll(ctx, conn, numbered(tt.images, tt.sequence, &taken), &tt.o)
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if (err == nil) != (tt.want == nil) || slices.ContainsFunc(tt.want, func(w error) bool { return !errors.Is(err, w) }) ||
					tt.notIn != nil && errors.Is(err, tt.notIn) {
					t.Errorf("got %v, want %v and not %v", err, tt.want, tt.notIn)
				}
				if kept != tt.kept || taken != tt.taken || ended != tt.taken || conn.most != tt.most {
					t.Errorf("kept %d of %d taken, %d ended, %d at once; want %d of %d, %d at once",
						kept, taken, ended, conn.most, tt.kept, tt.taken, tt.most)
				}
				if n := conn.active; n != 0 {
					t.Errorf("%d transfers run on after the return", n)
				}
			})
		})
	}
}

func TestSendAllTakesNoMoreThanItCanSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		taken := 0
		done := make(chan error)
		go func() { done <- transport.SendAll(ctx, &slowConn{}, numbered(1<<30, nil, &taken), nil) }()
		synctest.Wait()
		if taken != 3 {
			t.Errorf("%d images taken for 3 transfers at once", taken)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		taken = 0
		if err := transport.SendAll(ctx, &slowConn{}, numbered(1, nil, &taken), nil); !errors.Is(err, context.Canceled) || taken != 0 {
			t.Errorf("%v after %d images, want none taken for a context that has ended", err, taken)
		}
	})
}

func TestSendAllOptionsOfEachImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := map[string]transport.ID{"0": transport.NewID(), "1": transport.NewID()}
		taken := 0
		err := transport.SendAll(t.Context(), &slowConn{fail: map[string]error{"2": errRefused}}, numbered(3, nil, &taken), &transport.SendAllOptions{
			CarryOn: true,
			Send: func(img *transport.Image) *transport.SendOptions {
				if id, ok := ids[img.Name]; ok {
					return &transport.SendOptions{ID: id}
				}
				return nil
			},
			Each: func(img *transport.Image, r transport.Receipt, err error) {
				if r.ID != ids[img.Name] {
					t.Errorf("%s got ID %v", img.Name, r.ID)
				}
			},
		})
		if err == nil || !strings.HasPrefix(err.Error(), "2: ") {
			t.Errorf("%v: does not begin with the image's name", err)
		}
	})
}

// A body's own net.ErrClosed says nothing of the Conn.
func TestSendAllCarriesOnAfterABodyThatWasClosed(t *testing.T) {
	store := &transport.MemStore{}
	a, b := transport.Pipe()
	served := make(chan error, 1)
	go func() { served <- (&transport.Server{Store: store}).ServeConn(t.Context(), b) }()
	images := func(yield func(*transport.Image, error) bool) {
		for i := range 10 {
			img := &transport.Image{Name: fmt.Sprint(i, ".jpg"), Body: transport.Bytes([]byte("abc"))}
			if i == 0 {
				img.Body = transport.Stream(iotest.ErrReader(net.ErrClosed))
			}
			if !yield(img, nil) {
				return
			}
		}
	}
	err := transport.SendAll(t.Context(), a, images, &transport.SendAllOptions{CarryOn: true, Concurrency: 1})
	kept := 0
	for range store.All() {
		kept++
	}
	if !errors.Is(err, net.ErrClosed) || kept != 9 {
		t.Errorf("%d of 9 others are kept: %v", kept, err)
	}
	a.Close()
	<-served
	if err := transport.SendAll(t.Context(), a, images, &transport.SendAllOptions{CarryOn: true, Concurrency: 1}); strings.Count(err.Error(), ".jpg") != 1 {
		t.Errorf("over a Conn that is closed: %v", err)
	}
}

func TestSendAllWithoutImage(t *testing.T) {
	for _, carryOn := range []bool{false, true} {
		err := transport.SendAll(t.Context(), &slowConn{}, func(yield func(*transport.Image, error) bool) { yield(nil, nil) }, &transport.SendAllOptions{
			CarryOn: carryOn,
			Send: func(img *transport.Image) *transport.SendOptions {
				return &transport.SendOptions{Require: transport.Level(len(img.Name))}
			},
		})
		if !errors.Is(err, transport.ErrConfig) {
			t.Error(err)
		}
	}
}

// An endless sequence whose images fail takes no more memory the longer it runs.
func TestSendAllRemembersAHundredFailures(t *testing.T) {
	near, far := transport.Pipe()
	defer far.Close()
	defer near.Close()
	gone := errors.New("the directory is gone") // the sequence's own error is not among the others
	images := func(yield func(*transport.Image, error) bool) {
		for range 250 {
			if !yield(&transport.Image{}, nil) { // no body
				return
			}
		}
		yield(nil, gone)
	}
	heard := 0
	err := transport.SendAll(t.Context(), near, images, &transport.SendAllOptions{CarryOn: true, Each: func(*transport.Image, transport.Receipt, error) { heard++ }})
	if heard != 250 || !errors.Is(err, transport.ErrConfig) || !errors.Is(err, gone) || strings.Count(err.Error(), "\n") != 101 || !strings.HasSuffix(err.Error(), "\nand 150 more") {
		t.Errorf("%d heard, %d lines", heard, strings.Count(err.Error(), "\n")+1)
	}
}
