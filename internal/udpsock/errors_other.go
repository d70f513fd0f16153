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

// Unroutable reports whether a write has failed because there is no way to the peer from the
// socket's address. Which error says so depends on the system.
func Unroutable(err error) bool {
	return noSource(err) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETDOWN)
}
