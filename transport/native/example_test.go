package native_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// Over any stream of bytes. A pipe stands in for a serial line; on a real one both functions
// open the device.
func ExampleOver() {
	ctx := context.Background()
	near, far := net.Pipe()
	openNear := func(context.Context) (native.Link, error) { return native.Stream(near), nil }
	openFar := func(context.Context) (native.Link, error) { return native.Stream(far), nil }

	l, err := native.Over(nil, native.OneAtATime(openFar), native.Config{}).Listen(ctx)
	if err != nil {
		log.Fatal(err)
	}
	srv := &transport.Server{Store: &transport.MemStore{}}
	go srv.Serve(ctx, l)
	defer srv.Shutdown(ctx)

	conn, err := native.Over(openNear, nil, native.Config{}).Dial(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	img := &transport.Image{Name: "cam.jpg", Body: transport.Bytes([]byte("\xff\xd8\xff..."))}
	receipt, err := conn.Send(ctx, img, nil)
	fmt.Println(receipt.Level, receipt.Bytes, err)
	// Output: kept 6 <nil>
}
