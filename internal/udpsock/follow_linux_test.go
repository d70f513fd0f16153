package udpsock

import (
	"net"
	"os/exec"
	"syscall"
	"testing"

	"github.com/pixferry/pixferry/internal/testnet"
)

// Where the system spreads sockets over several ways to the peer, Follow knows which of them its socket has taken.
func TestFollowOverSeveralRoutes(t *testing.T) {
	if !testnet.Inside(t) {
		return
	}
	setup := exec.Command("sh", "-ec", `
		for i in 1 2; do
			ip link add d$i type veth peer name e$i
			ip address add 10.77.$i.1/24 dev d$i
			ip link set d$i up
			ip link set e$i up
		done
		ip route add 10.78.0.0/16 nexthop via 10.77.1.2 dev d1 nexthop via 10.77.2.2 dev d2
		echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy`) // by ports too
	if out, err := setup.CombinedOutput(); err != nil {
		t.Skipf("no routes can be made: %v, %s", err, out)
	}
	u, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(10, 78, 0, 1), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	c := New(u, quiet)
	raw, err := u.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	moves := 0
	for range 100 {
		before := c.local
		moved, err := c.Follow()
		if err != nil || moved != (c.local != before) {
			t.Fatalf("from %v to %v: %v, %v", before, c.local, moved, err)
		}
		if moved {
			moves++
		}
		raw.Control(func(fd uintptr) {
			if a, err := syscall.Getsockname(int(fd)); err != nil || net.IP(a.(*syscall.SockaddrInet4).Addr[:]).String() != c.local.String() {
				t.Fatalf("the socket has %v, and is taken to have %v; %v", a, c.local, err)
			}
		})
	}
	if moves == 0 {
		t.Skip("one route only")
	}
}
