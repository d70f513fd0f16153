//go:build !windows

package udpsock

import (
	"errors"
	"syscall"
)

// tooLong reports whether a read was cut short of a datagram's end.
func tooLong(error) bool { return false }

// TooLarge reports whether a write was refused for the datagram's size.
func TooLarge(err error) bool { return errors.Is(err, syscall.EMSGSIZE) }

// Refused reports whether an error says that nobody listens at the peer's port.
func Refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
