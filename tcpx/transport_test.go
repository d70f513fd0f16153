package tcpx_test

import (
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		return &tcpx.Transport{Addr: "127.0.0.1:0"}, func(a net.Addr) transport.Transport { return &tcpx.Transport{Addr: a.String()} }
	}, transporttest.Properties{
		Confirms:    transport.Kept,
		Boundaries:  []int64{64 << 10, 256 << 10, chunk.BlockSize, 2 * chunk.BlockSize},
		UnknownSize: true, Names: true, Metadata: true, IDs: true, Digests: true, Rejections: true,
		Aborts: true, Concurrency: 8, Messages: 64 << 10, BothWays: true, TellsClose: true, Live: true, Resume: true,
	})
}
