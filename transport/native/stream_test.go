package native_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/transport/transporttest"
)

// wire is one end of a byte stream in memory, with room for a few messages as the
// buffers of a serial line have. Spoil, if not nil, changes what is written.
type wire struct {
	in, out *pipe
	left    []byte        // of what was read last
	pace    time.Duration // that each Write takes
	spoil   func([]byte) []byte
}

type pipe struct {
	data   chan []byte
	closed chan struct{}
	once   sync.Once
}

func wires() (a, b *wire) {
	x := &pipe{data: make(chan []byte, 8), closed: make(chan struct{})}
	y := &pipe{data: make(chan []byte, 8), closed: make(chan struct{})}
	return &wire{in: x, out: y}, &wire{in: y, out: x}
}

func (w *wire) Read(p []byte) (n int, err error) {
	if len(w.left) == 0 {
		select {
		case w.left = <-w.in.data:
		default:
			select {
			case w.left = <-w.in.data:
			case <-w.in.closed:
				return 0, io.EOF
			}
		}
	}
	n = copy(p, w.left)
	w.left = w.left[n:]
	return n, nil
}

func (w *wire) Write(p []byte) (int, error) {
	b := bytes.Clone(p)
	if w.spoil != nil {
		b = w.spoil(b)
	}
	time.Sleep(w.pace)
	select {
	case <-w.out.closed:
		return 0, io.ErrClosedPipe
	default:
	}
	select {
	case w.out.data <- b:
		return len(p), nil
	case <-w.out.closed:
		return 0, io.ErrClosedPipe
	}
}

func (w *wire) Close() error {
	for _, p := range []*pipe{w.in, w.out} {
		p.once.Do(func() { close(p.closed) })
	}
	return nil
}

// noisy drops, doubles and changes single bytes, a few of a million.
func noisy(seed uint64) func([]byte) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	return func(b []byte) []byte {
		for range r.IntN(1 + len(b)/50) {
			if r.IntN(100) > 0 {
				continue
			}
			i := r.IntN(len(b))
			switch r.IntN(3) {
			case 0:
				b[i] ^= 1 << r.IntN(8)
			case 1:
				b = append(b[:i], b[i+1:]...)
			case 2:
				b = append(b[:i+1], b[i:]...)
			}
		}
		return b
	}
}

func TestStream(t *testing.T) {
	transporttest.TestLink(t, func(testing.TB) (a, b native.Link) {
		x, y := net.Pipe()
		return native.Stream(x), native.Stream(y)
	}, transporttest.LinkProperties{Ordered: true, MaxMessage: 1024})
}

func TestStreamOverANoisyLine(t *testing.T) {
	a, b := wires()
	a.spoil = noisy(1)
	near, far := native.Stream(a), native.Stream(b)
	const messages = 5000
	go func() {
		defer near.Close()
		for i := range messages {
			if err := near.WriteMessage(bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 100+i%400)); err != nil {
				t.Error(err)
			}
		}
	}()
	buf := make([]byte, 1024)
	got, last := 0, -1
	for {
		n, err := far.ReadMessage(buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		i := int(buf[0]) | int(buf[1])<<8
		if want := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 100+i%400); !bytes.Equal(buf[:n], want) || i <= last {
			t.Fatalf("message %d after %d: %d bytes that were never sent so", i, last, n)
		}
		got, last = got+1, i
	}
	if got < messages*8/10 || got == messages {
		t.Errorf("%d of %d messages arrived: want most but not all", got, messages)
	}
}

func TestOverNoisyStreams(t *testing.T) {
	p := properties()
	p.Boundaries = []int64{1024}
	conform(t, func(t testing.TB) *medium {
		m := newMedium(native.LinkInfo{})
		seed := uint64(0)
		m.pair = func() (a, b native.Link) {
			x, y := wires()
			x.spoil, y.spoil = noisy(seed), noisy(seed+1)
			x.pace, y.pace = 50*time.Microsecond, 50*time.Microsecond
			seed += 2
			return native.Stream(x), native.Stream(y)
		}
		return m
	}, p)
}

// A serial line between a program that dials and one that listens: sessions follow
// each other.
func TestOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := make(chan *wire, 1)
		open := 0
		far := native.Over(nil, native.OneAtATime(func(ctx context.Context) (native.Link, error) {
			if open++; open > 1 {
				t.Error("opened again before the last session has ended")
			}
			select {
			case w := <-lines:
				return &counted{native.Stream(w), &open}, nil
			case <-ctx.Done():
				open--
				return nil, ctx.Err()
			}
		}), native.Config{})
		near := native.Over(func(context.Context) (native.Link, error) {
			a, b := wires()
			lines <- b
			return native.Stream(a), nil
		}, nil, native.Config{})

		l := mustListen(t, far)
		store := &transport.MemStore{}
		srv := &transport.Server{Store: store}
		served := async(func() error { return srv.Serve(context.Background(), l) })
		for i := range 3 {
			conn := mustDial(t, near)
			if _, err := conn.Send(t.Context(), image("a", []byte{byte(i)}), nil); err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
		srv.Shutdown(t.Context())
		<-served
	})
}

type counted struct {
	native.Link
	open *int
}

func (c *counted) Close() error {
	*c.open--
	return c.Link.Close()
}
