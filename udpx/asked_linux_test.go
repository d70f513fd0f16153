package udpx_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// A device with one local port asks at one address of its receiver's host and then at another, as after it was
// configured anew: each answer leaves from the one that was asked, the only one that it listens to.
func TestAnswersADeviceThatAsksAtAnotherAddress(t *testing.T) {
	for name, tr := range map[string]transport.Transport{
		"datagram": &udpx.Datagram{Addr: "0.0.0.0:0"},
		"json":     &udpx.JSON{Addr: "0.0.0.0:0"},
		"header":   &udpx.Header{Addr: "0.0.0.0:0"},
	} {
		l, err := tr.Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		srv := &transport.Server{
			Store:   &transport.MemStore{},
			Message: func(context.Context, transport.Conn, transport.Message) error { return nil },
		}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(context.Background(), l) }()
		device, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer device.Close()
		for _, asked := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.2"} {
			to := netip.AddrPortFrom(netip.MustParseAddr(asked), uint16(l.Addr().(*net.UDPAddr).Port))
			for _, d := range map[string][]string{"datagram": {"image"}, "json": {"{}"}, "header": {"\x05\x00\x00\x00\x00\x00\x00\x00", "image"}}[name] {
				if _, err := device.WriteToUDPAddrPort([]byte(d), to); err != nil {
					t.Fatal(err)
				}
			}
			device.SetReadDeadline(time.Now().Add(10 * time.Second))
			b := make([]byte, 100)
			n, from, err := device.ReadFromUDPAddrPort(b)
			if err != nil || from != to {
				t.Errorf("%s: asked at %v, %v answers %q, %v", name, to, from, b[:n], err)
			}
		}
		srv.Shutdown(t.Context())
		<-served
	}
}
