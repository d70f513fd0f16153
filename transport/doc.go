// Package transport is the vocabulary of pixferry: an [Image] goes through a
// [Conn], which a [Transport] dials or a [Listener] accepts, and a [Server] on
// the other side verifies it, shows it to a Handler, stores it and answers
// with a [Receipt].
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
// An image is [Sent] when its bytes have left, [Received] when the peer has
// answered, and [Kept] when the peer has verified it as a whole, its Handler
// has agreed and its Store has committed it, in this order. Every error of Send
// is an [*Error] that tells which of three things happened: the peer did not
// keep it, the peer refused it, or nobody here can know.
//
// # Implementing a protocol
//
// A Conn feeds what its peer sends to the [Inbox] that its Serve is given: Offer,
// WriteAt, Finish. Its Send is a call of [Sender.Send] with a function that makes
// one attempt. [Pipe], in pipe.go, is a small and complete one.
//
// # Keys
//
// Three keys, never one: the transfer [ID] names one delivery, the resume key
// (peer or Source, name and size) only finds what a receiver already holds, and
// the digest proves the content.
package transport
