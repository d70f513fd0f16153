package udpx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/framing"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// deviceBubble runs a test in virtual time on a network that only takes its time.
func deviceBubble(t *testing.T, f func(t *testing.T, n *network)) {
	synctest.Test(t, func(t *testing.T) { f(t, newNetwork(t, 1, around)) })
}

func TestHeaderFromFieldCamera(t *testing.T) {
	for _, tt := range []struct {
		name  string
		width int
		order framing.Order
		early bool
	}{
		{"a long of 8 bytes", 8, framing.LittleEndian, false},
		{"a long of 4 bytes", 4, framing.LittleEndian, false},
		{"big endian", 8, framing.BigEndian, false},
		{"4 bytes, big endian", 4, framing.BigEndian, false},
		{"the empty datagram does not wait for the answer", 8, framing.LittleEndian, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			deviceBubble(t, func(t *testing.T, n *network) {
				got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets, Order: tt.order})
				c := fieldCamera{PacketConn: n.socket(), to: addrs[0], width: tt.width, big: tt.order == framing.BigEndian, early: tt.early}
				for _, b := range pictures(2 << 20) {
					if answer := c.send(b); answer != "get message!!!" {
						t.Errorf("an image of %d bytes is answered %q", len(b), answer)
					}
					got.image(t, b)
				}
				got.nothing(t)
			})
		})
	}
}

// A camera that waits for an answer without limit goes on after every loss.
func TestHeaderLosses(t *testing.T) {
	img := photo[:200_000] // 196 datagrams
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets})
		c := fieldCamera{PacketConn: n.socket(), to: addrs[0]}
		for name, lose := range map[string]func(i int) bool{
			"90 in the middle":    func(i int) bool { return i >= 50 && i < 140 },
			"the last 90":         func(i int) bool { return i >= 106 },
			"the first 90":        func(i int) bool { return i >= 0 && i < 90 },
			"one":                 func(i int) bool { return i == 7 },
			"the last one":        func(i int) bool { return i == 195 },
			"the header":          func(i int) bool { return i == -1 },
			"all but the header":  func(i int) bool { return i >= 0 },
			"every second one":    func(i int) bool { return i%2 == 1 },
			"the header and more": func(i int) bool { return i < 20 },
		} {
			for _, b := range [][]byte{img, img[:196<<10], img[:100<<10+8]} {
				c.lose = lose
				start := time.Now()
				if answer := c.send(b); answer != "bad image" && (len(b) > len(img)-1024 || answer != "get message!!!") {
					t.Errorf("%s of %d bytes are lost: the answer is %q", name, len(b), answer)
				} else if took := time.Since(start); took > 3*time.Second {
					t.Errorf("%s of %d bytes are lost: the answer takes %v", name, len(b), took)
				} else if answer == "get message!!!" {
					got.image(t, b)
				} else if !lose(-1) {
					select {
					case err := <-got.lost:
						if r := (*transport.RejectedError)(nil); !errors.As(err, &r) || r.Reason != transport.ReasonIncomplete {
							t.Errorf("%s are lost: %v", name, err)
						}
					case <-time.After(time.Second):
						t.Errorf("%s are lost, and nobody is told", name)
					}
				}
				c.lose = nil
				if answer := c.send(img); answer != "get message!!!" {
					t.Errorf("%s are lost, and the next image is answered %q", name, answer)
				}
				got.image(t, img)
			}
		}
		got.nothing(t)
	})
}

// A sender that waits for no answer begins the next image whatever became of the last.
func TestHeaderRightAfterLoss(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets})
		c := fieldCamera{PacketConn: n.socket(), to: addrs[0]}
		for _, size := range []int{10_000, 10 << 10, 5<<10 + 8} { // the last one ends as long as a header
			for i, b := range [][]byte{photo[:size], photo[1 : size+1]} {
				c.WriteTo(c.header(int64(size)), c.to)
				for off := 0; off < size; off += 1024 {
					if i == 1 || off != 2048 && off != 5<<10 {
						c.WriteTo(b[off:min(off+1024, size)], c.to)
					}
				}
			}
			if answer := c.answer(); answer != "get message!!!" {
				t.Errorf("two images of %d bytes, the first with a loss: %q", size, answer)
			}
			got.image(t, photo[1:size+1])
			got.nothing(t)
		}
	})
}

// The last bytes of an image may read as a header.
func TestHeaderEndLikeHeader(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets})
		for _, width := range []int{4, 8} {
			c := fieldCamera{PacketConn: n.socket(), to: addrs[0], width: width}
			for _, size := range []int{0, 1024, 5 << 10} {
				b := append(bytes.Clone(photo[:size]), c.header(4000)...)
				for range 2 {
					if answer := c.send(b); answer != "get message!!!" {
						t.Errorf("%d bytes that end like a header: %q", len(b), answer)
					}
					got.image(t, b)
				}
			}
		}
	})
}

func TestHeaderBadHeaders(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets})
		c := fieldCamera{PacketConn: n.socket(), to: addrs[0]}
		for _, bad := range [][]byte{c.header(-1), c.header(-1 << 63), c.header(1 << 40), c.header(0), {1, 2, 3, 4, 5}, {0, 0, 0, 0x80}, []byte("hello"), photo[:1024], photo[:1500]} {
			c.WriteTo(bad, c.to)
			if answer := c.answer(); answer != "bad image" {
				t.Errorf("% .8x: %q", bad, answer)
			}
			if answer := c.send(photo[:3000]); answer != "get message!!!" {
				t.Errorf("after % .8x: %q", bad, answer)
			}
			got.image(t, photo[:3000])
		}
		got.nothing(t)
	})
}

