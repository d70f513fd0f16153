package mqttx_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/pixferry/pixferry/mqttx"
	"github.com/pixferry/pixferry/transport"
)

// startBroker starts a broker for an example.
func startBroker() (url string, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	broker := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	broker.AddHook(new(auth.AllowHook), nil)
	broker.AddListener(listeners.NewNet("example", l))
	if err := broker.Serve(); err != nil {
		log.Fatal(err)
	}
	return "mqtt://" + l.Addr().String(), func() {
		broker.Listeners.ClientsWg.Wait()
		broker.Close()
	}
}

// A receiver with a name, and a sender that dials this name.
func ExampleTransport() {
	broker, stop := startBroker() // or yours: "mqtt://broker.example:1883"
	defer stop()
	ctx := context.Background()
	l, err := (&mqttx.Transport{Broker: broker, Name: "archive"}).Listen(ctx)
	if err != nil {
		log.Fatal(err)
	}
	srv := &transport.Server{Store: &transport.MemStore{}}
	go srv.Serve(ctx, l)
	defer srv.Shutdown(ctx)

	conn, err := (&mqttx.Transport{Broker: broker, Peer: "archive"}).Dial(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	img := &transport.Image{Name: "cam.gif", Body: transport.Bytes([]byte("GIF89a..."))}
	receipt, err := conn.Send(ctx, img, nil)
	fmt.Println(receipt.Level, receipt.Bytes, err)
	// Output: kept 9 <nil>
}

// A Hub on a client of your own dials any number of peers.
func ExampleAttach() {
	broker, stop := startBroker() // or yours: "mqtt://broker.example:1883"
	defer stop()
	ctx := context.Background()
	device, err := (&mqttx.Transport{Broker: broker, Name: "dev-17"}).Listen(ctx)
	if err != nil {
		log.Fatal(err)
	}
	srv := &transport.Server{Store: &transport.MemStore{}}
	go srv.Serve(ctx, device)
	defer srv.Shutdown(ctx)

	opts := mqtt.NewClientOptions().AddBroker(broker).SetClientID("service")
	hub, err := mqttx.Attach(opts, nil) // last, before NewClient
	if err != nil {
		log.Fatal(err)
	}
	client := mqtt.NewClient(opts)
	client.Connect()
	defer client.Disconnect(250)
	defer hub.Close()

	conn, err := hub.Peer("dev-17").Dial(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	img := &transport.Image{Name: "logo.gif", Body: transport.Bytes([]byte("GIF89a..."))}
	receipt, err := conn.Send(ctx, img, nil)
	fmt.Println(receipt.Level, receipt.Bytes, err)
	// Output: kept 9 <nil>
}

// The service sends, and this program stands in for the hardware.
func ExampleBase() {
	broker, stop := startBroker() // or yours: "mqtt://broker.example:1883"
	defer stop()
	ctx := context.Background()
	l, err := (&mqttx.Base{Broker: broker}).Listen(ctx)
	if err != nil {
		log.Fatal(err)
	}
	srv := &transport.Server{Handler: func(ctx context.Context, in *transport.Incoming) error {
		fmt.Println(in.Image.Name, in.Size)
		return nil
	}}
	go srv.Serve(ctx, l)
	defer srv.Shutdown(ctx)

	conn, err := (&mqttx.Base{Broker: broker}).Dial(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	img := &transport.Image{Name: "image.jpg", Body: transport.Bytes(make([]byte, 3000))} // three packages
	receipt, err := conn.Send(ctx, img, nil)
	fmt.Println(receipt.Level, err)
	// Output:
	// image.jpg 3000
	// received <nil>
}

// BASE asks for package 7, counted from 1, again.
func ExampleBaseAnswer() {
	a := mqttx.BaseAnswer{Function: mqttx.BaseData, Number: 7}
	fmt.Printf("% x\n", a.Append(nil))
	// Output: ff ff ee ee 02 07 00 00
}
