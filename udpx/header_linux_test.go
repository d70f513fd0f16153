package udpx_test

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pixferry/pixferry/udpx"
)

// A camera that does not pace itself loses nothing to a receiver here, if the system
// grants the buffer.
func TestHeaderFullSpeedFromFieldCamera(t *testing.T) {
	pc := loopback(t).(*net.UDPConn)
	got, addrs := serveDevices(t, &udpx.Header{Socket: func(context.Context) (net.PacketConn, error) { return pc, nil }})
	var size int
	raw, err := pc.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { size, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF) })
	if err != nil || size < 3*len(photo) { // a datagram of 1,024 bytes takes 2,304
		t.Skipf("the receive buffer has %d bytes, %v: raise net.core.rmem_max", size, err)
	}
	c := fieldCamera{PacketConn: loopback(t), to: addrs[0]}
	for range 5 {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if answer := c.send(photo[:2<<20]); answer != "get message!!!" {
			t.Errorf("2 MiB at full speed: %q", answer)
		}
		got.image(t, photo[:2<<20])
	}
}
