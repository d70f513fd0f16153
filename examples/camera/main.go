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
	"strings"
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// command is the program; it returns the exit status.
func command(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	stats, err := run(ctx, o, stdin, stderr)
	fmt.Fprintf(stdout, "%d frames sent, %d left out\n", stats.sent, stats.skipped)
	if err != nil && ctx.Err() == nil { // an end by a signal is no failure
		fmt.Fprintln(stderr, "camera:", err)
		return 1
	}
	return 0
}

// parse reads the flags. It has said what is wrong with them.
func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("camera", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: camera [flags] URL")
		flags.PrintDefaults()
	}
	flags.StringVar(&o.dir, "dir", "", "send the pictures of this `directory`, by the number in their names, again and again")
	flags.BoolVar(&o.stdin, "stdin", false, "send an MJPEG stream from standard input")
	flags.StringVar(&o.mjpeg, "mjpeg", "", "send an MJPEG stream from this HTTP `URL`")
	flags.StringVar(&o.source, "source", "camera", "the camera's `name`")
	flags.Float64Var(&o.fps, "fps", 10, "frames a second of a directory or the test pattern")
	flags.IntVar(&o.count, "count", 0, "leave after this `number` of frames (0: never)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() != 1:
		err = errors.New("name one URL to send to")
	case !(o.fps >= 0.001 && o.fps <= 1000): // NaN too
		err = errors.New("-fps is from 0.001 to 1000")
	case o.count < 0:
		err = errors.New("-count cannot be negative")
	}
	if err != nil {
		fmt.Fprintln(stderr, "camera:", err)
		flags.Usage()
	}
	o.url = flags.Arg(0)
	return o, err
}

type statistics struct{ sent, skipped int64 }

// run sends until the source ends, count frames were sent or refused, or the context ends. Why frames fail it writes to
// trouble.
func run(ctx context.Context, o options, stdin io.Reader, trouble io.Writer) (statistics, error) {
	frames, err := o.frames(ctx, stdin)
	if err != nil {
		return statistics{}, err
	}
	t, err := endpoint.Parse(o.url, false, nil)
	if err != nil {
		return statistics{}, err
	}
	c := &camera{options: o, transport: t, trouble: trouble, newest: make(chan frame, 1), ended: make(chan error, 1)}
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
	trouble   io.Writer
	told      time.Time // of the last line; zero: all is well

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
	for c.count == 0 || c.sent+c.failed < int64(c.count) {
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

// noPath makes a source's name one of a file.
var noPath = strings.NewReplacer("/", "_", `\`, "_")

func (c *camera) sendFrame(ctx context.Context, f frame) error {
	if c.conn == nil {
		forever := &transport.RetryPolicy{MaxAttempts: -1, Max: 5 * time.Second, Notify: func(_ int, err error, _ time.Duration) { c.tell(err) }}
		err := transport.Retry(ctx, forever, func(ctx context.Context) (err error) {
			c.conn, err = c.transport.Dial(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}
	img := &transport.Image{
		Name: fmt.Sprintf("%s-%06d%s", noPath.Replace(c.source), f.number, extension(f.data)), Source: c.source, Captured: f.taken,
		Meta: map[string]string{"frame": strconv.Itoa(f.number)}, Body: transport.Bytes(f.data),
	}
	_, err := c.conn.Send(ctx, img, &transport.SendOptions{Live: &transport.Live{MaxAge: 5 * time.Second}})
	if err == nil {
		c.sent++
		c.told = time.Time{}
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.failed++
	c.tell(err)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, transport.ErrIdle) {
		c.hangUp()
	}
	return nil
}

// tell writes a line when trouble begins, and now and then while it lasts: frames are many.
func (c *camera) tell(err error) {
	if time.Since(c.told) >= 10*time.Second {
		c.told = time.Now()
		fmt.Fprintln(c.trouble, "camera:", err)
	}
}

func (c *camera) hangUp() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}
