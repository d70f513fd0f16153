package native_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/transport/transporttest"
)

var modelSeeds = flag.Uint64("seeds", 20, "how many seeds TestModel runs; with -short a quarter of them")

// TestModel has programs send to one that is cut off, shut down, killed and started again, whose Handler refuses and whose
// store fails, and compares what they were told with what is in the store in the end. What happens follows from the seed,
// but for the order of what happens at the same time. -run TestModel/17 replays seed 17.
func TestModel(t *testing.T) {
	seeds := *modelSeeds
	if testing.Short() {
		seeds /= 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newModel(t, seed).run() })
		})
	}
}

// A model is a receiving program in all its runs, and what was sent to it.
type model struct {
	*testing.T
	seed  uint64
	began time.Time
	info  native.LinkInfo
	cfg   native.Config
	dir   string
	calm  atomic.Bool    // nothing bad happens any more
	ends  sync.WaitGroup // what is left of runs

	mu     sync.Mutex
	rand   *rand.Rand // of the receiver
	now    *receiver
	images []*delivery
	log    []string
}

// A receiver is one run of the program.
type receiver struct {
	transport.Server
	m      *model
	medium *medium
	dir    *transport.DirStore
	killed atomic.Bool
	served chan error
	leases atomic.Int64
	open   atomic.Int64 // offers that are not finished, as hooks are told
}

// A delivery is an image, another one of its size, and the Sends of them under one ID.
type delivery struct {
	id       transport.ID
	name     string
	contents [2][]byte
	agreed   bool // a Handler did
	sends    []sent
}

type sent struct {
	which int // of the contents
	err   error
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{T: t, seed: seed, began: time.Now(), dir: t.TempDir(), rand: rand.New(rand.NewPCG(seed, 0))}
	m.info = []native.LinkInfo{{Ordered: true, Reliable: true, MaxMessage: 16 << 10}, {Ordered: true, MaxMessage: 4 << 10}, {MaxMessage: 1200}}[seed%3]
	m.info.Protocol, m.info.Peer = "mem", "peer"
	m.cfg = native.Config{IdleTimeout: time.Duration(2+m.rand.IntN(20)) * time.Second}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(strings.Join(m.log, "\n"))
		}
	})
	return m
}

func (m *model) logf(format string, a ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, fmt.Sprintf("%8.3f ", time.Since(m.began).Seconds())+fmt.Sprintf(format, a...))
}

// chance is true with a probability, until all is calm.
func (m *model) chance(p float64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rand.Float64() < p && !m.calm.Load()
}

// pause takes up to most, or until ctx ends.
func (m *model) pause(ctx context.Context, most time.Duration) error {
	m.mu.Lock()
	d := time.Duration(m.rand.Int64N(int64(most)))
	m.mu.Unlock()
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return ctx.Err()
}

func (m *model) run() {
	ctx := context.Background()
	m.start()
	var programs sync.WaitGroup
	for i := range uint64(3) {
		programs.Go(func() { m.program(rand.New(rand.NewPCG(m.seed, 1+i))) })
	}
	for range 5 {
		m.pause(ctx, 8*time.Second)
		if m.chance(0.3) {
			m.logf("the links are cut")
			m.receiver().medium.cut(nil)
		} else if m.chance(0.7) {
			m.receiver().end(m.chance(0.4))
			m.pause(ctx, 3*time.Second)
			m.start()
		}
	}
	programs.Wait()
	m.calm.Store(true)
	m.logf("all is calm")
	time.Sleep(2 * time.Minute) // Handlers and the store are slow
	m.resolve()
	m.receiver().end(false)
	m.start() // on what is there
	m.receiver().end(false)
	m.ends.Wait()
	m.verify()
}

