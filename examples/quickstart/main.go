// Quickstart sends a JPEG, a PNG and a BMP over MQTT, UDP and TCP, each into a
// directory of its own, compares what arrived byte for byte and prints a table.
//
//  1. a broker is embedded, so nothing needs to be installed
//  2. the three backends are used in the same way; one line differs
//  3. exit status 0 means that all images arrived identical
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"text/tabwriter"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/testimage"
	"github.com/pixferry/pixferry/mqttx"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

func main() {
	dir := flag.String("dir", "quickstart-out", "where the images arrive")
	own := flag.String("image", "", "send this `file` as well")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, *dir, *own)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// A backend is a receiver's transport and, once it listens, a sender's.
type backend struct {
	name   string
	server transport.Transport
	client func(net.Addr) transport.Transport
}

func run(ctx context.Context, out io.Writer, dir, own string) error {
	broker, stopBroker, err := startBroker()
	if err != nil {
		return err
	}
	defer func() { _ = stopBroker() }()

	files, err := makePictures(dir, own)
	if err != nil {
		return err
	}
	backends := []backend{
		{"mqtt", &mqttx.Transport{Broker: broker, Name: "quickstart"}, func(net.Addr) transport.Transport { return &mqttx.Transport{Broker: broker, Peer: "quickstart"} }},
		{"udp", &udpx.Transport{Addr: "127.0.0.1:0"}, func(a net.Addr) transport.Transport { return &udpx.Transport{Addr: a.String()} }},
		{"tcp", &tcpx.Transport{Addr: "127.0.0.1:0"}, func(a net.Addr) transport.Transport { return &tcpx.Transport{Addr: a.String()} }},
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "transport\tfile\tbytes\ttime\tMB/s\tresent\treceipt")
	var failed error
	for _, b := range backends {
		failed = errors.Join(failed, ferry(ctx, table, b, files, filepath.Join(dir, b.name)))
	}
	return errors.Join(table.Flush(), failed)
}

// ferry receives into dir over one backend while it sends the files.
func ferry(ctx context.Context, table io.Writer, b backend, files []string, dir string) error {
	store := &transport.DirStore{Dir: dir, Existing: transport.Replace}
	defer store.Close()
	srv := &transport.Server{Store: store}
	listener, err := b.server.Listen(ctx)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, listener) }()
	defer func() {
		srv.Shutdown(ctx)
		<-served
	}()

	conn, err := b.client(listener.Addr()).Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, file := range files {
		began := time.Now()
		receipt, err := conn.Send(ctx, &transport.Image{Body: transport.File(file)}, &transport.SendOptions{Require: transport.Kept})
		took := time.Since(began)
		if err == nil {
			err = compare(file, filepath.Join(dir, filepath.Base(file)), receipt)
		}
		verdict := fmt.Sprintf("%v, %v", receipt.Level, receipt.Digest)
		if err != nil {
			verdict = err.Error()
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%v\t%.1f\t%d\t%s\n", b.name, filepath.Base(file), receipt.Bytes,
			took.Round(10*time.Microsecond), float64(receipt.Bytes)/1e6/took.Seconds(), receipt.Resent, verdict)
		if err != nil {
			return fmt.Errorf("%s over %s: %w", file, b.name, err)
		}
	}
	return nil
}

// makePictures draws the three pictures and returns their files, and the
// user's own.
func makePictures(dir, own string) ([]string, error) {
	if err := os.MkdirAll(filepath.Join(dir, "sent"), 0o755); err != nil {
		return nil, err
	}
	var files []string
	for _, p := range []struct {
		name    string
		content []byte
	}{
		{"picture.jpg", testimage.JPEG(1, 1280, 960)},
		{"picture.png", testimage.PNG(2, 640, 480)},
		{"picture.bmp", testimage.BMP(3, 800, 600)},
	} {
		file := filepath.Join(dir, "sent", p.name)
		if err := os.WriteFile(file, p.content, 0o644); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	if own != "" {
		files = append(files, own)
	}
	return files, nil
}

// compare holds what arrived to what was sent: every byte, and the digest of the
// receipt.
func compare(sent, received string, receipt transport.Receipt) error {
	a, err := os.ReadFile(sent)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(received)
	if err != nil {
		return err
	}
	if !bytes.Equal(a, b) {
		return fmt.Errorf("%s differs from %s", received, sent)
	}
	hash := chunk.NewHasher(transport.XXH3)
	if _, err := hash.Write(a); err != nil {
		return err
	}
	if digest := hash.Root(); digest != receipt.Digest {
		return fmt.Errorf("the receipt's digest %v is not %v", receipt.Digest, digest)
	}
	return nil
}

// startBroker embeds an MQTT broker on a free loopback port.
func startBroker() (url string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	broker := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := errors.Join(broker.AddHook(new(auth.AllowHook), nil), broker.AddListener(listeners.NewNet("quickstart", l)), broker.Serve()); err != nil {
		return "", nil, err
	}
	return "mqtt://" + l.Addr().String(), broker.Close, nil
}
