package tcpx_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testnet"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// A text that is lost arrives with the next one, unless the pause waits for it. The server takes one receive for one text.
func TestTextIsLostOnItsWay(t *testing.T) {
	t.Parallel()
	if !testnet.Inside(t) {
		return
	}
	lo := func(state string) {
		if out, err := exec.Command("ip", "link", "set", "lo", state).CombinedOutput(); err != nil {
			t.Fatalf("%v, %s", err, out)
		}
	}
	lo("up")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := devDial(t, &tcpx.Command{Addr: l.Addr().String(), Pause: 500 * time.Millisecond})
	sent := make(chan error, 1)
	go func() { sent <- c.SendMessage(t.Context(), transport.Message{Data: []byte("open")}) }()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "hello client")
	b := make([]byte, 1024)
	for i, want := range []string{"hello server", "c", "open"} {
		if n, err := conn.Read(b); string(b[:n]) != want {
			t.Fatalf("%q came, %v; want %q", b[:n], err, want)
		}
		if i == 0 {
			lo("down")
			select {
			case err := <-sent:
				t.Logf("the command has left before the text that announces it came: %v", err)
				sent <- err
			case <-time.After(1500 * time.Millisecond):
			}
			lo("up")
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// panel is a server with little room that reads when it is told to.
func panel(t *testing.T, serve func(c *net.TCPConn)) (addr string) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1) })
	}}
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		if c, err := l.Accept(); err == nil {
			serve(c.(*net.TCPConn))
			c.Close()
		}
	}()
	return l.Addr().String()
}

// An image that the kernel has has not left: the panel may read it slowly, and never to its end.
func TestImageHasLeftWhenItHasArrived(t *testing.T) {
	for _, dies := range []bool{false, true} {
		read := make(chan bool)
		addr := panel(t, func(c *net.TCPConn) {
			io.WriteString(c, "Welcome from server!")
			io.ReadFull(c, make([]byte, len("begin to send")))
			if <-read; dies {
				c.SetLinger(0)
				return
			}
			io.Copy(io.Discard, c)
		})
		c := devDial(t, &tcpx.Begin{Addr: addr, Pause: -1})
		sent := make(chan error, 1)
		go func() {
			_, err := c.Send(t.Context(), devImage("", devContent(16<<10)), nil)
			sent <- err
		}()
		select {
		case err := <-sent:
			t.Errorf("sent before anybody has read: %v", err)
			sent <- err
		case <-time.After(300 * time.Millisecond):
		}
		close(read)
		err := <-sent
		if e := (*transport.Error)(nil); dies && (!errors.As(err, &e) || e.Outcome != transport.Unknown) || !dies && err != nil {
			t.Errorf("it dies: %v; %v", dies, err)
		}
	}
}

// A cancel comes in time although the kernel has it all.
func TestCancelOfWhatHasNotArrived(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	returned, ended := make(chan bool), make(chan error, 1)
	addr := panel(t, func(c *net.TCPConn) {
		io.WriteString(c, "Welcome from server!")
		io.ReadFull(c, make([]byte, len("begin to send")))
		time.AfterFunc(300*time.Millisecond, cancel)
		<-returned
		for {
			if _, err := c.Read(make([]byte, 256)); err != nil {
				ended <- err
				return
			}
		}
	})
	c := devDial(t, &tcpx.Begin{Addr: addr, Pause: -1})
	if _, err := c.Send(ctx, devImage("", devContent(16<<10)), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Send: %v", err)
	}
	close(returned)
	if err := <-ended; errors.Is(err, io.EOF) {
		t.Error("the server takes a part for the whole")
	}
}

// A server that reads slowly answers late, and not because it is silent.
func TestAnswerToAnImageThatArrivesSlowly(t *testing.T) {
	t.Parallel()
	const size = 24 << 10
	addr := panel(t, func(c *net.TCPConn) {
		b := make([]byte, 1024)
		for _, text := range []string{"visible|images", "24576|a.jpg"} {
			io.ReadFull(c, b[:len(text)])
			io.WriteString(c, "ok")
		}
		for range size / 512 {
			time.Sleep(150 * time.Millisecond) // to show its display
			io.ReadFull(c, b[:512])
		}
		io.WriteString(c, "ok")
		io.Copy(io.Discard, c)
	})
	c := devDial(t, &tcpx.Frames{Addr: addr, Timeout: 4 * time.Second})
	if _, err := c.Send(t.Context(), devImage("a.jpg", devContent(size)), nil); err != nil {
		t.Error(err)
	}
}

// Between two peers may be one that has little room, and passes it on slowly: a modem, or a tunnel. The connection is none that
// is dead.
func TestSlowRelay(t *testing.T) {
	t.Parallel()
	r := devServe(t, &tcpx.Transport{Addr: "127.0.0.1:0"}, nil)
	addr := panel(t, func(near *net.TCPConn) {
		far, err := net.Dial("tcp", r.addr)
		if err != nil {
			return
		}
		defer far.Close()
		go io.Copy(near, far)
		for b := make([]byte, 512); ; time.Sleep(150 * time.Millisecond) {
			n, err := near.Read(b)
			if err != nil {
				return
			}
			far.Write(b[:n])
		}
	})
	c := devDial(t, &tcpx.Transport{Addr: addr, Config: native.Config{IdleTimeout: 4 * time.Second}})
	var all sync.WaitGroup
	for range 12 { // answers come more often than the IdleTimeout
		all.Go(func() { // the relay takes one connection
			if _, err := c.Send(t.Context(), devImage("a.jpg", devContent(1<<10)), nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// elsewhere says of its bytes what holds for those of another connection.
type elsewhere struct {
	net.Conn
	other syscall.Conn
}

func (c elsewhere) SyscallConn() (syscall.RawConn, error) { return c.other.SyscallConn() }

// A connection that has taken no text for Timeout is given up, also by calls that each end before.
func TestConnectionThatTakesNoText(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	for err == nil { // nobody reads
		_, err = other.Write(make([]byte, 1<<20))
	}
	dials := 0
	m := newMemNet()
	devServe(t, &tcpx.Command{Listener: m}, nil)
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		conn, err := m.Dial(ctx, network, addr)
		return elsewhere{conn, other.(syscall.Conn)}, err
	}
	c := devDial(t, &tcpx.Command{Pause: 10 * time.Millisecond, Timeout: 300 * time.Millisecond, DialContext: dial})
	for calls := 0; dials < 2; calls++ {
		if calls == 50 {
			t.Fatal("the connection is kept")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := c.SendMessage(ctx, transport.Message{Data: []byte("open")}); err == nil {
			t.Error("sent")
		}
		cancel()
	}
}
