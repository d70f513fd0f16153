package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pixferry/pixferry/examples/endpoint"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// shutdownTime is how long images on their way may take to end after a signal.
const shutdownTime = 2 * time.Second

// recvArgs is the command line of recv.
type recvArgs struct {
	dir   string
	count int
	idle  time.Duration
	json  bool
	urls  []string
	sides []transport.Transport // of urls
}

func parseRecv(args []string, stderr io.Writer) (*recvArgs, error) {
	var a recvArgs
	flags := flag.NewFlagSet("pixferry recv", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&a.dir, "dir", ".", "`directory` for the images")
	flags.IntVar(&a.count, "count", 0, "leave after this `number` of images (0: never)")
	flags.DurationVar(&a.idle, "idle", 0, "leave after this `time` without traffic (0: never)")
	flags.BoolVar(&a.json, "json", false, "one JSON object a line, after the lines that begin with \"listening\"")
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	if flags.NArg() == 0 {
		return nil, misuse(stderr, "recv needs a URL")
	}
	if a.count < 0 || a.idle < 0 {
		return nil, misuse(stderr, "-count and -idle cannot be negative")
	}
	a.urls = flags.Args()
	log := slog.New(slog.NewTextHandler(stderr, nil))
	for _, raw := range a.urls {
		t, err := endpoint.Parse(raw, true, log)
		if err != nil {
			return nil, misuse(stderr, "%v", err)
		}
		a.sides = append(a.sides, t)
	}
	return &a, nil
}

