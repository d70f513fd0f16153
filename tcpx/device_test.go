package tcpx_test

import (
	"net"
	"testing"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/transporttest"
)

func TestBeginConformance(t *testing.T) {
	transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		return &tcpx.Begin{Addr: "127.0.0.1:0"}, func(a net.Addr) transport.Transport { return &tcpx.Begin{Addr: a.String(), Pause: -1} }
	}, transporttest.Properties{
		Confirms: transport.Sent, MinSize: 1, Boundaries: []int64{1024}, UnknownSize: true, SingleUse: true, Aborts: true, Live: true,
	})
}

func TestFramesConformance(t *testing.T) {
	transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		return &tcpx.Frames{Addr: "127.0.0.1:0", Quiet: 1e6, Pause: -1}, func(a net.Addr) transport.Transport { return &tcpx.Frames{Addr: a.String(), Pause: -1, Tiny: true} }
	}, transporttest.Properties{
		Confirms: transport.Received, Boundaries: []int64{1024, 32 << 10}, Names: true, Aborts: true, Live: true,
	})
}
