//go:build !linux

package udpsock

import (
	"errors"
	"net"
)

func reconnect(uintptr, *net.UDPAddr) error { return errors.ErrUnsupported }
