//go:build !linux && !windows

package udpsock

import (
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

func tune(uintptr, *slog.Logger) {}