func (m *model) receiver() *receiver {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// start begins a run of the receiving program.
func (m *model) start() {
	r := &receiver{m: m, medium: newMedium(m.info), dir: &transport.DirStore{Dir: m.dir, NoSync: true}, served: make(chan error, 1)}
	r.medium.pace = time.Millisecond
	r.medium.wrap = func(l native.Link) native.Link {
		m.mu.Lock()
		f := transporttest.Faults{Seed: m.rand.Uint64()}
		m.mu.Unlock()
		if !m.info.Reliable {
			f.Loss = 0.03
		}
		if !m.info.Ordered {
			f.Reorder, f.Duplicate = 0.02, 0.01
		}
		return hole{f.Wrap(m, l), &r.killed, make(chan struct{})}
	}
	r.Store, r.Handler = &unsteady{r.dir, r}, r.handle
	r.Hooks.Offered = func(transport.TransferInfo) { r.open.Add(1) }
	r.Hooks.Finished = func(transport.TransferInfo, transport.Receipt, error) { r.open.Add(-1) }
	l, err := native.Over(nil, r.medium.listen, m.cfg).Listen(context.Background())
	if err != nil {
		m.Fatal(err)
	}
	go func() { r.served <- r.Serve(context.Background(), l) }()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = r
}

// end shuts a run down, or kills it: nothing that it does yet has an effect then.
func (r *receiver) end(kill bool) {
	r.killed.Store(kill)
	patience, over := 5*time.Second, make(chan struct{})
	if kill {
		patience = 0
		r.dir.Close()
	}
	r.m.ends.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		began := time.Now()
		err := r.Shutdown(ctx)
		<-r.served
		r.m.logf("shut down, killed %v: %v", kill, err)
		if took := time.Since(began); took > patience+3*time.Second {
			r.m.Errorf("Shutdown took %v", took)
		}
		close(over)
		time.Sleep(2 * time.Minute) // Handlers and the store are slow
		if leases, open := r.leases.Load(), r.open.Load(); leases != 0 || open != 0 {
			r.m.Errorf("%d leases are left, and %d offers that were not finished", leases, open)
		}
	})
	if !kill {
		<-over
		r.dir.Close()
	}
	r.medium.away(io.ErrClosedPipe)
}

func (r *receiver) handle(ctx context.Context, in *transport.Incoming) error {
	m := r.m
	switch {
	case m.chance(0.1):
		return transport.Reject("no")
	case m.chance(0.1):
		return errors.New("not now")
	case m.chance(0.05):
		panic("the Handler of TestModel")
	case m.chance(0.3):
		if err := m.pause(ctx, 10*time.Second); err != nil {
			return err
		}
	case m.chance(0.1): // whatever the context says
		m.pause(context.Background(), 20*time.Second)
	}
	got, err := in.Image.Body.ReadAll(ctx)
	if err != nil || r.killed.Load() {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.images {
		if d.id == in.ID && (bytes.Equal(got, d.contents[0]) || bytes.Equal(got, d.contents[1])) {
			d.agreed = true
			return nil
		}
	}
	m.Errorf("the Handler got %d bytes as %s, which nobody has sent", len(got), in.Image.Name)
	return nil
}

// denied reports whether an error says that nothing is kept.
func denied(err error) bool {
	failure := (*transport.Error)(nil)
	return errors.As(err, &failure) && failure.Outcome != transport.Unknown
}

// verify compares the store with what was said.
func (m *model) verify() {
	for _, d := range m.images {
		got, err := os.ReadFile(filepath.Join(m.dir, d.name))
		kept, told := err == nil, false
		if twice, _ := filepath.Glob(filepath.Join(m.dir, d.name+" (*")); len(twice) > 0 || kept && !d.agreed {
			m.Errorf("%s is kept, and %q; a Handler has agreed: %v", d.name, twice, d.agreed)
		}
		for _, s := range d.sends {
			told = told || !denied(s.err)
			if s.err == nil && !bytes.Equal(got, d.contents[s.which]) {
				m.Errorf("%s has a receipt, and something else is kept: %v, of %d bytes", d.name, kept, len(got))
			}
		}
		if kept && !told {
			m.Errorf("%s is kept, and the senders heard that it is not: %v", d.name, d.sends)
		}
	}
	parts, _ := filepath.Glob(filepath.Join(m.dir, ".pixferry", "*.part"))
	for _, f := range parts {
		if _, err := os.Stat(strings.TrimSuffix(f, "part") + "blocks"); err != nil {
			m.Errorf("%s is left, and cannot be resumed", f)
		}
	}
}

// dial joins whichever run there is.
func (m *model) dial(ctx context.Context) (transport.Conn, error) {
	link := func(ctx context.Context) (native.Link, error) { return m.receiver().medium.dial(ctx) }
	return native.Over(link, nil, m.cfg).Dial(ctx)
}

// program sends images and messages.
func (m *model) program(r *rand.Rand) {
	var mine []*delivery
	for range 3 {
		conn, err := m.dial(context.Background())
		if err != nil {
			continue
		}
		var ops sync.WaitGroup
		for range 5 {
			time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+r.IntN(60_000))*time.Millisecond)
			if len(mine) == 0 || r.IntN(4) > 0 {
				mine = append(mine, m.delivery(r))
			}
			d, which, o := mine[r.IntN(len(mine))], r.IntN(5)/4, &transport.SendOptions{Priority: transport.Priority(r.IntN(2))}
			if r.IntN(2) == 0 {
				o.Retry = &transport.RetryPolicy{MaxAttempts: -1}
			}
			body := transport.Content(slowEnd{bytes.NewReader(d.contents[which])}, int64(len(d.contents[which])))
			if r.IntN(3) == 0 {
				body = transport.Stream(bytes.NewReader(d.contents[which]))
			}
			ops.Go(func() { defer cancel(); m.send(ctx, conn, d, which, body, o) })
		}
		if r.IntN(2) == 0 {
			ops.Wait()
		}
		conn.Close()
		ops.Wait()
	}
}

