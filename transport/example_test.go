package transport_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/pixferry/pixferry/transport"
)

// A Handler sees each image before it is kept and may refuse it. Pipe stands in
// for a network, as it does in tests.
func ExampleServer() {
	srv := &transport.Server{
		Store: &transport.MemStore{},
		Handler: func(ctx context.Context, in *transport.Incoming) error {
			content, err := in.Image.Body.ReadAll(ctx)
			if err != nil {
				return err
			}
			if !strings.HasPrefix(string(content), "GIF8") {
				return transport.Reject("%s is not a GIF", in.Image.Name)
			}
			return nil
		},
	}
	near, far := transport.Pipe()
	go srv.ServeConn(context.Background(), far)

	for _, content := range []string{"GIF89a...", "hello"} {
		img := &transport.Image{Name: "cam.gif", Body: transport.Bytes([]byte(content))}
		receipt, err := near.Send(context.Background(), img, nil)
		if err != nil {
			fmt.Println(err.(*transport.Error).Err, "- retry:", transport.Retryable(err))
			continue
		}
		fmt.Println(receipt.Level, receipt.Bytes)
	}
	if err := srv.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// kept 9
	// refused by the handler: cam.gif is not a GIF - retry: false
}
