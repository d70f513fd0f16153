// Package udpx carries images over UDP, with the native protocol of SPEC.md.
//
//	t := &udpx.Transport{Addr: "camera.example:9999"}
//	conn, err := t.Dial(ctx)
//
//	t := &udpx.Transport{Addr: ":9999"}
//	l, err := t.Listen(ctx)
//
// [Transport] finds the path's MTU, paces what it sends, shares the path with others by
// congestion control, and survives loss, reordering, duplication and changed bytes. The MTU must be
// at least 1,228 bytes over IPv4 and 1,248 over IPv6: over less nothing is heard of the peer.
// A session that was dialled follows its host to another network: on Linux as it is, on other
// systems its Conn dials anew. It notices that a peer was restarted a round trip after its next
// message; while only a receipt is missing that comes within a second.
//
// [Datagram], [Header] and [JSON] are protocols of devices in the field, both sides of each.
//
// Nothing here is encrypted, and anyone may send. Who does not see the traffic of a session of
// Transport can neither take part in it nor end it; against those who do, use a tunnel such as
// WireGuard, or package tcpx with TLS.
//
// # One socket, many peers
//
// One goroutine reads a socket and another writes to it, however many sessions it carries; an
// idle session costs only memory. Messages find their session by connection ID; a load balancer in
// front of several receivers has to go by the peer's address (nginx: hash $remote_addr). On Linux
// datagrams move in batches, which the kernel cuts and joins (GSO, GRO) where it can; the
// environment variable PIXFERRY_UDP_OFFLOAD=off turns that off.
//
// On Windows the first socket has the system's clock tick every millisecond until the program
// ends: pacing and round trips would be as coarse as its usual 15.6.
//
// On Linux a listener on all addresses of its host (":9999") answers each peer from the address
// that the peer has used. On other systems it answers from the address that the system prefers,
// and a peer that has dialled another one hears nothing: give Listen the address that peers dial.
// This holds for the device protocols too.
//
// Set Transport.Conn to share a socket of your own between Listen and any number of Dials: for a
// symmetric program, a socket for which a NAT was punched, or a simulated network. It works
// inside a testing/synctest bubble.
package udpx
