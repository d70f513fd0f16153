package native_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/pixferry/pixferry/transport"
)

// slowDisk is content whose second read, the first beyond what tells the media type, waits until it is closed.
type slowDisk struct {
	*bytes.Reader
	reads int
	spins chan struct{}
}

func (d *slowDisk) ReadAt(p []byte, off int64) (int, error) {
	if d.reads++; d.reads == 2 {
		<-d.spins
	}
	return d.Reader.ReadAt(p, off)
}

// A Send that ends while it reads a small body, and so before its offer, leaves the others of its Conn alone, and what
// is read after all goes nowhere.
func TestCancelBeforeTheOffer(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		b := bytes.Repeat([]byte("first"), 100_000)
		body, more := io.Pipe()
		first := async(func() error {
			_, err := e.conn.Send(t.Context(), &transport.Image{Name: "first", Body: transport.Stream(body)}, nil)
			return err
		})
		more.Write(b[:300_000])
		synctest.Wait()
		disk := &slowDisk{Reader: bytes.NewReader(b[:1000]), spins: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		second := async(func() error {
			_, err := e.conn.Send(ctx, &transport.Image{Name: "second", Body: transport.Content(disk, 1000)}, nil)
			return err
		})
		synctest.Wait()
		cancel()
		if err := <-second; !errors.Is(err, context.Canceled) || outcome(err) != transport.NotKept {
			t.Error(err)
		}
		close(disk.spins)
		go func() {
			more.Write(b[300_000:])
			more.Close()
		}()
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		e.holds("first", b)
		if _, kept := e.kept.Get("second"); kept {
			t.Error("an image was kept whose Send has failed before")
		}
	})
}

// cancels is a Reader without end that gives a byte at a time, and ends the Send with one of them.
type cancels struct {
	left   int
	cancel context.CancelFunc
}

func (c *cancels) Read(p []byte) (int, error) {
	if c.left--; c.left == 0 {
		c.cancel()
	}
	p[0] = 1
	return 1, nil
}

// A Send that ends while its body is read looks at nothing that the reader still writes: the race detector sees it.
func TestCancelWhileAReaderIsRead(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		for i := range 300 {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := e.conn.Send(ctx, &transport.Image{Name: "x", Body: transport.Stream(&cancels{1000 + i%100, cancel})}, nil)
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}
