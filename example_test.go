package pixferry_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"expvar"
	"fmt"
	"image"
	"io"
	"iter"
	"log/slog"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"syscall"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"golang.org/x/sync/errgroup"

	"github.com/pixferry/pixferry/mqttx"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// The snippets of README.md: readme_test.go holds them to this file.

func sendFile(ctx context.Context, path string) error {
	t := &tcpx.Transport{Addr: "receiver.example:9999"}
	conn, err := t.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	receipt, err := conn.Send(ctx, &transport.Image{Body: transport.File(path)}, nil)
	if err != nil {
		return err
	}
	fmt.Println(receipt.Level, receipt.Bytes, receipt.Digest)
	return nil
}

func receive(ctx context.Context) error {
	t := &tcpx.Transport{Addr: ":9999"}
	listener, err := t.Listen(ctx)
	if err != nil {
		return err
	}
	srv := &transport.Server{Store: &transport.DirStore{Dir: "in"}}
	return srv.Serve(ctx, listener)
}

func receiveFromKnown(ctx context.Context, srv *transport.Server, mine tls.Certificate, senders *x509.CertPool) error {
	t := &tcpx.Transport{Addr: ":9999", TLS: &tls.Config{
		Certificates: []tls.Certificate{mine},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    senders,
	}}
	listener, err := t.Listen(ctx)
	if err != nil {
		return err
	}
	return srv.Serve(ctx, listener)
}

func receiveUntilSignal(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	t := &tcpx.Transport{Addr: ":9999"}
	listener, err := t.Listen(ctx)
	if err != nil {
		return err
	}
	store := &transport.DirStore{Dir: "in"}
	defer store.Close()
	srv := &transport.Server{Store: store}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.WithoutCancel(ctx), listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(ending) // images on their way may end, new ones are told to come back
}

