package udpx_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/transporttest"
	"github.com/pixferry/pixferry/udpx"
)

// sockets makes the sockets of a simulated network for a device protocol.
func (n *network) sockets(context.Context) (net.PacketConn, error) { return n.socket(), nil }

// around is a network that only takes its time. With a rate datagrams keep their order.
var around = path{Delay: 5 * time.Millisecond, Rate: 64 << 20}

func TestDatagramConformance(t *testing.T) {
	p := transporttest.Properties{
		Confirms: transport.Received, MinSize: 1, MaxSize: 65507, Boundaries: []int64{1472},
		UnknownSize: true, Aborts: true, Live: true,
	}
	t.Run("loopback", func(t *testing.T) {
		transporttest.TestTransport(t, func(testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
			return &udpx.Datagram{Addr: "127.0.0.1:0"}, func(a net.Addr) transport.Transport { return &udpx.Datagram{Addr: a.String()} }
		}, p)
	})
	p.Bubble = true
	t.Run("virtual time", func(t *testing.T) {
		transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
			n := newNetwork(t, 1, around)
			return &udpx.Datagram{Socket: n.sockets}, func(a net.Addr) transport.Transport {
				return &udpx.Datagram{Socket: n.sockets, Addr: a.String()}
			}
		}, p)
	})
}

func TestHeaderConformance(t *testing.T) {
	p := transporttest.Properties{
		Confirms: transport.Received, MinSize: 1, MaxSize: 400_000, Boundaries: []int64{1024},
		UnknownSize: true, Aborts: true, Live: true,
	}
	t.Run("loopback", func(t *testing.T) {
		transporttest.TestTransport(t, func(testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
			return &udpx.Header{Addr: "127.0.0.1:0", MaxImage: 400_000}, func(a net.Addr) transport.Transport {
				return &udpx.Header{Addr: a.String(), MaxImage: 400_000, Gap: 200 * time.Microsecond}
			}
		}, p)
	})
	p.Bubble, p.MaxSize, p.Large, p.Boundaries = true, 3<<20, 2<<20, []int64{4, 8, 1024, 1024 + 4, 1024 + 8, 2048}
	t.Run("virtual time", func(t *testing.T) {
		transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
			n := newNetwork(t, 1, around)
			return &udpx.Header{Socket: n.sockets, MaxImage: 3 << 20}, func(a net.Addr) transport.Transport {
				return &udpx.Header{Socket: n.sockets, Addr: a.String(), MaxImage: 3 << 20, Width: 4}
			}
		}, p)
	})
}

func TestDeviceMistakes(t *testing.T) {
	for _, tr := range []transport.Transport{&udpx.Datagram{}, &udpx.Header{Addr: "127.0.0.1"}, &udpx.JSON{Addr: "127.0.0.1:"}, &udpx.Header{Addr: "127.0.0.1:1", Width: 2}} {
		if _, err := tr.Dial(t.Context()); !errors.Is(err, transport.ErrConfig) || transport.Retryable(err) {
			t.Errorf("Dial of %+v: %v", tr, err)
		}
	}
	if _, err := (&udpx.Datagram{Addr: "127.0.0.1"}).Listen(t.Context()); !errors.Is(err, transport.ErrConfig) {
		t.Error("Listen without a port:", err)
	}
	c, err := (&udpx.JSON{Addr: "127.0.0.1:1"}).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Send(t.Context(), &transport.Image{Body: transport.Bytes([]byte("{}"))}, nil)
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "SendMessage") {
		t.Errorf("an image over JSON: %v", err)
	}
}
