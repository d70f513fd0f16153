package udpsock

import (
	"errors"
	"log/slog"

	"golang.org/x/sys/windows"
)

const (
	ipDontFragment   = 14 // IP_DONTFRAGMENT
	ipv6DontFragment = 14 // IPV6_DONTFRAG
)

func setDontFragment(fd uintptr) bool {
	err4 := windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IP, ipDontFragment, 1)
	err6 := windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IPV6, ipv6DontFragment, 1)
	return err4 == nil || err6 == nil
}

func growBuffers(uintptr, *slog.Logger) {}

// tooLong reports whether a read was cut short of a datagram's end.
func tooLong(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }

// TooLarge reports whether a write was refused for the datagram's size.
func TooLarge(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }

// Refused reports whether an error says that nobody listens at the peer's port.
func Refused(err error) bool {
	return errors.Is(err, windows.WSAECONNRESET) || errors.Is(err, windows.WSAECONNREFUSED)
}
