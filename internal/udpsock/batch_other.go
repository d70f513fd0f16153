//go:build !linux

package udpsock

import (
	"net"
	"syscall"
)

func newBatcher(*Conn, *net.UDPConn, syscall.RawConn) batcher { return nil }
