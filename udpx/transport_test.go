package udpx_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/transport/transporttest"
	"github.com/pixferry/pixferry/udpx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// properties are what udpx claims on any network.
var properties = transporttest.Properties{
	Confirms:    transport.Kept,
	Boundaries:  []int64{1200 - 26, 1472 - 26, 64 << 10, chunk.BlockSize, 2 * chunk.BlockSize},
	UnknownSize: true, Names: true, Metadata: true, IDs: true, Digests: true, Rejections: true,
	Aborts: true, Concurrency: 8, Messages: 64 << 10, BothWays: true, TellsClose: true, Live: true, Resume: true,
}

func TestLoopback(t *testing.T) {
	transporttest.TestTransport(t, func(testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		return &udpx.Transport{Addr: "127.0.0.1:0"}, func(a net.Addr) transport.Transport { return &udpx.Transport{Addr: a.String()} }
	}, properties)
}

// TestLossyNetwork is in virtual time.
func TestLossyNetwork(t *testing.T) {
	p := properties
	p.Bubble = true
	p.Large = 2 << 20
	seed := uint64(0)
	transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		seed++
		n := newNetwork(t, seed, path{
			Delay: 10 * time.Millisecond, Jitter: 3 * time.Millisecond, Rate: 10 << 20, Queue: 256 << 10,
			Loss: 0.03, Duplicate: 0.02, Corrupt: 0.01,
		})
		return &udpx.Transport{Conn: n.socket()}, func(a net.Addr) transport.Transport {
			return &udpx.Transport{Conn: n.socket(), Addr: a.String()}
		}
	}, p)
}

func TestAddressMistakes(t *testing.T) {
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:", "udp://127.0.0.1:99", "127.0.0.1:65536", "127.0.0.1:1x"} {
		if _, err := (&udpx.Transport{Addr: addr}).Dial(t.Context()); !errors.Is(err, transport.ErrConfig) || !strings.Contains(err.Error(), "set it to the peer's host:port") {
			t.Errorf("Dial %q: %v", addr, err)
		}
	}
	if _, err := (&udpx.Transport{Addr: "127.0.0.1"}).Listen(t.Context()); !errors.Is(err, transport.ErrConfig) {
		t.Error("Listen without a port:", err)
	}
	if _, err := new(udpx.Transport).DialAddr(t.Context(), &net.UDPAddr{}); !errors.Is(err, transport.ErrConfig) {
		t.Error("DialAddr without a socket:", err)
	}
}

func TestMistakenSettings(t *testing.T) {
	for says, tr := range map[string]*udpx.Transport{
		"MaxDatagram is 100":  {MaxDatagram: 100},
		"MaxPeers is -1":      {MaxPeers: -1},
		"IdleTimeout is 30ns": {Config: native.Config{IdleTimeout: 30}},
	} {
		_, listen := tr.Listen(t.Context())
		tr.Addr = "127.0.0.1:9"
		_, dial := tr.Dial(t.Context())
		for _, err := range []error{listen, dial} {
			if !errors.Is(err, transport.ErrConfig) || !strings.Contains(err.Error(), says) {
				t.Errorf("%v, which is to be a configuration mistake that says %q", err, says)
			}
		}
	}
}

// A peer that never answers is told from one that has no way there, by what to look at.
func TestNobodyAnswers(t *testing.T) {
	mute, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = (&udpx.Transport{Addr: mute.LocalAddr().String()}).Dial(ctx)
	if !errors.Is(err, transport.ErrNoReceiver) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), mute.LocalAddr().String()) {
		t.Errorf("Dial to a port that does not answer: %v", err)
	}
}

// TestPathMTU is on a path that swallows what is too large.
func TestPathMTU(t *testing.T) {
	for mtu, want := range map[int]int{1200: 1200, 1300: 1252, 1460: 1452, 9000: 1472} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, 1, path{Delay: 10 * time.Millisecond, Rate: 1 << 20, Queue: 128 << 10, MTU: mtu})
				store := &transport.MemStore{}
				addr, _ := serve(t, &udpx.Transport{Conn: n.socket()}, store)
				device := n.socket()
				c := dial(t, &udpx.Transport{Conn: device, Addr: addr.String()})
				b := noise(1, 5<<20)
				if _, err := c.Send(t.Context(), &transport.Image{Name: "a", Body: transport.Bytes(b)}, nil); err != nil {
					t.Fatal(err)
				}
				kept(t, store, "a", b)
				c.Close()
				datagrams, bytes := device.sent()
				if mean := bytes / datagrams; mean < want*95/100 || mean > want {
					t.Errorf("datagrams have %d bytes in the mean; want nearly %d", mean, want)
				}
			})
		})
	}
}
