package tcpx_test

import (
	"context"
	"fmt"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// A microcontroller's picture, one for each connection, and nothing answers.
func ExampleBegin() {
	ctx := context.Background()
	l, _ := (&tcpx.Begin{Addr: "127.0.0.1:0", Name: "cam-{n}.bin"}).Listen(ctx)
	store, kept := &transport.MemStore{}, make(chan string)
	srv := &transport.Server{Store: store, Hooks: transport.Hooks{
		Finished: func(i transport.TransferInfo, r transport.Receipt, err error) {
			kept <- fmt.Sprint(i.Name, " ", r.Bytes)
		},
	}}
	go srv.Serve(ctx, l)
	defer srv.Shutdown(ctx)

	conn, _ := (&tcpx.Begin{Addr: l.Addr().String()}).Dial(ctx)
	defer conn.Close()
	receipt, err := conn.Send(ctx, &transport.Image{Body: transport.Bytes([]byte("a picture"))}, nil)
	fmt.Println(receipt.Level, err)
	fmt.Println(<-kept)
	// Output:
	// sent <nil>
	// cam-1.bin 9
}

// Commands and a picture over one connection.
func ExampleCommand() {
	ctx := context.Background()
	l, _ := (&tcpx.Command{Addr: "127.0.0.1:0", Commands: []string{"weeding", "stop"}}).Listen(ctx)
	seen := make(chan string, 2)
	srv := &transport.Server{
		Message: func(_ context.Context, _ transport.Conn, m transport.Message) error {
			seen <- string(m.Data)
			return nil
		},
		Handler: func(_ context.Context, in *transport.Incoming) error {
			seen <- fmt.Sprint(in.Size, " bytes")
			return nil
		},
	}
	go srv.Serve(ctx, l)
	defer srv.Shutdown(ctx)

	conn, _ := (&tcpx.Command{Addr: l.Addr().String(), Pause: -1}).Dial(ctx) // this server needs no pauses
	defer conn.Close()
	conn.SendMessage(ctx, transport.Message{Data: []byte("weeding")})
	conn.Send(ctx, &transport.Image{Body: transport.Bytes([]byte("a picture"))}, nil)
	fmt.Println(<-seen)
	fmt.Println(<-seen)
	// Output:
	// weeding
	// 9 bytes
}

// Many images of one camera over one connection, stored below the camera's DIR.
func ExampleFrames() {
	ctx := context.Background()
	l, _ := (&tcpx.Frames{Addr: "127.0.0.1:0", Formats: []string{"infrared", "visible"}}).Listen(ctx)
	srv := &transport.Server{Handler: func(_ context.Context, in *transport.Incoming) error {
		fmt.Println(in.Image.Source, tcpx.FramePath(in.Image))
		return nil
	}} // to keep them: Store: &transport.DirStore{Dir: "in", Path: tcpx.FramePath}
	go srv.Serve(ctx, l)
	defer srv.Shutdown(ctx)

	conn, _ := (&tcpx.Frames{Addr: l.Addr().String(), Format: "infrared", Dir: "got"}).Dial(ctx)
	defer conn.Close()
	for i := range 3 {
		img := &transport.Image{Name: fmt.Sprintf("%d.png", i), Body: transport.Bytes([]byte("a picture"))}
		if _, err := conn.Send(ctx, img, nil); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// infrared got/0.png
	// infrared got/1.png
	// infrared got/2.png
}
