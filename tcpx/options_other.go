//go:build !linux

package tcpx

import "syscall"

func setSocket(syscall.RawConn) {}

func ackNow(syscall.RawConn) {}

// unacknowledged is not known here.
func unacknowledged(syscall.RawConn) (int, bool) { return 0, false }
