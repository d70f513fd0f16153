// Package transport is pixferry's API: a [Transport] dials a [Conn], or listens with a [Listener],
// and a Conn sends an [Image]. On the other side a [Server] verifies the image, shows it to a
// Handler, keeps it in a [Store] and answers with a [Receipt].
//
// # Sending
//
//	conn, err := t.Dial(ctx) // t is a *tcpx.Transport, *udpx.Transport, ...
//	if err != nil { ... }
//	defer conn.Close()
//	receipt, err := conn.Send(ctx, &transport.Image{Body: transport.File("cam.jpg")}, nil)
//
// # Receiving
//
//	srv := &transport.Server{Store: &transport.DirStore{Dir: "in"}}
//	l, err := t.Listen(ctx)
//	if err != nil { ... }
//	err = srv.Serve(ctx, l)
//
// # What a receipt means
//
// An image is [Sent] when its bytes have left, [Received] when the peer has answered that it has
// them, and [Kept] when the peer has verified the whole image, its Handler has accepted it and
// its Store has committed it, in this order. Every error of Send is an [*Error], whose [Outcome]
// says which of three things happened: the peer did not keep the image, the image was refused, or
// this side cannot know.
//
// # Three keys
//
// The transfer [ID] names one delivery: receipts and duplicates go by it alone. The resume key
// (peer or Source, name and size) only finds what a receiver already holds. The digest proves the
// content.
//
// # Implementing a protocol
//
// A Conn passes what its peer sends to the [Inbox] that its Serve is given, by [Inbox.Offer],
// [Arrival.WriteAt] and [Arrival.Finish]. Its Send calls [Sender.Send] with a function that makes
// one attempt. [Pipe], in pipe.go, is a small and complete example.
package transport
