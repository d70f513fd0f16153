package tcpx

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"
)

// setOptions prepares the socket below conn, if there is one: small messages
// leave at once, little is queued in the kernel, and bytes that nobody
// acknowledges for userTimeout end the connection, unless that is 0. It returns the socket, or nil.
func setOptions(conn net.Conn, userTimeout time.Duration) syscall.RawConn {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if c, ok := conn.(interface{ SetNoDelay(bool) error }); ok {
		c.SetNoDelay(true)
	}
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			setSocket(raw, userTimeout)
			return raw
		}
	}
	return nil
}
