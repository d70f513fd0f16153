//go:build !linux

package tcpx

import (
	"syscall"
	"time"
)

func setSocket(syscall.RawConn, time.Duration) {}

func ackNow(syscall.RawConn) {}

// unacknowledged is not known here.
func unacknowledged(syscall.RawConn) (int, bool) { return 0, false }
