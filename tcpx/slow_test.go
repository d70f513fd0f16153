package tcpx_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// modem moves 2,000 bytes a second.
type modem struct{ net.Conn }

func (m modem) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		var k int
		time.Sleep(time.Second / 4)
		k, err = m.Conn.Write(p[:min(500, len(p))])
		n, p = n+k, p[k:]
	}
	return n, err
}

// A message that takes several times the idle time is no silence, for neither side.
func TestSlowerThanAMessageInTheIdleTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet()
		r := devServe(t, &tcpx.Transport{Listener: m}, nil)
		c := devDial(t, &tcpx.Transport{Addr: "memory:1", Config: native.Config{IdleTimeout: 20 * time.Second},
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := m.Dial(ctx, network, addr)
				return modem{conn}, err
			}})
		time.Sleep(time.Hour)
		for _, size := range []int{200_000, 600_000} {
			began, want := time.Now(), devContent(size)
			if _, err := c.Send(t.Context(), devImage("a.jpg", want), &transport.SendOptions{Require: transport.Kept}); err != nil {
				t.Errorf("%d bytes: %v after %v", size, err, time.Since(began))
				continue
			}
			if got := devNext(t, "the image", r.taken); got.body != want {
				t.Errorf("%d of %d bytes", len(got.body), len(want))
			}
		}
		c.Close()
	})
}
