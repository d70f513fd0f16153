package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pixferry/pixferry/examples/endpoint"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// retries is how often one image is tried anew before it counts as failed.
var retries = &transport.RetryPolicy{MaxAttempts: 5}

// dialTime is how long the receiver may take to answer.
const dialTime = 30 * time.Second

// sendArgs is the command line of send.
type sendArgs struct {
	message, progress, journal string
	concurrency                int
	timeout                    time.Duration
	id                         transport.ID
	json                       bool
	url                        string
	to                         transport.Transport
	files                      []string
}

func parseSend(args []string, stderr io.Writer) (*sendArgs, error) {
	var a sendArgs
	flags := flag.NewFlagSet("pixferry send", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&a.message, "message", "", "send this `text` before the files")
	flags.IntVar(&a.concurrency, "concurrency", 0, "images at once (0: what suits the transport)")
	flags.DurationVar(&a.timeout, "timeout", 0, "give up after this `time` (0: some minutes after the receiver has vanished)")
	id := flags.String("id", "", "transfer `ID` of the one file: 32 hexadecimal digits")
	flags.StringVar(&a.progress, "progress", "auto", "auto, always or never")
	flags.BoolVar(&a.json, "json", false, "one JSON object a line")
	flags.StringVar(&a.journal, "journal", "", "`file` that remembers unfinished deliveries (default: in the user's cache directory)")
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	if flags.NArg() == 0 || flags.NArg() == 1 && a.message == "" {
		return nil, misuse(stderr, "send needs a URL and files, or -message TEXT")
	}
	a.url, a.files = flags.Arg(0), flags.Args()[1:]
	if a.progress != "auto" && a.progress != "always" && a.progress != "never" {
		return nil, misuse(stderr, "-progress %s: want auto, always or never", a.progress)
	}
	if a.concurrency < 0 || a.timeout < 0 {
		return nil, misuse(stderr, "-concurrency and -timeout cannot be negative")
	}
	var err error
	if *id != "" {
		if a.id, err = transport.ParseID(*id); err != nil {
			return nil, misuse(stderr, "-id: %v", err)
		}
		if a.id.IsZero() {
			return nil, misuse(stderr, "-id: an ID of zeros names nothing")
		}
		if len(a.files) != 1 {
			return nil, misuse(stderr, "-id names the transfer of one file, not of %d", len(a.files))
		}
	}
	if first := slices.Index(a.files, "-"); first >= 0 && slices.Contains(a.files[first+1:], "-") {
		return nil, misuse(stderr, "standard input (-) can be sent once")
	}
	if a.to, err = endpoint.Parse(a.url, false, nil); err != nil {
		return nil, misuse(stderr, "%v", err)
	}
	if _, ok := a.to.(*udpx.JSON); ok && len(a.files) > 0 {
		return nil, misuse(stderr, "udp+json carries text messages only: send one with -message TEXT, and no files")
	}
	return &a, nil
}

func send(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	a, err := parseSend(args, stderr)
	if err != nil {
		return err
	}
	if a.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, a.timeout, fmt.Errorf("the -timeout of %v is over", a.timeout))
		defer cancel()
	}
	journal, err := openJournal(a.journal)
	if err != nil {
		return err
	}
	out := newReport(stdout, stderr, a.json, a.progress)
	defer out.close()
	s := &sender{out: out, stderr: stderr, journal: journal, receiver: endpoint.Redacted(a.url), fixed: a.id, stdin: stdin, retry: retries, jobs: make(map[*transport.Image]*job), used: make(map[transport.ID]bool)}

	conn, err := dial(ctx, a.to)
	if err != nil {
		return s.none(a.files, err)
	}
	defer conn.Close()
	ctx, s.stop = context.WithCancelCause(ctx)
	defer s.stop(nil)
	if s.again = conn.Info().Resumes; !s.again {
		s.retry = nil // a device protocol without IDs would deliver twice
	}
	if a.message != "" {
		if err := conn.SendMessage(ctx, transport.Message{Type: "text/plain", Data: []byte(a.message)}); err != nil {
			return s.none(a.files, err)
		}
	}
	err = transport.SendAll(ctx, conn, s.images(a.files), &transport.SendAllOptions{Concurrency: a.concurrency, Send: s.options, Each: s.ended, CarryOn: true})
	if s.done == len(a.files) && !s.missing {
		s.forget(s.delivered...)
	}
	if err == nil {
		return nil
	}
	if s.last == nil || ctx.Err() != nil {
		s.last = context.Cause(ctx)
	}
	for _, file := range a.files[s.done:] {
		out.image(result{Name: filepath.Base(file), Status: "failed", Error: fmt.Sprintf("not begun: %v", s.last)})
	}
	return errFailed
}

// none reports that no file could be sent.
func (s *sender) none(files []string, err error) error {
	for _, file := range files {
		s.out.image(result{Name: filepath.Base(file), Status: "failed", Error: err.Error()})
	}
	if len(files) > 0 {
		return errFailed
	}
	return err
}