func (m *model) delivery(r *rand.Rand) *delivery {
	b := make([]byte, r.IntN([]int{2, 3000, 600_000, 3 << 20}[r.IntN(4)]))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	d := &delivery{contents: [2][]byte{b, bytes.Clone(b)}}
	if len(b) > 0 {
		b[r.IntN(len(b))]++
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d.id, d.name = transport.MakeID(m.seed+1, r.Uint64()), fmt.Sprintf("image-%d", len(m.images))
	m.images = append(m.images, d)
	return d
}

func (m *model) send(ctx context.Context, conn transport.Conn, d *delivery, which int, body transport.Body, o *transport.SendOptions) error {
	acked, b := int64(0), d.contents[which]
	o.ID, o.Progress = d.id, func(now, _ int64) {
		if now < acked || now > int64(len(b)) {
			m.Errorf("progress of %s: %d after %d", d.name, now, acked)
		}
		acked = now
	}
	receipt, err := conn.Send(ctx, &transport.Image{Name: d.name, Source: "cam", Body: body}, o)
	m.logf("%s.%d of %d bytes: %v", d.name, which, len(b), err)
	if end, _ := ctx.Deadline(); time.Since(end) > 20*time.Millisecond {
		m.Errorf("Send ended %v after its context: %v", time.Since(end), err)
	}
	if h := chunk.NewHasher(transport.XXH3); err == nil {
		h.Write(b)
		if receipt.ID != d.id || receipt.Level != transport.Kept || receipt.Digest != h.Root() {
			m.Errorf("the receipt of %s: %+v", d.name, receipt)
		}
	}
	refused := (*transport.RejectedError)(nil)
	if errors.As(err, &refused) && !refused.Retryable && refused.Reason != transport.ReasonHandler && refused.Reason != transport.ReasonMoved {
		m.Errorf("%s was refused for good: %v", d.name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d.sends = append(d.sends, sent{which, err})
	return err
}

// resolve asks again for every image of which somebody does not know.
func (m *model) resolve() {
	conn, err := m.dial(context.Background())
	if err != nil {
		m.Fatal(err)
	}
	defer conn.Close()
	for _, d := range m.images {
		for _, s := range d.sends {
			if s.err != nil && !denied(s.err) {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				err := m.send(ctx, conn, d, s.which, transport.Bytes(d.contents[s.which]), &transport.SendOptions{})
				cancel()
				if err != nil && !errors.Is(err, transport.ErrIDUsed) {
					m.Errorf("%s was asked for again: %v", d.name, err)
				}
			}
		}
	}
}
