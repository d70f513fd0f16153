package udpx_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

func TestDatagramFromFieldCamera(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Datagram{Socket: n.sockets})
		a, b := fieldCamera{PacketConn: n.socket()}, fieldCamera{PacketConn: n.socket()}
		for _, img := range append(pictures(65507), photo[:65506]) {
			for _, c := range []fieldCamera{a, b} {
				c.WriteTo(nil, addrs[0]) // no image, and no answer
				c.WriteTo(img, addrs[0])
				if answer := c.answer(); answer != "get message!!!" {
					t.Errorf("%d bytes: %q", len(img), answer)
				}
				got.image(t, img)
			}
		}
		refusal := errors.New("the disk is full")
		got.refuse.Store(&refusal)
		a.WriteTo(photo[:100], addrs[0])
		if answer := a.answer(); answer != "bad image" {
			t.Errorf("an image that is refused: %q", answer)
		}
		got.nothing(t)
	})
}

func TestDatagramToFieldReceiver(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		pc := n.socket()
		defer pc.Close()
		images := make(chan []byte, 1)
		go func() {
			for b := make([]byte, 65536); ; {
				size, from, err := pc.ReadFrom(b)
				if err != nil {
					return
				}
				images <- bytes.Clone(b[:size])
				pc.WriteTo([]byte("get message!!!"), from)
			}
		}()
		c := dialDevice(t, &udpx.Datagram{Socket: n.sockets, Addr: pc.LocalAddr().String()})
		for _, img := range pictures(65507) {
			r, err := c.Send(t.Context(), &transport.Image{Body: transport.Bytes(img)}, nil)
			if err != nil || r.Level != transport.Received || r.Bytes != int64(len(img)) {
				t.Errorf("%d bytes: %+v, %v", len(img), r, err)
			}
			if !bytes.Equal(<-images, img) {
				t.Errorf("%d bytes have changed", len(img))
			}
		}
	})
}
