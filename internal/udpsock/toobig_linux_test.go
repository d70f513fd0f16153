package udpsock

import (
	"encoding/binary"
	"log/slog"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// A connected socket tells of a router's "packet too big" to whoever calls it next. What that sends is not what was too
// big: it leaves, as a train if it is one, and neither is taken for a limit.
func TestTooBigOfAnEarlierDatagram(t *testing.T) {
	routers, err := net.ListenPacket("ip4:icmp", "127.77.0.1") // addresses that nobody else uses, as the kernel remembers
	if err != nil {
		t.Skip("needs a raw socket:", err)
	}
	defer routers.Close()
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 77, 0, 2)})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	u, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 77, 0, 1)}, peer.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	c := New(u, slog.New(slog.DiscardHandler))
	if !c.offloads() {
		t.Skip("no offload here")
	}
	local, remote := u.LocalAddr().(*net.UDPAddr), peer.LocalAddr().(*net.UDPAddr)
	tooBig := func() {
		t.Helper()
		m := make([]byte, 8+20+8) // ICMP, and the datagram's IP and UDP headers
		m[0], m[1] = 3, 4
		binary.BigEndian.PutUint16(m[6:], 60_000)
		ip, udp := m[8:28], m[28:]
		ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(ip[2:], 65_000)
		copy(ip[12:], local.IP.To4())
		copy(ip[16:], remote.IP.To4())
		binary.BigEndian.PutUint16(udp, uint16(local.Port))
		binary.BigEndian.PutUint16(udp[2:], uint16(remote.Port))
		var sum uint32
		for i := 0; i < len(m); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(m[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		binary.BigEndian.PutUint16(m[2:], ^uint16(sum))
		if _, err := routers.WriteTo(m, &net.IPAddr{IP: local.IP}); err != nil {
			t.Fatal(err)
		}
		raw, err := u.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { // until the kernel has the error for the socket
			events := []unix.PollFd{{Fd: int32(fd)}}
			if n, err := unix.Poll(events, 10_000); n != 1 {
				t.Errorf("the socket has no error: %v", err)
			}
		})
	}
	for _, p := range []Packet{
		{Data: make([]byte, 60), Segment: 60},
		{Data: make([]byte, 12_000), Segment: 1200},
	} {
		tooBig()
		ps := []Packet{p}
		if err := c.Write(ps); err != nil || ps[0].Err != nil {
			t.Errorf("%d bytes in datagrams of %d: %v, %v", len(p.Data), p.Segment, err, ps[0].Err)
		}
		if !c.offloads() {
			t.Error("offloading was given up")
		}
	}
}
