// Receiver takes images from any number of senders and shows the newest of each
// source in a web page.
//
//		receiver tcp://:9999 udp://:9999 tcp+frames://:7003
//
//	 1. one Server takes from all URLs; with -dir it also stores
//	 2. its Handler puts each picture into the gallery (gallery.go), which keeps one for each source
//	 3. browsers ask for what is newer than what they show (web.go), so a slow one slows nobody
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
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pixferry/pixferry/examples/endpoint"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

func main() {
	addr := flag.String("http", "127.0.0.1:8080", "`address` of the web page")
	dir := flag.String("dir", "", "also store the images in this `directory`")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: receiver [flags] URL...")
		flag.PrintDefaults()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Stderr, *addr, *dir, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "receiver:", err)
		os.Exit(1)
	}
}

// maxPicture is the largest picture that is shown, in bytes.
const maxPicture = 32 << 20

// run serves until the context ends. What is refused, and why, it writes to trouble.
func run(ctx context.Context, out, trouble io.Writer, addr, dir string, urls []string) error {
	g := newGallery()
	log := slog.New(slog.NewTextHandler(trouble, &slog.HandlerOptions{Level: slog.LevelWarn}))
	srv := &transport.Server{Handler: g.handle, Limits: transport.Limits{MaxImage: maxPicture}, Logger: log}
	if dir != "" {
		store := &transport.DirStore{Dir: dir, Path: tcpx.FramePath}
		defer store.Close()
		srv.Store = store
	}
	web, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	page := newPage(ctx, g)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := page.Serve(web); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	fmt.Fprintf(out, "showing http://%s/\n", web.Addr())
	for _, raw := range urls {
		t, err := endpoint.Parse(raw, true, log)
		var l transport.Listener
		if err == nil {
			l, err = t.Listen(ctx)
		}
		if err != nil {
			return errors.Join(err, page.Close(), srv.Shutdown(ctx))
		}
		fmt.Fprintln(out, "listening", endpoint.Where(raw, l.Addr()))
		group.Go(func() error {
			if err := srv.Serve(ctx, l); !errors.Is(err, transport.ErrServerClosed) && ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return end(ending, srv, page)
	})
	return group.Wait()
}

// newPage makes the server of the page. Its times are for browsers that neither ask nor read.
func newPage(ctx context.Context, g *gallery) *http.Server {
	return &http.Server{
		Handler: g.pages(), BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
	}
}

// end lets senders and browsers finish until ctx ends. That some are slower is no failure.
func end(ctx context.Context, srv *transport.Server, page *http.Server) error {
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	if page.Shutdown(ctx) != nil {
		page.Close()
	}
	return err
}
