package udpx_test

import (
	"context"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// TestBytesAreTheCallersAgain cancels Sends at all times and writes to their images at once, which the
// race detector reports if anybody still reads them. In virtual time nobody would: it stands still meanwhile.
func TestBytesAreTheCallersAgain(t *testing.T) {
	store := &transport.MemStore{}
	addr, _ := serve(t, &udpx.Transport{Addr: "127.0.0.1:0"}, store)
	c := dial(t, &udpx.Transport{Addr: addr.String()})
	b := noise(1, 4<<20)
	for i := range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		stop := time.AfterFunc(time.Duration(i)*50*time.Microsecond, cancel)
		_, _ = c.Send(ctx, &transport.Image{Name: "image", Body: transport.Bytes(b[:len(b)>>(i%3*4)])}, nil)
		clear(b)
		stop.Stop()
		cancel()
	}
	want := noise(2, 1<<20)
	if _, err := c.Send(t.Context(), &transport.Image{Name: "last", Body: transport.Bytes(want)}, nil); err != nil {
		t.Fatal(err)
	}
	kept(t, store, "last", want)
}
