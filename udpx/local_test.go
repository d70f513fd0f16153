package udpx_test

import (
	"context"
	"net"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// A receiver on all addresses of its host answers from the one that it was asked at, with which alone a socket
// of the sender's that is connected has to do.
func TestAnswersFromTheAddressThatWasAsked(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("Linux tells where a packet was sent to")
	}
	for _, c := range []struct{ listen, dial, offload string }{
		{":0", "127.0.0.2", ""},
		{"0.0.0.0:0", "127.0.0.2", ""},
		{":0", "::1", ""},
		{":0", "127.0.0.3", "off"},
	} {
		t.Run(c.listen+" at "+c.dial, func(t *testing.T) {
			if here, err := net.ListenPacket("udp", net.JoinHostPort(c.dial, "0")); err != nil {
				t.Skip("this host has no such address:", err)
			} else {
				here.Close()
			}
			t.Setenv(udpsock.OffloadVariable, c.offload)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for name, pair := range map[string]func(addr string) transport.Transport{
				"native":   func(addr string) transport.Transport { return &udpx.Transport{Addr: addr} },
				"header":   func(addr string) transport.Transport { return &udpx.Header{Addr: addr} },
				"datagram": func(addr string) transport.Transport { return &udpx.Datagram{Addr: addr} },
			} {
				l, err := pair(c.listen).Listen(ctx)
				if err != nil {
					t.Fatal(err)
				}
				srv := &transport.Server{Store: &transport.MemStore{}}
				served := make(chan error, 1)
				go func() { served <- srv.Serve(context.Background(), l) }()
				size := map[string]int{"native": 3 << 20, "header": 100_000, "datagram": 1000}[name]
				conn, err := pair(net.JoinHostPort(c.dial, strconv.Itoa(l.Addr().(*net.UDPAddr).Port))).Dial(ctx)
				if err == nil {
					_, err = conn.Send(ctx, &transport.Image{Name: "a", Body: transport.Bytes(noise(1, size))}, nil)
					conn.Close()
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				srv.Shutdown(ctx)
				<-served
			}
		})
	}
}
