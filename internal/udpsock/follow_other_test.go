//go:build !linux

package udpsock

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

// A Conn that cannot follow is one to be dialled again, which errors.ErrUnsupported would forbid.
func TestFollowThatCannotBe(t *testing.T) {
	u, err := net.DialUDP("udp", nil, listen(t).LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	c := New(u, quiet)
	if moved, err := c.Follow(); moved || err != nil {
		t.Errorf("with the address that it has: %v, %v", moved, err)
	}
	c.local = netip.MustParseAddr("192.0.2.77")
	if moved, err := c.Follow(); moved || err == nil || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("with another one: %v, %v", moved, err)
	}
}
