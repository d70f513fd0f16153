package tcpx_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// A server that leaves during the client's pause has taken nothing, and that is known before the first byte.
func TestServerLeavesInPause(t *testing.T) {
	addr := answering(t, func(c net.Conn) {
		io.WriteString(c, "Welcome from server!")
		io.ReadFull(c, make([]byte, len("begin to send")))
		c.(*net.TCPConn).CloseWrite() // all that a client on a slow path knows of a server that was killed
		io.Copy(io.Discard, c)
	})
	c, err := (&tcpx.Begin{Addr: addr}).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Send(t.Context(), &transport.Image{Body: transport.Bytes(make([]byte, 800))}, nil)
	if e := (*transport.Error)(nil); !errors.As(err, &e) || e.Outcome != transport.NotKept || !transport.Retryable(err) {
		t.Errorf("the server had left before the image began: %v, %v", r.Level, err)
	}
}

func TestAcceptAtOnce(t *testing.T) {
	l, err := (&tcpx.Begin{Addr: "127.0.0.1:0"}).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 10 {
				if c, err := l.Accept(t.Context()); err == nil {
					c.Close()
				}
			}
		})
	}
	for range 40 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	all.Wait()
}

func TestNoCommandAfterClose(t *testing.T) {
	m := newMemNet()
	srv := &transport.Server{Message: func(context.Context, transport.Conn, transport.Message) error { return nil }}
	l, err := (&tcpx.Command{Listener: m, Commands: []string{"open"}}).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	for range 300 {
		c, err := (&tcpx.Command{DialContext: m.Dial, Pause: -1}).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := c.SendMessage(t.Context(), transport.Message{Data: []byte("open")}); !errors.Is(err, transport.ErrClosed) {
			t.Fatalf("a command after Close: %v", err)
		}
	}
	if m.dialed > 0 {
		t.Errorf("%d connections were made after Close", m.dialed)
	}
	srv.Shutdown(context.Background())
	<-served
}

// Close ends a command that is on its way to a server that does not answer.
func TestCloseEndsACommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := (&tcpx.Command{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began, sent := time.Now(), make(chan error, 1)
		go func() { sent <- c.SendMessage(t.Context(), transport.Message{Data: []byte("open")}) }()
		synctest.Wait()
		c.Close()
		if err := <-sent; !errors.Is(err, transport.ErrClosed) || time.Since(began) > 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// DialContext may leave the TLS handshake to the first read or write. A server that does not answer it is given up after
// Timeout, as one that says nothing.
func TestServerWithoutAnswerInTLS(t *testing.T) {
	type dialer = func(context.Context, string, string) (net.Conn, error)
	for _, device := range []func(dialer) transport.Transport{
		func(d dialer) transport.Transport { return &tcpx.Begin{DialContext: d} },
		func(d dialer) transport.Transport { return &tcpx.Command{DialContext: d} },
		func(d dialer) transport.Transport { return &tcpx.Frames{DialContext: d} },
	} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			defer far.Close()
			go io.Copy(io.Discard, far)
			c := devDial(t, device(func(context.Context, string, string) (net.Conn, error) {
				return tls.Client(near, &tls.Config{ServerName: "camera"}), nil
			}))
			began := time.Now()
			_, err := c.Send(t.Context(), devImage("a.png", "picture"), nil)
			if !errors.Is(err, transport.ErrIdle) || time.Since(began) != 30*time.Second {
				t.Errorf("%s: %v after %v", c.Info().Protocol, err, time.Since(began))
			}
		})
	}
}

// An image of 0 bytes has none behind its name.
func TestEmptyFrameWithBytes(t *testing.T) {
	got := make(chan int64, 1)
	srv := &transport.Server{Handler: func(_ context.Context, in *transport.Incoming) error { got <- in.Size; return nil }}
	l, err := (&tcpx.Frames{Addr: "127.0.0.1:0"}).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 2)
	for _, text := range []string{"visible|d", "0|a.jpg"} {
		io.WriteString(conn, text)
		io.ReadFull(conn, b)
	}
	io.WriteString(conn, "hello")
	if _, err := io.ReadFull(conn, b); err == nil || len(got) > 0 {
		t.Errorf("an image of 0 bytes of which 5 came: %q, %d delivered", b, len(got))
	}
	srv.Shutdown(context.Background())
	<-served
}

// A Name that would have every image refused is told at once.
func TestNameThatIsAPath(t *testing.T) {
	for _, tr := range []transport.Transport{&tcpx.Begin{Addr: "127.0.0.1:0", Name: "gate/{n}.bmp"}, &tcpx.Command{Addr: "127.0.0.1:0", Name: `gate\{n}`}} {
		if _, err := tr.Listen(t.Context()); !errors.Is(err, transport.ErrConfig) {
			t.Errorf("%T: %v", tr, err)
		}
	}
}
