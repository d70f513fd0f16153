package tcpx

import (
	"crypto/tls"
	"net"
	"syscall"
)

// setOptions prepares the socket below conn, if there is one: small messages leave at once,
// and little is queued in the kernel. It returns the socket, or nil.
func setOptions(conn net.Conn) syscall.RawConn {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if c, ok := conn.(interface{ SetNoDelay(bool) error }); ok {
		c.SetNoDelay(true)
	}
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			setSocket(raw)
			return raw
		}
	}
	return nil
}