func handler(ctx context.Context, in *transport.Incoming) error {
	body, err := in.Image.Body.Open(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	config, _, err := image.DecodeConfig(body)
	if err != nil {
		return transport.Reject("not a picture: %v", err) // for good; any other error may be retried
	}
	fmt.Println(in.Peer, in.Image.Name, config.Width, config.Height)
	return nil
}

func oneDirectoryEach() *transport.DirStore {
	return &transport.DirStore{
		Dir:  "in",
		Path: func(img *transport.Image) string { return path.Join(img.Source, img.Name) },
	}
}

func tellWhatIsStored(dir string) *transport.Server {
	return &transport.Server{
		Store: &transport.DirStore{Dir: dir},
		Hooks: transport.Hooks{Finished: func(info transport.TransferInfo, receipt transport.Receipt, err error) {
			switch {
			case err != nil:
				fmt.Println("not kept:", info.Source, info.Name, err)
			case info.Stored != "": // empty if it was kept before
				fmt.Println("kept:", filepath.Join(dir, info.Stored), receipt.Bytes)
			}
		}},
	}
}

func counted(log *slog.Logger) *transport.Server {
	counts := expvar.NewMap("pixferry")
	return &transport.Server{
		Store:  &transport.DirStore{Dir: "in"},
		Logger: log,
		Hooks: transport.Hooks{
			ConnOpened: func(transport.Info) { counts.Add("peers", 1) },
			ConnClosed: func(transport.Info, error) { counts.Add("peers", -1) },
			Finished: func(info transport.TransferInfo, receipt transport.Receipt, err error) {
				switch {
				case err != nil:
					counts.Add("not kept", 1)
				case !info.Duplicate: // one was kept before, and sent again
					counts.Add("kept", 1)
					counts.Add("bytes", receipt.Bytes)
				}
			},
		},
	}
}

func relay(to transport.Conn) *transport.Server {
	return &transport.Server{
		Streaming: true, // the Handler runs while the bytes arrive; a DirStore as Store takes more than memory holds
		Handler: func(ctx context.Context, in *transport.Incoming) error {
			_, err := to.Send(ctx, in.Image, &transport.SendOptions{ID: in.ID})
			return err
		},
	}
}

func sendSurely(ctx context.Context, conn transport.Conn, id transport.ID) (transport.Receipt, error) {
	img := &transport.Image{Body: transport.File("cam.jpg"), Source: "gate-7"}
	return conn.Send(ctx, img, &transport.SendOptions{
		ID:      id, // keep it beside the image: asking again never stores twice
		Require: transport.Kept,
		Retry:   &transport.RetryPolicy{MaxAttempts: 8},
	})
}

func whatNow(err error) string {
	var failure *transport.Error
	switch {
	case err == nil:
		return "done: the receipt says how far it came"
	case errors.As(err, &failure) && failure.Outcome == transport.Unknown:
		return "ask again under the same ID: " + failure.ID.String()
	case transport.Retryable(err), errors.Is(err, transport.ErrSourceChanged):
		return "try again later"
	default:
		return "give it up: " + err.Error()
	}
}

func sendMany(ctx context.Context, conn transport.Conn, images iter.Seq2[*transport.Image, error]) error {
	return transport.SendAll(ctx, conn, images, &transport.SendAllOptions{
		Concurrency: 8,
		CarryOn:     true,
		Each:        func(img *transport.Image, r transport.Receipt, err error) { fmt.Println(img.Body.Name(), r.Level, err) },
	})
}

func sendFiles(ctx context.Context, conn transport.Conn, paths []string) error {
	ids := make(map[*transport.Image]transport.ID)
	images := func(yield func(*transport.Image, error) bool) {
		for _, path := range paths {
			version := "gate-7 " + path
			if info, err := os.Stat(path); err == nil { // a file that was written anew is another image
				version += fmt.Sprint(info.Size(), info.ModTime().UnixNano())
			}
			img, sum := &transport.Image{Body: transport.File(path)}, sha256.Sum256([]byte(version))
			ids[img] = transport.ID(sum[:16])
			if !yield(img, nil) {
				return
			}
		}
	}
	return transport.SendAll(ctx, conn, images, &transport.SendAllOptions{
		CarryOn: true,
		Send: func(img *transport.Image) *transport.SendOptions {
			return &transport.SendOptions{ID: ids[img], Retry: &transport.RetryPolicy{}}
		},
	})
}

func dialUntilItAnswers(ctx context.Context, tr transport.Transport) (conn transport.Conn, err error) {
	err = transport.Retry(ctx, &transport.RetryPolicy{MaxAttempts: -1}, func(ctx context.Context) error {
		conn, err = tr.Dial(ctx)
		return err
	})
	return conn, err
}

func sendLive(ctx context.Context, conn transport.Conn, frame []byte, captured time.Time) error {
	img := &transport.Image{Source: "gate-7", Captured: captured, Body: transport.Bytes(frame)}
	_, err := conn.Send(ctx, img, &transport.SendOptions{Live: &transport.Live{MaxAge: time.Second}})
	if errors.Is(err, transport.ErrSuperseded) || errors.Is(err, transport.ErrTooOld) {
		return nil // a newer frame has taken its place, or the path is too slow for this one
	}
	return err
}

func service() *transport.Server {
	return &transport.Server{
		Store: &transport.DirStore{Dir: "in"},
		Message: func(ctx context.Context, camera transport.Conn, m transport.Message) error {
			return camera.SendMessage(ctx, transport.Message{Type: "command", Data: []byte("snap")})
		},
	}
}

func camera(ctx context.Context, conn transport.Conn) error {
	srv := &transport.Server{Message: func(ctx context.Context, service transport.Conn, m transport.Message) error {
		fmt.Printf("the service says %s\n", m.Data)
		return nil
	}}
	go srv.ServeConn(ctx, conn) // a Conn that was dialled serves too
	return conn.SendMessage(ctx, transport.Message{Data: []byte("here I am")})
}

func toManyDevices(ctx context.Context, img *transport.Image, names []string) error {
	opts := mqtt.NewClientOptions().AddBroker("tcp://broker.example:1883").SetClientID("service")
	hub, err := mqttx.Attach(opts, nil) // before NewClient; your own traffic stays yours
	if err != nil {
		return err
	}
	defer hub.Close()
	client := mqtt.NewClient(opts)
	client.Connect()
	defer client.Disconnect(250)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(64)
	for _, name := range names {
		group.Go(func() error {
			conn, err := hub.Peer(name).Dial(ctx)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Send(ctx, img, nil)
			return err
		})
	}
	return group.Wait()
}

func overSerial(open func(ctx context.Context) (io.ReadWriteCloser, error)) transport.Transport {
	link := func(ctx context.Context) (native.Link, error) {
		line, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return native.Stream(line), nil
	}
	return native.Over(link, native.OneAtATime(link), native.Config{})
}

// A receiver that keeps images as files of a directory, and a sender.
func Example() {
	dir, _ := os.MkdirTemp("", "pixferry")
	defer os.RemoveAll(dir)
	ctx := context.Background()

	listener, err := (&tcpx.Transport{Addr: "127.0.0.1:0"}).Listen(ctx)
	if err != nil {
		panic(err)
	}
	store := &transport.DirStore{Dir: dir}
	defer store.Close()
	srv := &transport.Server{Store: store}
	go srv.Serve(ctx, listener)

	conn, err := (&tcpx.Transport{Addr: listener.Addr().String()}).Dial(ctx)
	if err != nil {
		panic(err)
	}
	picture := image.NewGray(image.Rect(0, 0, 640, 480))
	receipt, err := conn.Send(ctx, &transport.Image{Name: "grey.png", Body: transport.Encode(picture, "image/png")}, nil)
	fmt.Println(receipt.Level, err)
	fmt.Println(conn.Close(), srv.Shutdown(ctx))
	_, err = os.Stat(filepath.Join(dir, "grey.png"))
	fmt.Println(err)
	// Output:
	// kept <nil>
	// <nil> <nil>
	// <nil>
}
