package tcpx_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// What a cut may cost: the window of native.Config, what is read ahead, and blocks that were not whole or not yet noted.
const window = 8<<20 + 512<<10 + 2<<20

func content(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// receiver is a Server on a loopback port that keeps images in memory.
type receiver struct {
	addr  string
	store *transport.MemStore
	stop  func()
}

// receive begins a receiver. Set changes its Server and Transport before.
func receive(t *testing.T, set func(*transport.Server, *tcpx.Transport)) *receiver {
	t.Helper()
	r := &receiver{store: &transport.MemStore{}}
	srv := &transport.Server{Store: r.store}
	tr := &tcpx.Transport{Addr: "127.0.0.1:0"}
	if set != nil {
		set(srv, tr)
	}
	l, err := tr.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	r.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		srv.Shutdown(ctx)
		<-served
	})
	t.Cleanup(r.stop)
	return r
}

// kept checks that the images under a name are these.
func (r *receiver) kept(t *testing.T, name string, want []byte) {
	t.Helper()
	img, ok := r.store.Get(name)
	if !ok {
		t.Fatalf("%s was not kept", name)
	}
	if got, err := img.Body.ReadAll(t.Context()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes and %v, want the %d bytes that were sent", name, len(got), err, len(want))
	}
}

func dial(t *testing.T, tr *tcpx.Transport) transport.Conn {
	t.Helper()
	conn, err := tr.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func image(name string, b []byte) *transport.Image {
	return &transport.Image{Name: name, Body: transport.Bytes(b)}
}

// cutter dials connections that can be cut.
type cutter struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (c *cutter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

// cut resets the newest connection, with what is on its way.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn := c.conns[len(c.conns)-1]
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

func (c *cutter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}

func TestCutConnectionResumes(t *testing.T) {
	r := receive(t, nil)
	var line cutter
	conn := dial(t, &tcpx.Transport{Addr: r.addr, DialContext: line.dial})
	b := content(64<<20 + 12345)
	next := int64(16 << 20)
	var last int64
	receipt, err := conn.Send(t.Context(), image("big.bin", b), &transport.SendOptions{Progress: func(acked, total int64) {
		if acked < last {
			t.Errorf("progress went back from %d to %d", last, acked)
		}
		last = acked
		if acked >= next {
			next += 16 << 20
			line.cut()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if n := line.count(); n < 3 {
		t.Fatalf("the connection was made %d times: it was not cut", n)
	}
	if lost := int64(line.count()-1) * window; receipt.Resent >= lost {
		t.Errorf("%d bytes were resent after %d cuts: want less than a window of %d for each", receipt.Resent, line.count()-1, window)
	}
	if last != int64(len(b)) {
		t.Errorf("progress ended at %d of %d", last, len(b))
	}
	r.kept(t, "big.bin", b)
}

func TestCutStreamIsConsumed(t *testing.T) {
	r := receive(t, nil)
	var line cutter
	conn := dial(t, &tcpx.Transport{Addr: r.addr, DialContext: line.dial})
	cut := sync.OnceFunc(line.cut)
	img := &transport.Image{Name: "stream.bin", Body: transport.Stream(io.LimitReader(rand.Reader, 64<<20))}
	_, err := conn.Send(t.Context(), img, &transport.SendOptions{Progress: func(acked, _ int64) {
		if acked > 8<<20 {
			cut()
		}
	}})
	var e *transport.Error
	if !errors.Is(err, transport.ErrBodyConsumed) || !errors.As(err, &e) || e.Outcome != transport.NotKept {
		t.Errorf("%v; want ErrBodyConsumed, not kept", err)
	}
	b := content(1000)
	if _, err := conn.Send(t.Context(), image("next.bin", b), nil); err != nil {
		t.Fatalf("the next image: %v", err)
	}
	r.kept(t, "next.bin", b)
}

// smallBuffers gives the connections of a listener far less than a message takes.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		shrink(c)
	}
	return c, err
}

func shrink(c net.Conn) {
	c.(*net.TCPConn).SetReadBuffer(16 << 10)
	c.(*net.TCPConn).SetWriteBuffer(16 << 10)
}

func TestBulkBothWaysThroughSmallBuffers(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&tcpx.Transport{Listener: smallBuffers{tcp}}).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near := dial(t, &tcpx.Transport{Addr: tcp.Addr().String(), DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			shrink(c)
		}
		return c, err
	}})
	far, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()

	b := content(3 << 20)
	var group, serving sync.WaitGroup
	for _, c := range []transport.Conn{near, far} {
		store := &transport.MemStore{}
		srv := &transport.Server{Store: store}
		serving.Go(func() { srv.ServeConn(context.Background(), c) })
		for i := range 4 {
			group.Go(func() {
				if _, err := c.Send(t.Context(), image(string(rune('a'+i)), b), nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	near.Close()
	serving.Wait()
}

func TestBlockedHandlerLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet()
		release := make(chan struct{})
		entered := make(chan struct{}, 100)
		r := receive(t, func(s *transport.Server, tr *tcpx.Transport) {
			tr.Listener, tr.Config.IdleTimeout = m, 300*time.Millisecond
			s.Handler = func(_ context.Context, in *transport.Incoming) error {
				if strings.HasPrefix(in.Image.Name, "slow") {
					entered <- struct{}{}
					<-release
				}
				return nil
			}
		})
		conn := dial(t, &tcpx.Transport{Addr: "mem:1", DialContext: m.Dial, Config: native.Config{IdleTimeout: 300 * time.Millisecond}})
		b := content(2 << 20)
		var slow sync.WaitGroup
		for i := range 4 {
			slow.Go(func() {
				if _, err := conn.Send(t.Context(), image("slow"+string(rune('a'+i)), b), nil); err != nil {
					t.Error(err)
				}
			})
		}
		for range 4 {
			<-entered
		}
		for range 20 { // others pass, for longer than the idle time
			if _, err := conn.Send(t.Context(), image("quick", b), nil); err != nil {
				t.Fatalf("beside a Handler that blocks: %v", err)
			}
			time.Sleep(30 * time.Millisecond)
		}
		close(release)
		slow.Wait()
		r.kept(t, "slowa", b)
	})
}

func TestThousandImages(t *testing.T) {
	r := receive(t, nil)
	conn := dial(t, &tcpx.Transport{Addr: r.addr})
	b := content(100_000 + 1000)
	var group sync.WaitGroup
	work := make(chan int)
	for range 8 {
		group.Go(func() {
			for i := range work {
				receipt, err := conn.Send(t.Context(), image(strconv.Itoa(i), b[i:i+100_000]), nil)
				if err != nil || receipt.Level != transport.Kept || receipt.Resent != 0 {
					t.Errorf("image %d: %+v, %v", i, receipt, err)
				}
			}
		})
	}
	for i := range 1000 {
		work <- i
	}
	close(work)
	group.Wait()
	for i := range 1000 {
		r.kept(t, strconv.Itoa(i), b[i:i+100_000])
	}
}

// doomed is a listener whose connections can all be cut.
type doomed struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *doomed) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, c)
	}
	return c, err
}

