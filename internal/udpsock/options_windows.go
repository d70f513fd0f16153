package udpsock

import (
	"errors"
	"log/slog"
	"sync"
	"syscall"

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

func tune(uintptr, *slog.Logger) { fasterClock() }

// fasterClock has the clock that Go reads tick every millisecond until the program ends. It ticks every 15.6 unless
// somebody asks for more (golang/go#44343), and as coarse would be round trips and pacing: a local network is then
// used to less than half.
var fasterClock = sync.OnceFunc(func() {
	if begin := windows.NewLazySystemDLL("winmm.dll").NewProc("timeBeginPeriod"); begin.Find() == nil { // Nano Server has none
		_, _, _ = begin.Call(1)
	}
})

// tooLong reports whether a read was cut short of a datagram's end.
func tooLong(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }

// TooLarge reports whether a write was refused for the datagram's size.
func TooLarge(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }

// Refused reports whether an error says that nobody listens at the peer's port. ECONNREFUSED is no error of Windows, but
// of package syscall.
func Refused(err error) bool {
	return errors.Is(err, windows.WSAECONNRESET) || errors.Is(err, windows.WSAECONNREFUSED) || errors.Is(err, syscall.ECONNREFUSED)
}

// Unroutable reports whether a write has failed because there is no way to the peer from the
// socket's address.
func Unroutable(err error) bool {
	return errors.Is(err, windows.WSAENETUNREACH) || errors.Is(err, windows.WSAEHOSTUNREACH) ||
		errors.Is(err, windows.WSAEADDRNOTAVAIL) || errors.Is(err, windows.WSAENETDOWN)
}
