package tcpx

import (
	"encoding/binary"
	"syscall"
	"time"
	"unsafe"
)

const (
	tcpUserTimeout  = 0x12 // TCP_USER_TIMEOUT, in milliseconds
	tcpNotSentLowat = 0x19 // TCP_NOTSENT_LOWAT
	tcpQuickAck     = 0xc  // TCP_QUICKACK
	tcpClose        = 7    // TCP_CLOSE, a state

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

// unacknowledged returns how many bytes the peer's system has not acknowledged, with one for the end of the stream, and
// whether the connection has ended, so that it never will.
func unacknowledged(raw syscall.RawConn) (n int, ended bool) {
	raw.Control(func(fd uintptr) {
		queued, state := int32(0), [4]byte{}
		if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&queued))); e == 0 {
			n = int(queued)
		}
		if info, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO); err == nil {
			binary.NativeEndian.PutUint32(state[:], uint32(info))
		}
		ended = state[0] == tcpClose
	})
	return n, ended
}
