package udpx_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// One datagram in the middle is doubled by the network, and none is lost: the image is not taken for whole before its
// last one, and one too many is told.
func TestHeaderDoubledDatagram(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets})
		c := fieldCamera{PacketConn: n.socket(), to: addrs[0]}
		for _, size := range []int{4095, 4096, 4097} {
			img := photo[:size]
			c.WriteTo(c.header(int64(size)), c.to)
			for off := 0; off < size; off += 1024 {
				c.WriteTo(img[off:min(off+1024, size)], c.to)
				if off == 1024 {
					c.WriteTo(img[off:off+1024], c.to)
				}
			}
			answer := c.answer()
			select {
			case b := <-got.images:
				if !bytes.Equal(b, img) {
					t.Errorf("%d bytes: a wrong image is delivered and answered %q", size, answer)
				}
			default:
			}
			time.Sleep(5 * time.Second)
		}
	})
}

// An image whose pieces are all alike is whole all the same, after a moment.
func TestHeaderFlatImage(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets})
		c := fieldCamera{PacketConn: n.socket(), to: addrs[0]}
		flat := make([]byte, 8<<10)
		for range 2 {
			if answer := c.send(flat); answer != "get message!!!" {
				t.Errorf("the answer is %q", answer)
			}
			if b := <-got.images; !bytes.Equal(b, flat) {
				t.Error("another image has come")
			}
		}
	})
}

// The last datagram of the first image is doubled; the third image is refused.
func TestHeaderDoubledEnd(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets})
		c := fieldCamera{PacketConn: n.socket(), to: addrs[0]}
		answers := []string{c.send(photo[:3000])}
		c.WriteTo(photo[2048:3000], c.to)
		time.Sleep(200 * time.Millisecond)
		answers = append(answers, c.send(photo[:3000]))
		no := errors.New("no")
		got.refuse.Store(&no)
		answers = append(answers, c.send(photo[:3000]))
		if answers[1] != "get message!!!" || answers[2] != "bad image" {
			t.Errorf("of good, good, refused the camera hears %q", answers)
		}
	})
}

// stuck is a source that hangs, but for the look for the media type.
type stuck struct {
	first   *sync.Once
	reached chan struct{}
	gate    chan struct{}
}

func (s stuck) ReadAt(p []byte, off int64) (int, error) {
	hangs := true
	s.first.Do(func() { hangs = false })
	if hangs {
		s.reached <- struct{}{}
		<-s.gate
	}
	return len(p), nil
}

// A source that hangs does not keep Close.
func TestCloseWithStuckSource(t *testing.T) {
	c, err := (&udpx.Header{Addr: loopback(t).LocalAddr().String()}).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := stuck{new(sync.Once), make(chan struct{}, 10), make(chan struct{})}
	sent := make(chan error, 1)
	go func() {
		_, err := c.Send(t.Context(), &transport.Image{Body: transport.Content(s, 3000)}, nil)
		sent <- err
	}()
	<-s.reached
	c.Close()
	close(s.gate)
	if err := <-sent; !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Send: %v", err)
	}
}

// What changes before its last datagram leaves cannot have been kept.
func TestChangedSourceIsNotKept(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		_, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets})
		p := filepath.Join(t.TempDir(), "a")
		if err := os.WriteFile(p, photo[:200_000], 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := (&udpx.Header{Addr: addrs[0].String(), Socket: n.sockets}).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		time.AfterFunc(50*time.Millisecond, func() { os.Chtimes(p, time.Unix(1, 0), time.Unix(1, 0)) })
		_, err = c.Send(t.Context(), &transport.Image{Body: transport.File(p)}, nil)
		if e := (*transport.Error)(nil); !errors.As(err, &e) || e.Outcome != transport.NotKept {
			t.Errorf("the last datagram was never sent: %v", err)
		}
	})
}
