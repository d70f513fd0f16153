package udpsock

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
)

// Follow has a connected socket leave from the address that the system would choose now, and
// reports whether that is another one than before: the system chooses once, and what leaves from
// an address that this host has lost, or from one of another network, does not arrive. An error says
// that it is another one and that the socket cannot change. One goroutine at a time may call it,
// beside those that read and write.
func (c *Conn) Follow() (moved bool, err error) {
	u, ok := c.PacketConn.(*net.UDPConn)
	if !ok || !c.connected {
		return false, nil
	}
	peer := u.RemoteAddr().(*net.UDPAddr)
	fresh, err := net.DialUDP("udp", nil, peer) // sends nothing
	if err != nil {
		return false, nil // there is no way to the peer at present
	}
	defer fresh.Close()
	chosen := addrOf(fresh.LocalAddr())
	if chosen == c.local {
		return false, nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false, nil // it is closed
	}
	local := c.local
	failed := raw.Control(func(fd uintptr) { local, err = reconnect(fd, peer) })
	if err = cmp.Or(failed, err); err != nil {
		return false, fmt.Errorf("this host's address to %v was %v and is %v: %w", peer, c.local, chosen, err)
	}
	if local == c.local { // of several routes the system may choose another one each time
		return false, nil
	}
	c.log.Info("udp: this host's address has changed", "peer", peer, "was", c.local, "is", local)
	c.local = local
	return true, nil
}

// addrOf returns the IP address of a socket.
func addrOf(a net.Addr) netip.Addr { return a.(*net.UDPAddr).AddrPort().Addr().Unmap() }
