package tcpx_test

import (
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pixferry/pixferry/tcpx"
)

// boardConn sends as lwIP does on boards: in segments of 536 bytes, and by Nagle's algorithm nothing less before all that was
// sent is acknowledged.
type boardConn struct {
	net.Conn
	raw syscall.RawConn
}

const boardSegment = 536 - 12 // with time stamps

func dialAsBoard(t *testing.T, addr string) boardConn {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 536) })
	}}
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return boardConn{conn, raw}
}

func (c boardConn) cork(on int) {
	c.raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, on) })
}

func (c boardConn) Write(p []byte) (int, error) {
	c.cork(1)
	n, err := c.Conn.Write(p)
	c.acknowledged(len(p) % boardSegment)
	c.cork(0)
	c.acknowledged(0)
	return n, err
}

// acknowledged waits until all but so many bytes are.
func (c boardConn) acknowledged(but int) {
	for left := but + 1; left > but; runtime.Gosched() {
		c.raw.Control(func(fd uintptr) {
			var err error
			if left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err != nil {
				left = 0
			}
		})
	}
}

// The kernel leaves an acknowledgement for 40 ms if nobody asks it, once a connection has begun: half of all, or more.
func TestBoardIsAcknowledgedAtOnce(t *testing.T) {
	r := devServe(t, &tcpx.Begin{Addr: "127.0.0.1:0"}, nil)
	conn := dialAsBoard(t, r.addr)
	if _, err := io.ReadFull(conn, make([]byte, len("Welcome from server!"))); err != nil {
		t.Fatal(err)
	}
	const piece, most = 1024, 300
	content, sent, quick := devContent(most*piece), 0, 0
	io.WriteString(conn, "begin to send")
	for quick < most*2/3 && sent < len(content) {
		began := time.Now()
		io.WriteString(conn, content[sent:][:piece])
		sent += piece
		if time.Since(began) < 35*time.Millisecond {
			quick++
		}
	}
	if quick < most*2/3 {
		t.Errorf("of %d pieces %d were acknowledged at once", most, quick)
	}
	conn.Close()
	if got := devNext(t, "the image", r.taken); got.body != content[:sent] {
		t.Errorf("%d of %d bytes", len(got.body), sent)
	}
}
