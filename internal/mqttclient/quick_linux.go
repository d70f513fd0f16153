package mqttclient

import (
	"net"
	"syscall"
)

// quick has the kernel acknowledge what a TCP connection receives at once. A broker
// with Nagle's algorithm, such as mosquitto by default, else keeps the second of two
// small messages back for the 40 ms by which Linux delays its acknowledgement of the
// first.
func quick(conn net.Conn) net.Conn {
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			return &quickConn{conn, raw}
		}
	}
	return conn
}

type quickConn struct {
	net.Conn
	raw syscall.RawConn
}

// Read sets the option each time, since the kernel takes it back at will. It only
// improves matters, so its failure is no error.
func (c *quickConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil {
		c.raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) })
	}
	return n, err
}
