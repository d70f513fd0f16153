package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pixferry/pixferry/examples/endpoint"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// shutdownTime is how long images on their way may take to end after a signal.
const shutdownTime = 2 * time.Second

func recv(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("pixferry recv", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", ".", "`directory` for the images")
	count := flags.Int("count", 0, "leave after this `number` of images (0: never)")
	idle := flags.Duration("idle", 0, "leave after this `time` without traffic (0: never)")
	asJSON := flags.Bool("json", false, "one JSON object a line, after the lines that begin with \"listening\"")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return errUsage
	}
	if flags.NArg() == 0 {
		return misuse(stderr, "recv needs a URL")
	}
	if *count < 0 || *idle < 0 {
		return misuse(stderr, "-count and -idle cannot be negative")
	}
	var sides []transport.Transport
	for _, raw := range flags.Args() {
		t, err := endpoint.Parse(raw, true)
		if err != nil {
			return misuse(stderr, "%v", err)
		}
		sides = append(sides, t)
	}
	out := newReport(stdout, stderr, *asJSON, "never")
	r := &receiver{out: out, count: *count, active: make(map[transfer]time.Time), kept: make(map[transport.ID]bool),
		failed: make(map[transport.ID]bool), leave: make(chan struct{}), traffic: make(chan struct{}, 1)}
	store := &transport.DirStore{Dir: *dir, Path: tcpx.FramePath}
	defer store.Close()
	srv := &transport.Server{
		Store: store,
		Message: func(_ context.Context, _ transport.Conn, m transport.Message) error {
			r.touch()
			out.message(string(m.Data))
			return nil
		},
		Hooks: transport.Hooks{Offered: r.offered, Finished: r.finished},
	}

	group, ctx := errgroup.WithContext(ctx)
	for i, side := range sides {
		listener, err := side.Listen(ctx)
		if err != nil {
			return errors.Join(err, srv.Shutdown(ctx))
		}
		out.listening(endpoint.Where(flags.Arg(i), listener.Addr()))
		group.Go(func() error {
			if err := srv.Serve(ctx, listener); !errors.Is(err, transport.ErrServerClosed) && ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	group.Go(func() error {
		r.wait(ctx, *idle)
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		if err := srv.Shutdown(ending); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return r.verdict()
}

// A receiver follows the images of one command.
type receiver struct {
	out     *report
	count   int
	leave   chan struct{} // closed when count images are there
	traffic chan struct{}

	mu     sync.Mutex
	active map[transfer]time.Time
	kept   map[transport.ID]bool
	failed map[transport.ID]bool // and not delivered by a later attempt
}

// A transfer is one attempt at one image.
type transfer struct {
	id      transport.ID
	attempt uint32
}

func (r *receiver) offered(i transport.TransferInfo) {
	r.mu.Lock()
	r.active[transfer{i.ID, i.Attempt}] = time.Now()
	r.mu.Unlock()
	r.touch()
}

func (r *receiver) finished(i transport.TransferInfo, receipt transport.Receipt, err error) {
	r.mu.Lock()
	began := r.active[transfer{i.ID, i.Attempt}]
	delete(r.active, transfer{i.ID, i.Attempt})
	res := result{Name: cmp.Or(i.Stored, i.Name), Bytes: receipt.Bytes, Seconds: time.Since(began).Seconds(), Resent: receipt.Resent, Resumed: receipt.Reused}
	news := true
	if err == nil {
		res.Status, res.Digest = "delivered", digestText(receipt)
		news = !r.kept[i.ID]
		r.kept[i.ID] = true
		delete(r.failed, i.ID)
	} else {
		res.Status, res.Error = "failed", err.Error()
		if refusal := (*transport.RejectedError)(nil); errors.As(err, &refusal) {
			res.Status = "rejected"
			news = refusal.Reason != transport.ReasonMoved // the newer attempt reports
		}
		if !r.kept[i.ID] {
			r.failed[i.ID] = true
		}
	}
	full := r.count > 0 && len(r.kept) == r.count && err == nil && news
	r.mu.Unlock()
	if news {
		r.out.image(res)
	}
	r.touch()
	if full {
		close(r.leave)
	}
}

func (r *receiver) touch() {
	select {
	case r.traffic <- struct{}{}:
	default:
	}
}

// wait returns when it is time to leave: after a signal, enough images, or the
// idle time. An image on its way is traffic; a peer that stalls is ended by
// the transport's own idle time.
func (r *receiver) wait(ctx context.Context, idle time.Duration) {
	var timer <-chan time.Time
	for {
		if idle > 0 {
			timer = time.After(idle)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.leave:
			return
		case <-r.traffic:
		case <-timer:
			r.mu.Lock()
			busy := len(r.active) > 0
			r.mu.Unlock()
			if !busy {
				return
			}
		}
	}
}

// verdict is nil if every image that was offered is kept.
func (r *receiver) verdict() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failed) > 0 {
		return fmt.Errorf("%w: %d failed", errFailed, len(r.failed))
	}
	return nil
}
