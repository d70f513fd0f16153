package udpx_test

import (
	"net"
	"testing"

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
