package face_test

import (
	"context"
	"log"
	"time"

	"github.com/pixferry/pixferry/mqttx/face"
	"github.com/pixferry/pixferry/transport"
)

// A service that keeps the pictures, and opens the door for those who may enter.
func ExampleTransport() {
	t := &face.Transport{Broker: "mqtt://localhost:1883", Serials: []string{"SN1", "SN2"}}
	srv := &transport.Server{
		Store: &transport.DirStore{Dir: "pictures"},
		Handler: func(ctx context.Context, in *transport.Incoming) error {
			rec, ok := face.RecordOf(in)
			recent := time.Since(in.Image.Captured).Abs() < time.Minute // a broker may have kept it for long
			if ok && rec.Verified && recent {
				return in.Conn.SendMessage(ctx, transport.Message{Data: []byte(`{"cmd": "openDoorD"}`)})
			}
			return nil
		},
	}
	l, err := t.Listen(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(srv.Serve(context.Background(), l))
}
