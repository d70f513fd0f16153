package udpx_test

import (
	"context"
	"fmt"
	"log"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// A receiver of the protocol Header, and a sender as a 32-bit system has it.
func ExampleHeader() {
	ctx := context.Background()
	l, err := (&udpx.Header{Addr: "127.0.0.1:0"}).Listen(ctx)
	if err != nil {
		log.Fatal(err)
	}
	srv := &transport.Server{Handler: func(_ context.Context, in *transport.Incoming) error {
		fmt.Println("received", in.Size, "bytes of", in.Image.MediaType)
		return nil
	}}
	go srv.Serve(ctx, l)
	defer srv.Shutdown(ctx)

	c, err := (&udpx.Header{Addr: l.Addr().String(), Width: 4}).Dial(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	r, err := c.Send(ctx, &transport.Image{Body: transport.Bytes(photo[:35935])}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the receiver has", r.Level, r.Bytes, "bytes")
	// Output:
	// received 35935 bytes of image/bmp
	// the receiver has received 35935 bytes
}

// Images and messages go to one program on two ports.
func ExampleDatagram() {
	ctx := context.Background()
	images, err := (&udpx.Datagram{Addr: "127.0.0.1:0"}).Listen(ctx)
	if err != nil {
		log.Fatal(err)
	}
	messages, err := (&udpx.JSON{Addr: "127.0.0.1:0"}).Listen(ctx)
	if err != nil {
		log.Fatal(err)
	}
	srv := &transport.Server{
		Store: &transport.MemStore{},
		Message: func(_ context.Context, from transport.Conn, m transport.Message) error {
			fmt.Printf("%s says %s\n", from.Info().Protocol, m.Data)
			return nil
		},
	}
	go srv.Serve(ctx, images)
	go srv.Serve(ctx, messages)
	defer srv.Shutdown(ctx)

	camera, err := (&udpx.Datagram{Addr: images.Addr().String()}).Dial(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer camera.Close()
	r, err := camera.Send(ctx, &transport.Image{Body: transport.Bytes(photo[:35935])}, nil)
	fmt.Println(r.Level, err)

	notes, err := (&udpx.JSON{Addr: messages.Addr().String()}).Dial(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer notes.Close()
	err = notes.SendMessage(ctx, transport.Message{Data: []byte(`{"battery": 81}`)})
	fmt.Println(err)
	// Output:
	// received <nil>
	// udp+json says {"battery": 81}
	// <nil>
}