// listen listens on all sides, or on none.
func listen(ctx context.Context, sides []transport.Transport) (listeners []transport.Listener, err error) {
	for _, side := range sides {
		listener, err := side.Listen(ctx)
		if err != nil {
			for _, l := range listeners {
				err = errors.Join(err, l.Close())
			}
			return nil, err
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}

func recv(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	a, err := parseRecv(args, stderr)
	if err != nil {
		return err
	}
	out := newReport(stdout, stderr, a.json, "never")
	r := &receiver{out: out, count: a.count, active: make(map[transport.ID]time.Time),
		leave: make(chan struct{}), traffic: make(chan struct{}, 1), settled: make(chan struct{}, 1)}
	store := &transport.DirStore{Dir: a.dir, Path: tcpx.FramePath}
	defer store.Close()
	if _, _, err := store.Receipt(ctx, transport.ID{}); err != nil {
		return err // of the directory, before anybody sends
	}
	srv := &transport.Server{
		Store: keeper{store, r},
		Message: func(_ context.Context, _ transport.Conn, m transport.Message) error {
			r.touch()
			out.message(string(m.Data))
			return nil
		},
		Hooks: transport.Hooks{Finished: r.finished, Dropped: r.dropped},
	}

	listeners, err := listen(ctx, a.sides)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	serving := context.WithoutCancel(ctx) // a signal ends it by way of Shutdown
	for i, listener := range listeners {
		out.listening(endpoint.Where(a.urls[i], listener.Addr()))
		group.Go(func() error {
			if err := srv.Serve(serving, listener); !errors.Is(err, transport.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	group.Go(func() error {
		r.wait(ctx, a.idle)
		ending, cancel := context.WithTimeout(serving, shutdownTime)
		defer cancel()
		if err := srv.Shutdown(ending); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		r.settle()
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
	settled chan struct{} // signalled when no image is active

	mu       sync.Mutex
	active   map[transport.ID]time.Time // when they began; until their end is reported
	images   int
	outcomes recent // what was last reported of each
	failures int    // images whose last report is no delivery
}

// A keeper is the directory, and tells the receiver what goes into it. It does
// so before the sender hears of it, so that a slow reader of standard output
// slows the senders and misses nothing, which hooks cannot promise.
type keeper struct {
	*transport.DirStore
	r *receiver
}

func (k keeper) Open(ctx context.Context, o transport.PartialOffer) (transport.Partial, error) {
	p, err := k.DirStore.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	k.r.begin(o.ID)
	return lease{p, k.r}, nil
}

type lease struct {
	transport.Partial
	r *receiver
}

func (l lease) Commit(ctx context.Context, img *transport.Image, receipt transport.Receipt) (string, error) {
	name, err := l.Partial.Commit(ctx, img, receipt)
	if err == nil && name != "" {
		l.r.delivered(name, receipt)
	}
	return name, err
}

func (r *receiver) begin(id transport.ID) {
	r.mu.Lock()
	r.active[id] = time.Now()
	r.mu.Unlock()
	r.touch()
}

// end returns how long the image was active.
func (r *receiver) end(id transport.ID) (seconds float64) {
	if began, ok := r.active[id]; ok {
		seconds = time.Since(began).Seconds()
	}
	if delete(r.active, id); len(r.active) == 0 {
		wake(r.settled)
	}
	return seconds
}

func (r *receiver) delivered(name string, receipt transport.Receipt) {
	r.mu.Lock()
	before, news := r.outcomes.set(receipt.ID, delivered)
	if news {
		r.images++
	}
	full := news && r.images == r.count
	if news && before != "" {
		r.failures--
	}
	res := result{Name: name, Bytes: receipt.Bytes, Resent: receipt.Resent, Resumed: receipt.Reused,
		Seconds: r.end(receipt.ID), Digest: digestText(receipt), Status: delivered}
	r.mu.Unlock()
	if news {
		r.out.image(res)
	}
	r.touch()
	if full {
		close(r.leave)
	}
}

// finished hears of the end of each attempt at an image.
func (r *receiver) finished(i transport.TransferInfo, receipt transport.Receipt, err error) {
	if err == nil {
		r.delivered(cmp.Or(i.Stored, i.Name), receipt) // news if it was kept before this process began
		return
	}
	status := "failed"
	if refusal := (*transport.RejectedError)(nil); errors.As(err, &refusal) {
		switch refusal.Reason {
		case transport.ReasonMoved: // the newer attempt reports
			return
		case transport.ReasonCanceled:
		default:
			status = "rejected"
		}
	}
	r.mu.Lock()
	res := result{Name: i.Name, Seconds: r.end(i.ID), Status: status, Error: err.Error()}
	news := r.count > 0 && r.images >= r.count // it comes too late, which is no failure here
	if !news && r.outcomes.get(i.ID) != delivered {
		var before string
		if before, news = r.outcomes.set(i.ID, status); before == "" {
			r.failures++
		}
	}
	r.mu.Unlock()
	if news { // and not another attempt of a sender that tries again
		r.out.image(res)
	}
	r.touch()
}

// dropped hears that standard output was too slow for all failures to be told.
func (r *receiver) dropped(int) {
	r.mu.Lock()
	clear(r.active)
	r.mu.Unlock()
	wake(r.settled)
}

// settle waits for the reports of images that Shutdown has given up.
func (r *receiver) settle() {
	limit := time.After(shutdownTime)
	for {
		r.mu.Lock()
		busy := len(r.active) > 0
		r.mu.Unlock()
		if !busy {
			return
		}
		select {
		case <-r.settled:
		case <-limit:
			return
		}
	}
}

func (r *receiver) touch() { wake(r.traffic) }

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
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
	if r.failures > 0 {
		return fmt.Errorf("%w: %d failed", errFailed, r.failures)
	}
	return nil
}

// delivered is the status of an image that is kept.
const delivered = "delivered"

// recent remembers the statuses of the images that were reported last, of at least
// recently of them. The zero value is empty.
type recent struct{ young, old map[transport.ID]string }

const recently = 1 << 16

// get returns "" for an ID that is not known.
func (s *recent) get(id transport.ID) string { return cmp.Or(s.young[id], s.old[id]) }

// set returns the status before, and whether it was another one.
func (s *recent) set(id transport.ID, status string) (before string, news bool) {
	before = s.get(id)
	if s.young == nil || len(s.young) == recently {
		s.young, s.old = make(map[transport.ID]string), s.young
	}
	s.young[id] = status
	return before, before != status
}
