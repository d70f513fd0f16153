package udpsock

import (
	"net"
	"net/netip"
	"testing"
)

// What the peer has asked at may be an address that this host has no more: the answer leaves from one that it has.
func TestAnswerFromAnAddressThatIsGone(t *testing.T) {
	for _, network := range []string{"udp4", "udp6"} {
		u, err := net.ListenUDP(network, nil)
		if err != nil {
			t.Skip(err)
		}
		defer u.Close()
		peer, err := net.ListenUDP(network, &net.UDPAddr{IP: map[string]net.IP{"udp4": net.IPv4(127, 0, 0, 1), "udp6": net.IPv6loopback}[network]})
		if err != nil {
			t.Skip(err)
		}
		defer peer.Close()
		c := New(u, quiet)
		offload := c.offloads()
		gone := control{local: netip.MustParseAddr(map[string]string{"udp4": "192.0.2.77", "udp6": "2001:db8::77"}[network])}
		to := &Addr{peer.LocalAddr().(*net.UDPAddr), gone.local, gone.source()}
		ps := []Packet{train(3, 1000, 10, to), {Data: []byte("one"), Addr: to}}
		if err := c.Write(ps); err != nil || ps[0].Err != nil || ps[1].Err != nil {
			t.Errorf("%s: %v, of a train %v, of a datagram %v", network, err, ps[0].Err, ps[1].Err)
		}
		if err := c.WriteOne([]byte("two"), to); err != nil {
			t.Errorf("%s: one: %v", network, err)
		}
		if got, _ := datagrams(t, New(peer, quiet), 6); string(got[5]) != "two" {
			t.Errorf("%s: the last is %q", network, got[5])
		}
		if c.offloads() != offload {
			t.Errorf("%s: offloading was given up", network)
		}
	}
}
