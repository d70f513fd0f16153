package tcpx

import (
	"net"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/transport/transporttest"
)

func TestLink(t *testing.T) {
	transporttest.TestLink(t, func(t testing.TB) (a, b native.Link) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		near, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		x, y := newLink(near, time.Second), newLink(far, time.Second)
		x.drain, y.drain = 50*time.Millisecond, 50*time.Millisecond
		return x, y
	}, transporttest.LinkProperties{Ordered: true, Reliable: true, MaxMessage: maxMessage})
}
