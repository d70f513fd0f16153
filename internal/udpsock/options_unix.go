//go:build unix && !linux

package udpsock

import (
	"errors"
	"log/slog"
	"runtime"
	"syscall"
)

// Options of macOS, with which alone of these systems probing is tried.
const (
	darwinIPDontFragment   = 28 // IP_DONTFRAG
	darwinIPv6DontFragment = 62 // IPV6_DONTFRAG
)

func setDontFragment(fd uintptr) bool {
	if runtime.GOOS != "darwin" {
		return false
	}
	err4 := syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, darwinIPDontFragment, 1)
	err6 := syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, darwinIPv6DontFragment, 1)
	return err4 == nil || err6 == nil
}

func growBuffers(uintptr, *slog.Logger) {}

func tooLong(error) bool { return false }

// TooLarge reports whether a write was refused for the datagram's size.
func TooLarge(err error) bool { return errors.Is(err, syscall.EMSGSIZE) }

// Refused reports whether an error says that nobody listens at the peer's port.
func Refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