func TestHeaderManyCameras(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets})
		var all sync.WaitGroup
		const cameras, each = 40, 3
		for i := range cameras {
			all.Go(func() {
				c := fieldCamera{PacketConn: n.socket(), to: addrs[0]}
				for j := range each {
					if answer := c.send(bytes.Repeat([]byte{byte(i), byte(j)}, 5000+i)); answer != "get message!!!" {
						t.Errorf("camera %d: %q", i, answer)
					}
				}
			})
		}
		all.Wait()
		seen := map[[2]byte]bool{}
		for range cameras * each {
			b := <-got.images
			id := [2]byte(b)
			if !bytes.Equal(b, bytes.Repeat(id[:], 5000+int(id[0]))) || seen[id] {
				t.Errorf("image %d of camera %d is mixed or doubled", id[1], id[0])
			}
			seen[id] = true
		}
	})
}

func TestHeaderToFieldReceiver(t *testing.T) {
	for _, width := range []int{8, 4} {
		t.Run(fmt.Sprint("a long of ", width, " bytes"), func(t *testing.T) {
			deviceBubble(t, func(t *testing.T, n *network) {
				images := make(chan []byte, 1)
				pc := n.socket()
				defer pc.Close()
				go fieldReceiver(pc, width, images)
				c := dialDevice(t, &udpx.Header{Socket: n.sockets, Addr: pc.LocalAddr().String(), Width: width})
				for _, b := range pictures(2 << 20) {
					if err := sendImage(t, c, b); err != nil {
						t.Errorf("%d bytes: %v", len(b), err)
					}
					if got := <-images; !bytes.Equal(got, b) {
						t.Errorf("%d bytes arrived as %d, or changed", len(b), len(got))
					}
				}
			})
		})
	}
}

// slowest notes the longest time between two reads.
type slowest struct {
	net.PacketConn
	last    time.Time
	longest atomic.Int64
}

func (s *slowest) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.PacketConn.ReadFrom(b)
	now := time.Now()
	if !s.last.IsZero() {
		s.longest.Store(max(s.longest.Load(), int64(now.Sub(s.last))))
	}
	s.last = now
	return n, from, err
}

// A field receiver with a buffer of 208 KiB loses nothing at the sender's full speed.
func TestHeaderFullSpeedToFieldReceiver(t *testing.T) {
	pc := loopback(t).(*net.UDPConn)
	pc.SetReadBuffer(212992 / 2) // Linux doubles it
	images := make(chan []byte, 1)
	s := &slowest{PacketConn: pc}
	go fieldReceiver(s, 8, images)
	c := dialDevice(t, &udpx.Header{Addr: pc.LocalAddr().String(), AnswerTimeout: 5 * time.Second})
	b := photo[:2<<20]
	if err := sendImage(t, c, b); err != nil {
		if stopped := time.Duration(s.longest.Load()); stopped > 40*time.Millisecond {
			t.Skipf("this machine is too busy: the receiver stood still for %v", stopped)
		}
		t.Fatal(err)
	}
	if !bytes.Equal(<-images, b) {
		t.Error("the image has changed")
	}
}

func TestHeaderRefusedBeforeSending(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		var sockets []*node
		count := func(context.Context) (net.PacketConn, error) {
			s := n.socket()
			sockets = append(sockets, s)
			return s, nil
		}
		for _, tt := range []struct {
			name string
			tr   transport.Transport
			body transport.Body
			want any // a pointer to an error type, or an error
		}{
			{"over MaxImage", &udpx.Header{Addr: "10.0.0.9:1", Socket: count}, transport.Content(zeros{}, 64<<20+1), new(*transport.TooLargeError)},
			{"over MaxImage, of unknown size", &udpx.Header{Addr: "10.0.0.9:1", Socket: count, MaxImage: 10}, transport.Stream(bytes.NewReader(photo)), new(*transport.TooLargeError)},
			{"over a long of 4 bytes", &udpx.Header{Addr: "10.0.0.9:1", Socket: count, MaxImage: 1 << 40, Width: 4}, transport.Content(zeros{}, 1<<31), new(*transport.TooLargeError)},
			{"empty", &udpx.Header{Addr: "10.0.0.9:1", Socket: count}, transport.Bytes(nil), errors.ErrUnsupported},
			{"a datagram too large", &udpx.Datagram{Addr: "10.0.0.9:1", Socket: count}, transport.Bytes(photo[:65508]), new(*transport.TooLargeError)},
			{"an empty datagram", &udpx.Datagram{Addr: "10.0.0.9:1", Socket: count}, transport.Bytes(nil), errors.ErrUnsupported},
		} {
			c := dialDevice(t, tt.tr)
			_, err := c.Send(t.Context(), &transport.Image{Body: tt.body}, nil)
			want, is := tt.want.(error)
			if is && !errors.Is(err, want) || !is && !errors.As(err, tt.want) || transport.Retryable(err) || outcomeOf(err) != transport.NotKept {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		for _, s := range sockets {
			if n, _ := s.sent(); n > 0 {
				t.Errorf("%d datagrams were sent", n)
			}
		}
	})
	if _, err := (&udpx.Header{Addr: "127.0.0.1:1", Width: 2}).Dial(t.Context()); err == nil {
		t.Error("a header of 2 bytes")
	}
	if _, err := (&udpx.Header{}).Dial(t.Context()); err == nil {
		t.Error("Dial without Addr")
	}
}
