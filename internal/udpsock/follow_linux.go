package udpsock

import (
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reconnect has a connected socket choose its address, and port, anew. What is written meanwhile fails.
func reconnect(fd uintptr, peer *net.UDPAddr) error {
	none := unix.RawSockaddr{Family: unix.AF_UNSPEC} // dissolves the association, connect(2)
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none)); e != 0 {
		return e
	}
	if ip := peer.IP.To4(); ip != nil {
		return unix.Connect(int(fd), &unix.SockaddrInet4{Port: peer.Port, Addr: [4]byte(ip)})
	}
	to := &unix.SockaddrInet6{Port: peer.Port, Addr: [16]byte(peer.IP)}
	if zone, err := net.InterfaceByName(peer.Zone); err == nil {
		to.ZoneId = uint32(zone.Index)
	}
	return unix.Connect(int(fd), to)
}
