package tcpx

import (
	"syscall"
	"time"
)

const (
	tcpUserTimeout  = 0x12 // TCP_USER_TIMEOUT, in milliseconds
	tcpNotSentLowat = 0x19 // TCP_NOTSENT_LOWAT
	tcpQuickAck     = 0xc  // TCP_QUICKACK

	// notSent is how many bytes the kernel may hold beyond what the congestion
	// window lets it send. Without it a cancel or an urgent message queues
	// behind megabytes.
	notSent = 2 * maxMessage
)

// setSocket sets the options that package net does not know. They only improve
// matters, so a kernel without them is no error.
func setSocket(raw syscall.RawConn, userTimeout time.Duration) {
	raw.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, notSent)
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(min(userTimeout.Milliseconds(), 1<<31-1)))
	})
}

// ackNow acknowledges what was read, which the kernel else leaves for up to 40 ms to be done with more.
func ackNow(raw syscall.RawConn) {
	raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpQuickAck, 1) })
}
