package udpx_test

import (
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
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
