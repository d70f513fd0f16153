//go:build !linux

package tcpx

import (
	"syscall"
	"time"
)

func setSocket(syscall.RawConn, time.Duration) {}

func ackNow(syscall.RawConn) {}
