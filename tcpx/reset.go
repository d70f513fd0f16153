//go:build !windows

package tcpx

import (
	"errors"
	"syscall"
)

// wasReset reports whether the peer has reset the connection.
func wasReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }
