//go:build !linux

package udpsock

import (
	"errors"
	"net"
	"net/netip"
)

// Not errors.ErrUnsupported: another socket can do it, so that it is no reason to give up.
var errBound = errors.New("a socket keeps its address on this system")

func reconnect(uintptr, *net.UDPAddr) (netip.Addr, error) { return netip.Addr{}, errBound }
