package tcpx_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// memoryInUse is what the program needs after everything that is not was let go of.
func memoryInUse() int64 {
	for range 4 { // stacks shrink by half each time
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestIdleMemory has many connections that have been used and rest now.
func TestIdleMemory(t *testing.T) {
	if race {
		t.Skip("the race detector takes memory")
	}
	const n, most = 400, 16 << 10
	l, err := (&tcpx.Transport{Addr: "127.0.0.1:0"}).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	srv := &transport.Server{Store: nowhere{}}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	tr := &tcpx.Transport{Addr: l.Addr().String()}
	var conns []transport.Conn
	before := int64(0)
	for i := range n + 10 {
		if i == 10 { // what the first ones make is made once
			before = memoryInUse()
		}
		c, err := tr.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if _, err := c.Send(t.Context(), &transport.Image{Name: "a.bin", Body: transport.Bytes(noise[:100_000])}, nil); err != nil {
			t.Fatal(err)
		}
	}
	each := int64(most + 1)
	for deadline := time.Now().Add(10 * time.Second); each > most && time.Now().Before(deadline); {
		each = (memoryInUse() - before) / n / 2
	}
	t.Logf("%d bytes", each)
	if each > most {
		t.Errorf("one end of an idle session takes %d bytes, want at most %d", each, most)
	}
	for _, c := range conns {
		c.Close()
	}
	srv.Shutdown(context.Background())
	<-served
}