// dial tries again for a while: receivers and brokers restart.
func dial(ctx context.Context, t transport.Transport) (conn transport.Conn, err error) {
	within, cancel := context.WithTimeoutCause(ctx, dialTime, fmt.Errorf("no answer for %v: check the URL and that the receiver runs", dialTime))
	defer cancel()
	var cause error // of the latest failure, which the end of the time would hide
	err = transport.Retry(within, retries, func(ctx context.Context) error {
		if conn, err = t.Dial(ctx); cause == nil || ctx.Err() == nil {
			cause = err
		}
		return err
	})
	if err != nil && within.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(within), cause)
	}
	return conn, err
}

// A sender follows the images of one command.
type sender struct {
	out      *report
	stderr   io.Writer
	journal  *journal
	receiver string
	fixed    transport.ID
	stdin    io.Reader
	again    bool // the protocol knows IDs, so that an image can be sent again
	retry    *transport.RetryPolicy
	stop     context.CancelCauseFunc // of the images to come

	mu        sync.Mutex
	jobs      map[*transport.Image]*job
	used      map[transport.ID]bool
	done      int
	last      error    // the latest failure
	delivered []string // files, which are remembered until nothing is missing: the same command delivers none twice
	missing   bool     // a file that the same command may deliver yet

	journalFails sync.Once
}

// A job is one image on its way.
type job struct {
	file  string
	id    transport.ID
	began time.Time
}

func (s *sender) images(files []string) iter.Seq2[*transport.Image, error] {
	return func(yield func(*transport.Image, error) bool) {
		for _, file := range files {
			img := &transport.Image{Body: transport.File(file)}
			if file == "-" {
				img.Body = transport.Stream(s.stdin)
			}
			s.mu.Lock()
			s.jobs[img] = &job{file: file, began: time.Now()}
			s.mu.Unlock()
			if !yield(img, nil) {
				return
			}
		}
	}
}

// options gives each image its ID: the one of the command line, or the
// journal's, unless the same file comes twice in this very command.
func (s *sender) options(img *transport.Image) *transport.SendOptions {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[img]
	j.id = s.fixed
	if j.id.IsZero() && j.file != "-" && s.again {
		var err error
		j.id, err = s.journal.begin(s.receiver, j.file)
		s.forgetful(err)
		if s.used[j.id] {
			j.id = transport.NewID()
		}
		s.used[j.id] = true
	}
	name := filepath.Base(j.file)
	return &transport.SendOptions{ID: j.id, Retry: s.retry, Progress: func(acked, total int64) { s.out.progress(name, acked, total) }}
}

func (s *sender) ended(img *transport.Image, r transport.Receipt, err error) {
	s.mu.Lock()
	j := s.jobs[img]
	delete(s.jobs, img)
	s.done++
	if err != nil {
		s.last = err
	}
	s.mu.Unlock()
	if s.again && errors.Is(err, transport.ErrIdle) {
		s.stop(err) // the receiver stays away: others would wait for it as long
	}
	res := result{Name: filepath.Base(j.file), Bytes: r.Bytes, Seconds: time.Since(j.began).Seconds(), Resent: r.Resent, Resumed: r.Reused, Status: status(r, err)}
	if err != nil {
		res.Error = err.Error()
	} else {
		res.Digest = digestText(r)
	}
	// What a later try cannot mend needs no memory. An image that another send has taken over
	// is that one's to forget.
	refusal := (*transport.RejectedError)(nil)
	final := errors.As(err, &refusal) && !refusal.Retryable && refusal.Reason != transport.ReasonMoved || errors.Is(err, transport.ErrIDUsed)
	switch {
	case err == nil:
		s.delivered = append(s.delivered, j.file)
	case final:
		s.forget(j.file)
	default:
		s.missing = true
	}
	s.out.image(res)
}

// forget has the journal forget deliveries that ended for good.
func (s *sender) forget(files ...string) {
	for _, file := range files {
		if file != "-" && s.again {
			s.forgetful(s.journal.done(s.receiver, file))
		}
	}
}

// forgetful says once that the journal does not remember. Images go all the same.
func (s *sender) forgetful(err error) {
	if err != nil {
		s.journalFails.Do(func() {
			fmt.Fprintln(s.stderr, "pixferry: the journal cannot be written, what is interrupted may be sent again from its start:", err)
		})
	}
}

// status names what became of an image.
func status(r transport.Receipt, err error) string {
	var failure *transport.Error
	switch {
	case err == nil && r.Level == transport.Sent:
		return "sent"
	case err == nil:
		return delivered
	case errors.As(err, &failure) && failure.Outcome == transport.Rejected:
		return "rejected"
	case errors.As(err, &failure) && failure.Outcome == transport.Unknown:
		return "unknown"
	}
	return "failed"
}

func digestText(r transport.Receipt) string {
	if r.Digest.IsZero() {
		return ""
	}
	return r.Digest.String()
}
