package udpx_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testimage"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// Programs as they are in the field, from the protocols' text alone.

// fieldCamera sends images with a header. It waits for an answer without limit.
type fieldCamera struct {
	net.PacketConn
	to    net.Addr
	width int              // of a C long; 0: 8
	big   bool             // the order of its bytes
	lose  func(i int) bool // datagrams of an image, the header being -1
	early bool             // the empty datagram does not wait for the answer
}

func (c fieldCamera) header(n int64) []byte {
	b := make([]byte, 8)
	binary.LittleEndian.PutUint64(b, uint64(n))
	if c.big {
		binary.BigEndian.PutUint64(b, uint64(n))
	}
	switch {
	case c.width == 4 && c.big:
		return b[4:]
	case c.width == 4:
		return b[:4]
	}
	return b
}

func (c fieldCamera) put(i int, b []byte) {
	if c.lose == nil || !c.lose(i) {
		c.WriteTo(b, c.to)
	}
}

// send sends an image and returns the answer.
func (c fieldCamera) send(img []byte) string {
	c.put(-1, c.header(int64(len(img))))
	for i, rest := 0, img; len(rest) > 0; i++ {
		n := min(1024, len(rest))
		c.put(i, rest[:n])
		rest = rest[n:]
	}
	empty := len(img)%1024 == 0
	if empty && c.early {
		c.put(len(img), nil)
	}
	answer := c.answer()
	if empty && !c.early {
		c.put(len(img), nil)
	}
	return answer
}

func (c fieldCamera) answer() string {
	b := make([]byte, 2048)
	n, _, err := c.ReadFrom(b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

// fieldReceiver takes images with a header, with the defects of the one that has a
// thread: an empty datagram is a header to it, of what its buffer held before, and it
// minds neither who sends nor what is missing.
func fieldReceiver(pc net.PacketConn, width int, images chan<- []byte) {
	b := make([]byte, 65536)
	for {
		if _, _, err := pc.ReadFrom(b); err != nil {
			return
		}
		count := int64(binary.LittleEndian.Uint64(b))
		if width == 4 {
			count = int64(int32(binary.LittleEndian.Uint32(b)))
		}
		var img []byte
		var from net.Addr
		for int64(len(img)) < count {
			n, addr, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			img, from = append(img, b[:n]...), addr
		}
		images <- img
		if from != nil {
			pc.WriteTo([]byte("get message!!!"), from)
		}
	}
}

// taken is what a Server has taken.
type taken struct {
	images   chan []byte
	messages chan string
	lost     chan error
	refuse   atomic.Pointer[error] // of the next ones
}

// serveDevices serves transports as one program and returns where they listen.
func serveDevices(t testing.TB, all ...transport.Transport) (*taken, []net.Addr) {
	got := &taken{images: make(chan []byte, 256), messages: make(chan string, 256), lost: make(chan error, 256)}
	srv := &transport.Server{
		Handler: func(ctx context.Context, in *transport.Incoming) error {
			b, err := in.Image.Body.ReadAll(ctx)
			if err != nil {
				return err
			}
			if err := got.refuse.Load(); err != nil {
				return *err
			}
			got.images <- b
			return nil
		},
		Message: func(_ context.Context, _ transport.Conn, m transport.Message) error {
			if m.Type != "application/json" {
				t.Errorf("a message of type %q", m.Type)
			}
			if err := got.refuse.Load(); err != nil {
				return *err
			}
			got.messages <- string(m.Data)
			return nil
		},
		Hooks: transport.Hooks{Finished: func(_ transport.TransferInfo, _ transport.Receipt, err error) {
			if err != nil {
				got.lost <- err
			}
		}},
	}
	var addrs []net.Addr
	var serving sync.WaitGroup
	for _, tr := range all {
		l, err := tr.Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, l.Addr())
		serving.Go(func() { srv.Serve(context.Background(), l) })
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		srv.Shutdown(ctx)
		serving.Wait()
	})
	return got, addrs
}

func (g *taken) image(t testing.TB, want []byte) {
	t.Helper()
	select {
	case b := <-g.images:
		if !bytes.Equal(b, want) {
			t.Errorf("another image arrived than the %d bytes that were sent: %d bytes", len(want), len(b))
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("no image of %d bytes", len(want))
	}
}

func (g *taken) nothing(t testing.TB) {
	t.Helper()
	select {
	case b := <-g.images:
		t.Errorf("an image of %d bytes arrived that nobody sent", len(b))
	case m := <-g.messages:
		t.Errorf("a message arrived that nobody sent: %s", m)
	default:
	}
}

// pictures are of the sizes that matter, none with the same content.
func pictures(large int) [][]byte {
	var all [][]byte
	for i, n := range []int{1, 7, 8, 9, 1023, 1024, 1025, 2048, 2056, 35935, large} {
		b := bytes.Clone(photo[:n])
		b[0] = byte(i)
		all = append(all, b)
	}
	return all
}

// photo is a real picture of a good 2 MB.
var photo = testimage.BMP(1, 1000, 700)

func dialDevice(t testing.TB, tr transport.Transport) transport.Conn {
	c, err := tr.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func sendImage(t testing.TB, c transport.Conn, b []byte) error {
	_, err := c.Send(t.Context(), &transport.Image{Body: transport.Bytes(b)}, nil)
	if e := (*transport.Error)(nil); err != nil && !errors.As(err, &e) {
		t.Errorf("%T: %v", err, err)
	}
	return err
}

func outcomeOf(err error) transport.Outcome {
	e := &transport.Error{Outcome: 99}
	errors.As(err, &e)
	return e.Outcome
}

// loopback is a socket of this machine.
func loopback(t testing.TB) net.PacketConn {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc
}

// All ports are served at once by one program.
func TestAllPortsAtOnce(t *testing.T) {
	got, addrs := serveDevices(t, &udpx.Datagram{Addr: "127.0.0.1:0"}, &udpx.Header{Addr: "127.0.0.1:0"}, &udpx.JSON{Addr: "127.0.0.1:0"})
	const peers, each = 8, 5
	var all sync.WaitGroup
	for i := range peers {
		pcs := []net.PacketConn{loopback(t), loopback(t), loopback(t)}
		ask := func(pc net.PacketConn, to net.Addr, b []byte, want string) {
			pc.WriteTo(b, to)
			pc.SetReadDeadline(time.Now().Add(20 * time.Second))
			if answer := (fieldCamera{PacketConn: pc}).answer(); answer != want {
				t.Errorf("the answer is %q, want %q", answer, want)
			}
		}
		all.Go(func() {
			for range each {
				ask(pcs[0], addrs[0], []byte{0, byte(i)}, "get message!!!")
				c := fieldCamera{PacketConn: pcs[1], to: addrs[1]}
				if answer := c.send(append(bytes.Clone(photo[:5000]), 1, byte(i))); answer != "get message!!!" {
					t.Errorf("the camera was answered %q", answer)
				}
				ask(pcs[2], addrs[2], []byte(`{"state": "ok"}`), "get the msg")
			}
		})
	}
	all.Wait()
	count := map[[2]byte]int{}
	for range 2 * peers * each {
		b := <-got.images
		count[[2]byte(b[len(b)-2:])]++
	}
	for i := range byte(peers) {
		if n := count[[2]byte{0, i}]; n != each {
			t.Errorf("%d datagrams of peer %d, want %d", n, i, each)
		}
		if n := count[[2]byte{1, i}]; n != each {
			t.Errorf("%d images of camera %d, want %d", n, i, each)
		}
	}
	if n := len(got.messages); n != peers*each {
		t.Errorf("%d messages, want %d", n, peers*each)
	}
}
