package mqttx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/internal/testimage"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/transporttest"
)

func TestBaseConformance(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		n := 0
		transporttest.TestTransport(t, func(testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
			n++
			base := Base{Broker: b.URL(), ToBase: fmt.Sprint("to/", n), FromBase: fmt.Sprint("from/", n), Timeout: 300 * time.Millisecond}
			dial := &Base{Broker: base.Broker, ToBase: base.ToBase, FromBase: base.FromBase, Timeout: base.Timeout}
			return &base, func(net.Addr) transport.Transport { return dial }
		}, transporttest.Properties{
			Confirms: transport.Received, MinSize: 1, MaxSize: maxNumber * defaultPackageSize,
			Boundaries: []int64{defaultPackageSize, 10 * defaultPackageSize}, Large: 2_000_000,
			UnknownSize: true, Names: true, Aborts: true, Live: true,
		})
	})
}

// unknown opens a body that does not tell its size.
func unknown(b []byte) func(context.Context) (io.ReadCloser, int64, error) {
	return func(context.Context) (io.ReadCloser, int64, error) { return io.NopCloser(bytes.NewReader(b)), -1, nil }
}

// baseSend sends an image, which must be received.
func baseSend(t testing.TB, c transport.Conn, name string, content []byte) {
	t.Helper()
	receipt, err := c.Send(within(t), &transport.Image{Name: name, Body: transport.Bytes(content)}, nil)
	if err != nil || receipt.Level != transport.Received || receipt.Bytes != int64(len(content)) {
		t.Fatalf("send %s: %+v, %v", name, receipt, err)
	}
}

func TestBaseSizes(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		for _, lastFirst := range []bool{false, true} {
			base := &Base{Broker: b.URL(), LastFirst: lastFirst, ZeroBased: lastFirst}
			r := receive(t, base)
			c := dial(t, base)
			for _, content := range [][]byte{
				random(1), random(1399), random(1400), random(1401), random(2799), random(2800), random(35_935), testimage.JPEG(1, 640, 480), random(2_000_000),
			} {
				name := fmt.Sprint(len(content), ".jpg")
				baseSend(t, c, name, content)
				r.expect(t, name, content)
			}
			r.srv.Shutdown(within(t))
		}
	})
}

func TestBaseLargest(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	base := &Base{Broker: b.URL(), PackageSize: 100}
	r := receive(t, base)
	c := dial(t, base)
	content := random(maxNumber * 100)
	baseSend(t, c, "largest", content)
	r.expect(t, "largest", content)

	published := false
	b.SetFaults(func(string, []byte) testbroker.Fault { published = true; return testbroker.None })
	for name, body := range map[string]transport.Body{
		"larger":          transport.Bytes(append(content, 0)),
		"larger, unknown": transport.OpenFunc(unknown(append(content, 0))),
		"empty":           transport.Bytes(nil),
		"empty, unknown":  transport.OpenFunc(unknown(nil)),
		"semi;colon":      transport.Bytes(content),
	} {
		_, err := c.Send(within(t), &transport.Image{Name: name, Body: body}, nil)
		if err == nil || transport.Retryable(err) {
			t.Errorf("%s: %v", name, err)
		}
		if e := (*transport.TooLargeError)(nil); name[0] == 'l' && (!errors.As(err, &e) || e.Max != 100*maxNumber) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if published {
		t.Error("a part of a refused image was sent")
	}
}

func TestBaseQueue(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	base := &Base{Broker: b.URL()}
	entered, leave := make(chan string), make(chan struct{})
	l, err := base.Listen(within(t))
	if err != nil {
		t.Fatal(err)
	}
	srv := &transport.Server{Handler: func(_ context.Context, in *transport.Incoming) error {
		entered <- in.Image.Name
		<-leave
		return nil
	}}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	t.Cleanup(func() { srv.Shutdown(within(t)); <-served })

	conns := []transport.Conn{dial(t, base), dial(t, base)} // of both the Sends take turns
	sent := make(chan error, 10)
	for i := range 10 {
		ready := make(chan struct{})
		body := transport.OpenFunc(func(ctx context.Context) (io.ReadCloser, int64, error) {
			close(ready)
			return unknown(random(10))(ctx)
		})
		go func() {
			_, err := conns[i%2].Send(within(t), &transport.Image{Name: fmt.Sprint(i), Body: body}, nil)
			sent <- err
		}()
		<-ready
		time.Sleep(100 * time.Millisecond) // so that it queues before the next one
	}
	for i := range 10 {
		if name := <-entered; name != fmt.Sprint(i) {
			t.Errorf("image %s came as number %d", name, i)
		}
		select {
		case name := <-entered:
			t.Fatalf("%s overtakes %d", name, i)
		case <-time.After(10 * time.Millisecond):
		}
		leave <- struct{}{}
	}
	for range 10 {
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
}
