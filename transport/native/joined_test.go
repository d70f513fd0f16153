package native_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// A sender that was restarted offers an image again whose Handler runs still. What it sends for it, which is over
// its window, does not hold up what else it sends.
func TestImageThatIsHereAlreadyHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entered, goOn := make(chan struct{}), make(chan struct{})
		store := &transport.MemStore{}
		s := &transport.Server{Store: store, Handler: func(_ context.Context, in *transport.Incoming) error {
			if in.Image.Name == "big.jpg" {
				close(entered)
				<-goOn
			}
			return nil
		}}
		m := newMedium(reliable)
		l := mustListen(t, native.Over(nil, m.listen, native.Config{Window: 1 << 20}))
		served := async(func() error { return s.Serve(t.Context(), l) })
		big := bytes.Repeat([]byte("big"), 1<<20)
		id, sent := transport.NewID(), make(chan error, 2)
		dial := func() transport.Conn {
			c := mustDial(t, native.Over(m.dial, nil, native.Config{}))
			return c
		}
		send := func(c transport.Conn) {
			body := transport.OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
				return io.NopCloser(bytes.NewReader(big)), int64(len(big)), nil
			})
			_, err := c.Send(t.Context(), &transport.Image{Name: "big.jpg", Body: body}, &transport.SendOptions{ID: id})
			sent <- err
		}
		first, second := dial(), dial()
		go send(first)
		<-entered
		go send(second)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := second.Send(ctx, &transport.Image{Name: "other.jpg", Body: transport.Bytes(big[:300_000])}, nil); err != nil {
			t.Error("another image:", err)
		}
		close(goOn)
		for range 2 {
			if err := <-sent; err != nil {
				t.Error("the image:", err)
			}
		}
		first.Close()
		second.Close()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		<-served
	})
}

// slowEnd takes a second for what comes after its first bytes.
type slowEnd struct{ *bytes.Reader }

func (s slowEnd) ReadAt(p []byte, off int64) (int, error) {
	if off >= 256<<10 {
		time.Sleep(time.Second)
	}
	return s.Reader.ReadAt(p, off)
}

// The receipt of what was kept under an ID comes while the last bytes of another image are read, which is told all the same.
func TestReceiptComesBeforeTheLastBytes(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		b := bytes.Repeat([]byte("one "), 75_000)
		o := &transport.SendOptions{ID: transport.NewID()}
		for i, want := range []error{nil, nil, transport.ErrIDUsed} {
			if i == 2 {
				b = bytes.ToUpper(b)
			}
			img := &transport.Image{Name: "x", Body: transport.Content(slowEnd{bytes.NewReader(b)}, int64(len(b)))}
			if _, err := e.conn.Send(t.Context(), img, o); !errors.Is(err, want) {
				t.Errorf("Send number %d: %v; want %v", i+1, err, want)
			}
		}
	})
}
