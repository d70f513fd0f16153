package native_test

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

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// What the peer's HELLO does not allow is not sent, and the error says what is too large.
func TestOverWhatThePeerTakes(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		for what, send := range map[string]func() error{
			"message": func() error {
				return e.conn.SendMessage(t.Context(), transport.Message{Data: make([]byte, 1<<20+1)})
			},
			"metadata": func() error {
				img := image("x", nil)
				img.Meta = map[string]string{"key": strings.Repeat("v", 60<<10)}
				_, err := e.conn.Send(t.Context(), img, nil)
				return err
			},
		} {
			err := send()
			tooLarge := (*transport.TooLargeError)(nil)
			if !errors.As(err, &tooLarge) || tooLarge.What != what || tooLarge.Size <= tooLarge.Max || tooLarge.Max == 0 || transport.Retryable(err) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// "For a message over what the medium takes at present it returns a *transport.TooLargeError with that as Max, and the session lowers its message size."
func TestLossyLinkThatRefusesItsMessages(t *testing.T) {
	content := bytes.Repeat([]byte("picture"), 50_000)
	for _, ordered := range []bool{true, false} {
		bubble(t, func(_ *transport.Server, m *medium) {
			m.info.Reliable, m.info.Ordered = false, ordered
			m.wrap = func(l native.Link) native.Link { return narrow{l, narrowMost} }
		}, func(t *testing.T, e *ends) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := e.conn.Send(ctx, image("x", content), nil); err != nil {
				t.Fatal(err)
			}
			e.holds("x", content)
		})
	}
}

// A link that takes less than every link has to would refuse the smaller messages too, for ever.
func TestLinkThatComesToRefuseAllMessages(t *testing.T) {
	bubble(t, func(_ *transport.Server, m *medium) {
		m.info.Reliable = false
		m.wrap = func(l native.Link) native.Link { return narrow{l, 200} }
	}, func(t *testing.T, e *ends) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := e.conn.Send(ctx, image("x", make([]byte, 10_000)), nil)
		if tooLarge := (*transport.TooLargeError)(nil); !errors.Is(err, transport.ErrConfig) || errors.As(err, &tooLarge) || !strings.Contains(err.Error(), "limit of 200") {
			t.Error(err)
		}
	})
}

// Of images that wait for their turn the interactive ones come first.
func TestInteractiveImageGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMedium(reliable)
		l := mustListen(t, native.Over(nil, m.listen, native.Config{MaxTransfers: 1}))
		goOn := make(chan struct{})
		var order []string
		srv := &transport.Server{Handler: func(_ context.Context, in *transport.Incoming) error {
			order = append(order, in.Image.Name)
			<-goOn
			return nil
		}}
		served, sent := make(chan error, 1), make(chan error, 3)
		go func() { served <- srv.Serve(context.Background(), l) }()
		conn := mustDial(t, native.Over(m.dial, nil, native.Config{}))
		for i, priority := range []transport.Priority{transport.Bulk, transport.Bulk, transport.Interactive} {
			go func() {
				_, err := conn.Send(t.Context(), image(fmt.Sprint(i), []byte("x")), &transport.SendOptions{Priority: priority})
				sent <- err
			}()
			synctest.Wait()
		}
		close(goOn)
		for range 3 {
			if err := <-sent; err != nil {
				t.Error(err)
			}
		}
		if want := []string{"0", "2", "1"}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		conn.Close()
		srv.Shutdown(t.Context())
		<-served
	})
}

// slowBody takes its time for each piece.
type slowBody struct{ io.Reader }

func (r slowBody) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return r.Reader.Read(p[:min(len(p), 100_000)])
}

func (slowBody) Close() error { return nil }

// The receipt of an image that is kept already comes while a body is read that can be read once: the rest of it tells
// whether it is the same.
func TestDuplicateFromAReader(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		content := bytes.Repeat([]byte("picture"), 500_000)
		other := bytes.Clone(content)
		other[len(other)-1]++
		id := transport.NewID()
		for i, b := range [][]byte{content, content, other} {
			body := transport.OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
				return slowBody{bytes.NewReader(b)}, -1, nil
			})
			r, err := e.conn.Send(t.Context(), &transport.Image{Name: "x", Body: body}, &transport.SendOptions{ID: id})
			if i < 2 && (err != nil || r.Bytes != int64(len(content))) || i == 2 && !errors.Is(err, transport.ErrIDUsed) {
				t.Errorf("%d: %+v, %v", i, r, err)
			}
		}
		e.holds("x", content)
	})
}

// An error of dialling that no other try mends ends the calls at once, and not after the idle time.
func TestLostLinkThatCannotBeDialledForGood(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		e.cut(fmt.Errorf("%w: no such port", transport.ErrConfig))
		began := time.Now()
		_, err := e.conn.Send(t.Context(), image("x", []byte("x")), nil)
		if !errors.Is(err, transport.ErrConfig) || transport.Retryable(err) || time.Since(began) > time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
