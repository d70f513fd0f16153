package udpsock

import (
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reconnect has a connected socket choose its address, and port, anew. What is written meanwhile fails.
func reconnect(fd uintptr, peer *net.UDPAddr) (local netip.Addr, err error) {
	none := unix.RawSockaddr{Family: unix.AF_UNSPEC} // dissolves the association, connect(2)
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none)); e != 0 {
		return local, e
	}
	var to unix.Sockaddr
	if ip := peer.IP.To4(); ip != nil {
		to = &unix.SockaddrInet4{Port: peer.Port, Addr: [4]byte(ip)}
	} else {
		six := &unix.SockaddrInet6{Port: peer.Port, Addr: [16]byte(peer.IP)}
		if zone, err := net.InterfaceByName(peer.Zone); err == nil {
			six.ZoneId = uint32(zone.Index)
		}
		to = six
	}
	if err := unix.Connect(int(fd), to); err != nil {
		return local, err
	}
	switch a, err := unix.Getsockname(int(fd)); a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr), nil
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr).Unmap(), nil
	default:
		return local, err
	}
}
