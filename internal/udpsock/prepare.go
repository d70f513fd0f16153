package udpsock

import (
	"log/slog"
	"net"
)

// prepare sets the options of a real socket.
func (c *Conn) prepare(u *net.UDPConn, log *slog.Logger) {
	raw, err := u.SyscallConn()
	if err != nil {
		log.Warn("udp: the socket's options cannot be set", "err", err)
		return
	}
	u.SetReadBuffer(socketBuffer)
	u.SetWriteBuffer(socketBuffer)
	raw.Control(func(fd uintptr) { c.dontFragment = setDontFragment(fd) })
	if !c.dontFragment {
		log.Info("udp: the system may fragment datagrams; larger ones than 1,200 bytes are not tried")
	}
	raw.Control(func(fd uintptr) { tune(fd, log) })
	c.batch = newBatcher(c, u, raw)
}
