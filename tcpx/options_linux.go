package tcpx

import (
	"encoding/binary"
	"syscall"
	"unsafe"
)

const (
	tcpNotSentLowat = 0x19 // TCP_NOTSENT_LOWAT
	tcpQuickAck     = 0xc  // TCP_QUICKACK
	tcpClose        = 7    // TCP_CLOSE, a state

	// notSent is how many bytes the kernel may hold beyond what the congestion
	// window lets it send. Without it a cancel or an urgent message queues
	// behind megabytes.
	notSent = 2 * maxMessage
)

// setSocket sets the option that package net does not know. It only improves matters, so
// a kernel without it is no error. TCP_USER_TIMEOUT is none of them: it counts from the first
// time that a peer has no room on, and ends connections to those that go on taking some.
func setSocket(raw syscall.RawConn) {
	raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, notSent) })
}

// ackNow acknowledges what was read, which the kernel else leaves for up to 40 ms to be done with more.
func ackNow(raw syscall.RawConn) {
	raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpQuickAck, 1) })
}

// unacknowledged returns how many bytes the peer's system has not acknowledged, and
// whether the connection has ended, so that it never will.
func unacknowledged(raw syscall.RawConn) (n int, ended bool) {
	raw.Control(func(fd uintptr) {
		queued, state := int32(0), [4]byte{}
		if info, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO); err == nil {
			binary.NativeEndian.PutUint32(state[:], uint32(info))
		}
		ended = state[0] == tcpClose // seen first: a connection ends in good order behind its last acknowledgement
		if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&queued))); e == 0 {
			n = int(queued)
		}
	})
	return n, ended
}
