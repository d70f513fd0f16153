package udpx_test

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// slowSocket needs time to write a datagram.
type slowSocket struct {
	*node
	t       *testing.T
	writing atomic.Bool
	last    int64 // number of a message
	closed  atomic.Bool
}

func (s *slowSocket) WriteTo(p []byte, to net.Addr) (int, error) {
	if s.writing.Swap(true) {
		s.t.Error("two writes at once")
	}
	if s.closed.Load() {
		s.t.Error("a write after the end of Close")
	}
	h, _, err := wire.Parse(p)
	if n := wire.ExpandNumber(h.Number, s.last); err != nil || n <= s.last {
		s.t.Errorf("message %d (%v) follows %d", n, err, s.last)
	} else {
		s.last = n
	}
	time.Sleep(10 * time.Microsecond)
	s.writing.Store(false)
	return s.node.WriteTo(p, to)
}

// TestBurstsKeepTheirOrder sends more than one burst over a socket that is slower than the polling.
func TestBurstsKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1, path{Delay: time.Millisecond})
		store := &transport.MemStore{}
		addr, _ := serve(t, &udpx.Transport{Conn: n.socket()}, store)
		socket := &slowSocket{node: n.socket(), t: t, last: -1}
		c := dial(t, &udpx.Transport{Conn: socket, Addr: addr.String()})
		b := noise(1, 4<<20)
		if _, err := c.Send(t.Context(), &transport.Image{Name: "image", Body: transport.Bytes(b)}, nil); err != nil {
			t.Fatal(err)
		}
		kept(t, store, "image", b)
		c.Close()
		socket.closed.Store(true)
		synctest.Wait()
	})
}
