// Camera sends pictures to a URL, the newest first: what the link cannot take in
// time is left out.
//
//		camera tcp://127.0.0.1:9999                          a test pattern
//		camera -dir frames -fps 5 tcp+frames://127.0.0.1:7003
//		ffmpeg … -f mjpeg - | camera -stdin udp://127.0.0.1:9999
//		camera -mjpeg http://cam/stream mqtt://127.0.0.1:1883/viewer
//
//	 1. frames come from a source (source.go) at its own pace
//	 2. a slot of depth one holds the newest; the sender takes it when it is free
//	 3. each carries its number and time, so that the receiver can tell loss and latency
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pixferry/pixferry/examples/endpoint"
	"github.com/pixferry/pixferry/transport"
)

type options struct {
	dir, mjpeg, source string
	stdin              bool
	fps                float64
	count              int
	url                string
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "send the pictures of this `directory`, by the number in their names, again and again")
	flag.BoolVar(&o.stdin, "stdin", false, "send an MJPEG stream from standard input")
	flag.StringVar(&o.mjpeg, "mjpeg", "", "send an MJPEG stream from this HTTP `URL`")
	flag.StringVar(&o.source, "source", "camera", "the camera's `name`")
	flag.Float64Var(&o.fps, "fps", 10, "frames a second of a directory or the test pattern")
	flag.IntVar(&o.count, "count", 0, "leave after this `number` of frames (0: never)")
	flag.Parse()
	if flag.NArg() != 1 || o.fps <= 0 || o.count < 0 {
		fmt.Fprintln(os.Stderr, "usage: camera [flags] URL")
		flag.PrintDefaults()
		os.Exit(2)
	}
	o.url = flag.Arg(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	stats, err := run(ctx, o, os.Stdin)
	stop()
	fmt.Printf("%d frames sent, %d left out\n", stats.sent, stats.skipped)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "camera:", err)
		os.Exit(1)
	}
}

type statistics struct{ sent, skipped int64 }

// run sends until the source ends, count frames were sent, or the context ends.
func run(ctx context.Context, o options, stdin io.Reader) (statistics, error) {
	frames, err := o.frames(ctx, stdin)
	if err != nil {
		return statistics{}, err
	}
	t, err := endpoint.Parse(o.url, false)
	if err != nil {
		return statistics{}, err
	}
	c := &camera{options: o, transport: t, newest: make(chan frame, 1), ended: make(chan error, 1)}
	defer c.hangUp()
	// The source may block in a read that nothing can end: it is not waited for.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { c.ended <- c.fill(ctx, frames) }()
	err = c.send(ctx)
	return statistics{c.sent, c.failed + c.skipped.Load()}, err
}

// A frame is a picture as it came from the source.
type frame struct {
	number int
	taken  time.Time
	data   []byte
}

type camera struct {
	options
	transport transport.Transport
	newest    chan frame // depth one
	ended     chan error // of the source
	conn      transport.Conn

	skipped      atomic.Int64 // by the source's goroutine
	sent, failed int64        // by the sender's
}

// fill keeps the newest frame in the slot.
func (c *camera) fill(ctx context.Context, frames iter.Seq2[[]byte, error]) error {
	number := 0
	for data, err := range frames {
		if err != nil {
			return err
		}
		number++
		f := frame{number, time.Now(), data}
		if c.count > 0 { // all of a counted series
			select {
			case c.newest <- f:
			case <-ctx.Done():
			}
		} else {
			select {
			case <-c.newest:
				c.skipped.Add(1)
			default:
			}
			c.newest <- f
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// send takes frame after frame until there are no more. A frame that fails is not
// repeated: the next one is newer. A peer that is away is dialled again.
func (c *camera) send(ctx context.Context) error {
	for c.count == 0 || c.sent < int64(c.count) {
		select {
		case f := <-c.newest:
			if err := c.sendFrame(ctx, f); err != nil {
				return err
			}
		case err := <-c.ended:
			c.ended <- err
			select {
			case f := <-c.newest: // the last one
				if err := c.sendFrame(ctx, f); err != nil {
					return err
				}
			default:
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (c *camera) sendFrame(ctx context.Context, f frame) error {
	if c.conn == nil {
		err := transport.Retry(ctx, &transport.RetryPolicy{MaxAttempts: -1, Max: 5 * time.Second}, func(ctx context.Context) (err error) {
			c.conn, err = c.transport.Dial(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}
	img := &transport.Image{
		Name: fmt.Sprintf("%s-%06d%s", c.source, f.number, extension(f.data)), Source: c.source, Captured: f.taken,
		Meta: map[string]string{"frame": strconv.Itoa(f.number)}, Body: transport.Bytes(f.data),
	}
	_, err := c.conn.Send(ctx, img, &transport.SendOptions{Live: &transport.Live{MaxAge: 5 * time.Second}})
	if err == nil {
		c.sent++
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.failed++
	fmt.Fprintln(os.Stderr, "camera:", err)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, transport.ErrIdle) {
		c.hangUp()
	}
	return nil
}

func (c *camera) hangUp() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}
