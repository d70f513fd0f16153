package tcpx_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/transporttest"
)

func TestBeginConformance(t *testing.T) {
	transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		return &tcpx.Begin{Addr: "127.0.0.1:0"}, func(a net.Addr) transport.Transport { return &tcpx.Begin{Addr: a.String(), Pause: -1} }
	}, transporttest.Properties{
		Confirms: transport.Sent, MinSize: 1, Boundaries: []int64{1024}, UnknownSize: true, SingleUse: true, Aborts: true, Live: true,
	})
}

func TestCommandConformance(t *testing.T) {
	transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		return &tcpx.Command{Addr: "127.0.0.1:0"}, func(a net.Addr) transport.Transport {
			return imagesOnly{&tcpx.Command{Addr: a.String(), Pause: -1}}
		}
	}, transporttest.Properties{
		Confirms: transport.Sent, MinSize: 1, Boundaries: []int64{1024}, UnknownSize: true, SingleUse: true, Aborts: true, Live: true,
	})
}

func TestFramesConformance(t *testing.T) {
	transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		return &tcpx.Frames{Addr: "127.0.0.1:0", Quiet: time.Millisecond, Pause: -1}, func(a net.Addr) transport.Transport {
			return &tcpx.Frames{Addr: a.String(), Pause: -1, Tiny: true}
		}
	}, transporttest.Properties{
		Confirms: transport.Received, Boundaries: []int64{1024, 32 << 10}, Names: true, Aborts: true, Live: true,
	})
}

// imagesOnly hides messages, whose type the protocol does not carry, from the kit.
type imagesOnly struct{ transport.Transport }

type imagesOnlyConn struct{ transport.Conn }

func (i imagesOnly) Dial(ctx context.Context) (transport.Conn, error) {
	c, err := i.Transport.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return imagesOnlyConn{c}, nil
}

func (c imagesOnlyConn) Info() transport.Info {
	info := c.Conn.Info()
	info.Messages = false
	return info
}

func (c imagesOnlyConn) SendMessage(context.Context, transport.Message) error {
	return errors.ErrUnsupported
}

// memNet is a network in memory for one listener. A Write there is a Read, and
// nothing is joined: in a bubble the cuts are those that the test makes.
type memNet struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
	dialed int
}

func newMemNet() *memNet { return &memNet{accept: make(chan net.Conn), closed: make(chan struct{})} }

func (m *memNet) Accept() (net.Conn, error) {
	select {
	case c := <-m.accept:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memNet) Close() error   { m.once.Do(func() { close(m.closed) }); return nil }
func (m *memNet) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "memory"} }

func (m *memNet) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	here, there := &memConn{Conn: a}, &memConn{Conn: b}
	here.peer, there.peer = there, here
	select {
	case m.accept <- there:
		m.dialed++
		return here, nil
	case <-m.closed:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// memConn can be reset.
type memConn struct {
	net.Conn
	peer  *memConn
	mu    sync.Mutex
	reset bool // by the peer
}

func (c *memConn) SetLinger(int) error {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	c.peer.reset = true
	return nil
}

func (c *memConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, io.EOF) && c.reset {
		err = syscall.ECONNRESET
	}
	return n, err
}

// field is a connection as the programs in the field use theirs: what one receive
// returns is one text, and a receive may come late, when more is there already.
type devField struct {
	t    testing.TB
	conn net.Conn
	lag  time.Duration // until a receive looks again
	come chan []byte
	rest []byte // beyond what the last receive asked for
}

func newDevField(t testing.TB, conn net.Conn, lag time.Duration) *devField {
	f := &devField{t: t, conn: conn, lag: lag, come: make(chan []byte, 1<<16)}
	go func() {
		defer close(f.come)
		for {
			buf := make([]byte, 64<<10)
			n, err := conn.Read(buf)
			if n > 0 {
				f.come <- buf[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	return f
}

// recv returns what has come, at most n bytes, and "" at the end of the stream.
func (f *devField) recv(n int) string {
	if len(f.rest) == 0 {
		first, ok := <-f.come
		if !ok {
			return ""
		}
		f.rest = append(f.rest, first...)
	}
	time.Sleep(f.lag)
	for more := true; more; {
		var next []byte
		select {
		case next, more = <-f.come:
			f.rest = append(f.rest, next...)
		default:
			more = false
		}
	}
	n = min(n, len(f.rest))
	text := string(f.rest[:n])
	f.rest = f.rest[n:]
	return text
}

func (f *devField) send(s string) { f.conn.Write([]byte(s)) }

// receiver is a Server and what has become of what came to it.
type devReceiver struct {
	transport.Server
	addr     string
	taken    chan devTaken
	failed   chan error // what Hooks.Finished tells
	commands chan string
	ended    chan error // what Hooks.ConnClosed tells
}

type devTaken struct{ name, source, dir, body string }

func devServe(t testing.TB, tr transport.Transport, setup func(*transport.Server)) *devReceiver {
	t.Helper()
	r := &devReceiver{taken: make(chan devTaken, 1024), failed: make(chan error, 1024), commands: make(chan string, 1024), ended: make(chan error, 1024)}
	r.Handler = func(ctx context.Context, in *transport.Incoming) error {
		body, err := in.Image.Body.ReadAll(ctx)
		if err == nil {
			r.taken <- devTaken{in.Image.Name, in.Image.Source, in.Image.Meta["dir"], string(body)}
		}
		return err
	}
	r.Message = func(_ context.Context, _ transport.Conn, m transport.Message) error {
		r.commands <- string(m.Data)
		return nil
	}
	r.Hooks.Finished = func(_ transport.TransferInfo, _ transport.Receipt, err error) {
		if err != nil {
			r.failed <- err
		}
	}
	r.Hooks.ConnClosed = func(_ transport.Info, err error) { r.ended <- err }
	if setup != nil {
		setup(&r.Server)
	}
	l, err := tr.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); r.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		r.Shutdown(ctx)
		<-done
	})
	return r
}

// next waits for something that must come.
func devNext[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(time.Hour): // of virtual time; go test's own limit ends it in real time
		t.Fatalf("%s has not come", what)
	}
	return v
}

// none checks that nothing has come, once all is still. For bubbles.
func devNone[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	synctest.Wait()
	select {
	case v := <-c:
		t.Errorf("%s has come: %.80v", what, v)
	default:
	}
}

func devDial(t testing.TB, tr transport.Transport) transport.Conn {
	t.Helper()
	c, err := tr.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// content is n bytes in which the texts of the protocols occur.
func devContent(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 3)
	}
	for i, text := range []string{"begin to send", "hello server", "c", "f", "continue", "over", "ok", "12|a.png"} {
		copy(b[min(n, i*1024):], text)
	}
	return string(b)
}

func devImage(name, body string) *transport.Image {
	return &transport.Image{Name: name, Body: transport.Bytes([]byte(body))}
}

var devSizes = []int{1, 2, 1023, 1024, 1025, 35_935, 2_000_000}

func devShort(s string) string { return s[:min(len(s), 40)] }
