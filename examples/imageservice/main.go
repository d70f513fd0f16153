// Imageservice fetches images from the web and sends them to image hardware ("BASE") over
// MQTT: GET /image?url=URL. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pixferry/pixferry/mqttx"
)

// patience is how long requests may take that run when the service is told to end.
const patience = 30 * time.Second

// readTime is how long a request may take to come, with its body. It is below patience, so
// that one that never comes does not hold up the end. Nothing bounds an answer: it comes
// when BASE has the image, which may take as many attempts as -attempts says.
const readTime = 20 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	switch err := run(ctx, os.Args[1:], os.Stderr, nil); {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "imageservice:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

// run serves until ctx ends. listening hears the address, if it is not nil.
func run(ctx context.Context, args []string, stderr io.Writer, listening func(net.Addr)) error {
	var (
		base         = mqttx.Base{Logger: slog.New(slog.NewTextHandler(stderr, nil))}
		f            fetcher
		listen       string
		origins      string
		queue        int
		allowPrivate bool
	)
	flags := flag.NewFlagSet("imageservice", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&base.Broker, "broker", "mqtt://localhost:1883", "the broker's `URL`, also mqtts:// and ws://")
	flags.StringVar(&base.ToBase, "to", "mqttTestPub", "the `topic` to BASE")
	flags.StringVar(&base.FromBase, "from", "mqttTestSub", "the `topic` from BASE")
	flags.IntVar(&base.PackageSize, "size", 1400, "`bytes` of the image in a message")
	flags.BoolVar(&base.ZeroBased, "zero", false, "BASE counts packages from 0 when it asks for one")
	flags.DurationVar(&base.Timeout, "wait", 5*time.Second, "how long BASE has to answer before a message is repeated")
	flags.IntVar(&base.Attempts, "attempts", 12, "how often a message is sent; -1: no limit")
	flags.StringVar(&listen, "listen", ":5000", "the HTTP `address`")
	flags.StringVar(&origins, "origins", "", "comma-separated `list` of web origins that may call with credentials, as https://app.example")
	flags.BoolVar(&allowPrivate, "allow-private", false, "fetch from private, loopback and link-local addresses too")
	flags.Int64Var(&f.maxBytes, "max-bytes", 32<<20, "the largest image `file`, in bytes")
	flags.IntVar(&f.maxPixels, "max-pixels", 25_000_000, "the largest image, in `pixels`")
	flags.DurationVar(&f.timeout, "fetch", 20*time.Second, "how long fetching an image may take")
	flags.IntVar(&queue, "queue", 16, "how many `requests` may run and wait; more are answered with 503")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	allowed, err := parseOrigins(origins)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("%q: only flags are taken", flags.Arg(0))
	}
	if err == nil && (queue < 1 || f.maxBytes < 1 || f.maxPixels < 1 || f.timeout <= 0) {
		err = errors.New("-queue, -max-bytes, -max-pixels and -fetch are above 0")
	}
	if err != nil {
		fmt.Fprintln(stderr, "imageservice:", err)
		return errUsage
	}
	f.client = newClient(allowPrivate)

	conn, err := base.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	base.Logger.Info("listening", "addr", l.Addr().String(), "broker", shown(base.Broker))
	if listening != nil {
		listening(l.Addr())
	}
	s := newService(conn, &f, queue, base.Logger)
	return serve(ctx, l, withOrigins(allowed, s.routes()))
}

func newServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: readTime, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
}

// serve serves until ctx ends, and then until the requests that run are done.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := newServer(h)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err := srv.Shutdown(ending)
	if err != nil {
		err = fmt.Errorf("some requests did not end within %v: %w", patience, err)
		srv.Close() // ends their contexts
	}
	<-served
	return err
}

// parseOrigins reads a comma-separated list of origins.
func parseOrigins(list string) (map[string]bool, error) {
	allowed := make(map[string]bool)
	for origin := range strings.SplitSeq(list, ",") {
		origin = strings.TrimSpace(origin)
		if origin == "" {
			continue
		}
		scheme, host, _ := strings.Cut(origin, "://")
		if (scheme != "http" && scheme != "https") || host == "" || strings.ContainsAny(host, "/*?#@ ") {
			return nil, fmt.Errorf("-origins: %q is no origin like https://app.example:8443", origin)
		}
		allowed[strings.ToLower(origin)] = true
	}
	return allowed, nil
}