// die is what the end of a process does.
func (l *doomed) die() {
	l.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

func TestRestartedPeer(t *testing.T) {
	for _, c := range []struct {
		name     string
		survives bool // the store
	}{{"store survives", true}, {"store is lost", false}} {
		t.Run(c.name, func(t *testing.T) {
			tcp, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			line := &doomed{Listener: tcp}
			first := receive(t, func(_ *transport.Server, tr *tcpx.Transport) { tr.Listener = line })
			conn := dial(t, &tcpx.Transport{Addr: first.addr})
			b := content(48 << 20)
			half := make(chan struct{})
			reached := sync.OnceFunc(func() { close(half) })
			second := make(chan *receiver, 1)
			go func() {
				<-half
				line.die()
				first.stop()
				second <- receive(t, func(s *transport.Server, tr *tcpx.Transport) {
					tr.Addr = first.addr
					if c.survives {
						s.Store = first.store
					}
				})
			}()
			receipt, err := conn.Send(t.Context(), image("big.bin", b), &transport.SendOptions{Progress: func(acked, _ int64) {
				if acked >= 24<<20 {
					reached()
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			r := <-second
			if c.survives {
				r = first
				if receipt.Resent >= window {
					t.Errorf("%d bytes were resent, want less than a window of %d", receipt.Resent, window)
				}
			}
			r.kept(t, "big.bin", b)
		})
	}
}
