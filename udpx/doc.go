// Package udpx carries images over UDP, with the native protocol of SPEC.md.
//
//	t := &udpx.Transport{Addr: "camera.example:9999"}
//	conn, err := t.Dial(ctx)
//
//	t := &udpx.Transport{Addr: ":9999"}
//	l, err := t.Listen(ctx)
//
// It finds the path's MTU, paces what it sends, shares the path with others by
// congestion control, and survives loss, reordering, duplication and changed
// bytes. A peer that was restarted is noticed a round trip after the next message, which
// comes within a second where only a receipt is missing.
//
// # One socket, many peers
//
// A socket is read by one goroutine and written by another, however many sessions
// it carries; an idle session costs memory alone. Messages find their session by
// connection ID. On Linux datagrams move in batches, and the kernel cuts and joins
// them (GSO, GRO) where it can; the environment variable PIXFERRY_UDP_OFFLOAD=off
// keeps it from that.
//
// A listener on all addresses of its host (":9999") answers each peer from the one that it was asked at. Elsewhere
// than on Linux it answers from the one that the system prefers, and who has dialled another hears nothing: give
// Listen the address that peers dial there. This holds for the device protocols too.
//
// Set Transport.Conn to share a socket of your own between Listen and any number
// of Dials: both ends of a symmetric program, a socket that a NAT was punched for,
// or a simulated network. It works inside a testing/synctest bubble.
package udpx
