package udpx_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// A camera whose image is refused is told so when it listens, and goes on.
func TestHeaderRefused(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		l, err := (&udpx.Header{Socket: n.sockets}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var refuse error
		srv := &transport.Server{
			Handler: func(context.Context, *transport.Incoming) error { return refuse },
			Limits:  transport.Limits{MaxImage: 50_000},
		}
		go srv.Serve(t.Context(), l)
		defer srv.Shutdown(t.Context())
		c := fieldCamera{PacketConn: n.socket(), to: l.Addr()}
		for _, tt := range []struct {
			size   int
			refuse error
			want   string
		}{
			{50_000, nil, "get message!!!"},
			{50_001, nil, "bad image"},
			{1 << 20, nil, "bad image"},
			{50_000, errors.New("the disk is full"), "bad image"},
			{50_000, transport.Reject("not a cat"), "bad image"},
			{1, nil, "get message!!!"},
		} {
			refuse = tt.refuse
			if answer := c.send(photo[:tt.size]); answer != tt.want {
				t.Errorf("%d bytes, %v: %q", tt.size, tt.refuse, answer)
			}
		}
	})
}

func TestHeaderRetry(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets})
		c := dialDevice(t, &udpx.Header{Socket: n.sockets, Addr: addrs[0].String()})
		refusal := errors.New("the disk is full")
		got.refuse.Store(&refusal)
		time.AfterFunc(2*time.Second, func() { got.refuse.Store(nil) })
		_, err := c.Send(t.Context(), &transport.Image{Body: transport.Bytes(photo[:5000])}, &transport.SendOptions{
			Retry: &transport.RetryPolicy{MaxAttempts: -1, Initial: time.Second},
		})
		if err != nil {
			t.Error(err)
		}
		got.image(t, photo[:5000])
		got.nothing(t)
	})
}

// A file that changes while it is sent does not arrive.
func TestHeaderSourceChanges(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets})
		c := dialDevice(t, &udpx.Header{Socket: n.sockets, Addr: addrs[0].String()})
		path := filepath.Join(t.TempDir(), "a.bmp")
		if err := os.WriteFile(path, photo[:1<<20], 0o600); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(50*time.Millisecond, func() { os.WriteFile(path, photo[1:1<<20], 0o600) })
		_, err := c.Send(t.Context(), &transport.Image{Body: transport.File(path)}, nil)
		if err == nil || outcomeOf(err) != transport.NotKept {
			t.Errorf("the file has changed: %v", err)
		}
		if err := sendImage(t, c, photo[:1000]); err != nil {
			t.Error(err)
		}
		got.image(t, photo[:1000])
		got.nothing(t)
	})
}

// What was taken when the Server shuts down is answered.
func TestShutdownAnswers(t *testing.T) {
	for range 30 {
		deviceBubble(t, func(t *testing.T, n *network) {
			l, err := (&udpx.Datagram{Socket: n.sockets}).Listen(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			srv := &transport.Server{Handler: func(context.Context, *transport.Incoming) error {
				time.Sleep(time.Second)
				return nil
			}}
			go srv.Serve(t.Context(), l)
			c := fieldCamera{PacketConn: n.socket()}
			c.WriteTo(photo[:100], l.Addr())
			time.Sleep(500 * time.Millisecond)
			if err := srv.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			c.SetReadDeadline(time.Now().Add(time.Minute))
			if answer := c.answer(); answer != "get message!!!" {
				t.Errorf("what was taken before Shutdown is answered %q", answer)
			}
		})
	}
}
