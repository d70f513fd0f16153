package tcpx

import (
	"errors"
	"syscall"
)

// wasReset reports whether the peer has reset the connection. ECONNRESET is no error of Windows, but of package
// syscall: what replaces the system's connections may have it.
func wasReset(err error) bool {
	return errors.Is(err, syscall.WSAECONNRESET) || errors.Is(err, syscall.ECONNRESET)
}
