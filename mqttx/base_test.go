package mqttx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

// The Sends of all Conns of one Base take turns, in the order in which they came.
func TestBaseQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &Base{Broker: "mqtt://nobody.example"}
		if err := base.start(); err != nil {
			t.Fatal(err)
		}
		link := &baseLink{in: make(chan []byte, baseQueue), out: make(chan []byte, baseQueue)}
		conns := []transport.Conn{&baseConn{base: base, link: link}, &baseConn{base: base, link: link}}
		sent := make(chan error, 10)
		for i := range cap(sent) {
			go func() {
				img := &transport.Image{Name: fmt.Sprint(i), Body: transport.OpenFunc(unknown(random(10)))}
				_, err := conns[i%2].Send(t.Context(), img, nil)
				sent <- err
			}()
			synctest.Wait() // it has its place
		}
		field := &simBase{baseReceiver: base.newReceiver()}
		var began []string
		for len(field.kept) < cap(sent) {
			p := <-link.out
			answers := field.receive(p, time.Now())
			if field.state == baseFinishing {
				answers = append(answers, field.tick(time.Now())...)
			}
			if p[4] == byte(BaseBegin) {
				began = append(began, field.head.Name)
			}
			for _, a := range answers {
				link.in <- a
			}
		}
		for range cap(sent) {
			if err := <-sent; err != nil {
				t.Error(err)
			}
		}
		if got := strings.Join(began, ""); got != "0123456789" {
			t.Errorf("the images came in the order %s", got)
		}
	})
}

// BASE asks for the last package first, so that it has all of them with the last but one, and keeps what it has when
// the sender is silent then. What a file has become meanwhile is not mixed with what it was.
func TestBaseFileThatChangesWhileTheLastPackageIsThereAlready(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	base := &Base{Broker: b.URL(), Timeout: 200 * time.Millisecond, Attempts: 3, LastFirst: true}
	l, err := base.Listen(within(t))
	if err != nil {
		t.Fatal(err)
	}
	ends := make(chan error, 1)
	s := &transport.Server{Store: &transport.MemStore{}, Hooks: transport.Hooks{
		Finished: func(_ transport.TransferInfo, _ transport.Receipt, err error) { ends <- err },
	}}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	path := filepath.Join(t.TempDir(), "a.jpg")
	if err := os.WriteFile(path, bytes.Repeat([]byte{1}, 14_000), 0o600); err != nil {
		t.Fatal(err)
	}
	change := sync.OnceFunc(func() {
		if err := os.WriteFile(path, bytes.Repeat([]byte{2}, 14_000), 0o600); err != nil {
			t.Error(err)
		}
	})
	_, err = dial(t, base).Send(within(t), &transport.Image{Name: "a.jpg", Body: transport.File(path)}, &transport.SendOptions{Progress: func(acked, _ int64) {
		if acked >= 5*1400 {
			change()
		}
	}})
	if failed := (*transport.Error)(nil); !errors.Is(err, transport.ErrSourceChanged) || !errors.As(err, &failed) || failed.Outcome != transport.NotKept {
		t.Errorf("a file that has changed: %v", err)
	}
	if err := <-ends; err == nil {
		t.Error("a mixture is kept")
	}
	if err := s.Shutdown(within(t)); err != nil {
		t.Error(err)
	}
	<-served
}
