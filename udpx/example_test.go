package udpx_test

import (
	"context"
	"fmt"
	"log"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// A receiver, which keeps images in memory here, and a sender.
func ExampleTransport() {
	ctx := context.Background()
	l, err := (&udpx.Transport{Addr: "127.0.0.1:0"}).Listen(ctx)
	if err != nil {
		log.Fatal(err)
	}
	srv := &transport.Server{Store: &transport.MemStore{}}
	go srv.Serve(ctx, l)
	defer srv.Shutdown(ctx)

	conn, err := (&udpx.Transport{Addr: l.Addr().String()}).Dial(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	img := &transport.Image{Name: "cam.gif", Body: transport.Bytes([]byte("GIF89a..."))}
	receipt, err := conn.Send(ctx, img, nil)
	fmt.Println(receipt.Level, receipt.Bytes, err)
	// Output: kept 9 <nil>
}
