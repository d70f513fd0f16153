// Package tcpx moves images over TCP and TLS.
//
// [Transport] carries the native protocol: many transfers at once over one connection, in both
// directions, confirmed by receipts, and resumed over a new connection when one is lost.
//
//	t := &tcpx.Transport{Addr: "receiver.example:9999"}
//	conn, err := t.Dial(ctx)
//
// [Begin], [Command] and [Frames] are protocols of devices in the field, both sides of each.
// Their documentation says what each can confirm.
package tcpx
