package native_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
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

var reliable = native.LinkInfo{Protocol: "mem", Peer: "peer", Ordered: true, Reliable: true, MaxMessage: 64 << 10}

func properties() transporttest.Properties {
	return transporttest.Properties{
		Confirms:    transport.Kept,
		Boundaries:  []int64{64 << 10, 256 << 10, chunk.BlockSize},
		UnknownSize: true, Names: true, Metadata: true, IDs: true, Digests: true, Rejections: true,
		Aborts: true, Concurrency: 8, Messages: 64 << 10, BothWays: true, TellsClose: true, Live: true, Resume: true,
		Bubble: true,
	}
}

func conform(t *testing.T, make func(t testing.TB) *medium, p transporttest.Properties) {
	transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		m := make(t)
		return native.Over(nil, m.listen, native.Config{}), func(net.Addr) transport.Transport { return native.Over(m.dial, nil, native.Config{}) }
	}, p)
}

func TestOverReliableLinks(t *testing.T) {
	conform(t, func(testing.TB) *medium { return newMedium(reliable) }, properties())
}

// Links whose writes block until the peer reads, with messages of the smallest size.
func TestOverNarrowLinks(t *testing.T) {
	conform(t, func(testing.TB) *medium {
		m := newMedium(reliable)
		m.info.MaxMessage, m.depth = 256, 0
		return m
	}, properties())
}

func TestOverOrderedLossyLinks(t *testing.T) {
	conform(t, func(t testing.TB) *medium {
		m := newMedium(native.LinkInfo{Protocol: "mem", Peer: "peer", Ordered: true, MaxMessage: 4 << 10})
		m.pace = 50 * time.Microsecond
		seed := uint64(0)
		m.wrap = func(l native.Link) native.Link {
			seed++
			return transporttest.Faults{Seed: seed, Loss: 0.02, Corrupt: 0.01}.Wrap(t, l)
		}
		return m
	}, properties())
}

func TestOverDatagrams(t *testing.T) {
	conform(t, func(t testing.TB) *medium {
		m := newMedium(native.LinkInfo{Protocol: "mem", Peer: "peer", MaxMessage: 1200})
		m.pace = 50 * time.Microsecond
		seed := uint64(0)
		m.wrap = func(l native.Link) native.Link {
			seed++
			return transporttest.Faults{Seed: seed, Loss: 0.02, Duplicate: 0.01, Reorder: 0.02, Corrupt: 0.01}.Wrap(t, l)
		}
		return m
	}, properties())
}

// A medium with one peer, such as a serial line, passes too.
func TestOverOneAtATime(t *testing.T) {
	transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		lines := make(chan native.Link, 8)
		plug := plugged(lines)
		call := func(context.Context) (native.Link, error) {
			near, far := memLinks(reliable, 64)
			lines <- far
			return near, nil
		}
		return native.Over(nil, native.OneAtATime(plug), native.Config{}), func(net.Addr) transport.Transport { return native.Over(call, nil, native.Config{}) }
	}, properties())
}

// narrow takes less than its Info says.
type narrow struct {
	native.Link
	most int
}

const narrowMost = 16 << 10

func (n narrow) WriteMessage(msg []byte) error {
	if len(msg) > n.most {
		return &transport.TooLargeError{What: "message", Size: int64(len(msg)), Max: int64(n.most)}
	}
	return n.Link.WriteMessage(msg)
}

// Nothing is sent again on a reliable link, so that a refused message would be refused for ever.
func TestReliableLinkThatRefusesItsMessages(t *testing.T) {
	bubble(t, func(_ *transport.Server, m *medium) {
		m.wrap = func(l native.Link) native.Link { return narrow{l, narrowMost} }
	}, func(t *testing.T, e *ends) {
		for _, retry := range []*transport.RetryPolicy{nil, {}} {
			_, err := e.conn.Send(t.Context(), image("x", make([]byte, 300_000)), &transport.SendOptions{Retry: retry})
			if tooLarge := (*transport.TooLargeError)(nil); !errors.Is(err, transport.ErrConfig) || errors.As(err, &tooLarge) || !strings.Contains(err.Error(), "limit of 16384") {
				t.Error(err)
			}
		}
	})
}

// overlong is a Link with a message on it, once, that is too long for its reader.
type overlong struct {
	native.Link
	comes *atomic.Bool
}

func (l overlong) ReadMessage(buf []byte) (int, error) {
	n, err := l.Link.ReadMessage(buf)
	if l.comes.CompareAndSwap(true, false) {
		return 0, &transport.TooLargeError{What: "message", Size: int64(2 * len(buf)), Max: int64(len(buf))}
	}
	return n, err
}

// "A message that is longer than buf is cut or skipped, or ends the link with an error": that is a link that has failed, and no
// image that is too large.
func TestLinkThatEndsWithAMessageTooLong(t *testing.T) {
	var comes atomic.Bool
	finished := make(chan error, 10)
	bubble(t, func(s *transport.Server, m *medium) {
		m.wrap = func(l native.Link) native.Link { return overlong{l, &comes} }
		s.Hooks.Finished = func(_ transport.TransferInfo, _ transport.Receipt, err error) { finished <- err }
	}, func(t *testing.T, e *ends) {
		body, more := io.Pipe()
		go e.conn.Send(t.Context(), &transport.Image{Name: "x", Body: transport.Stream(body)}, nil)
		more.Write(make([]byte, 300_000))
		synctest.Wait()
		comes.Store(true)
		go more.Write(make([]byte, 300_000))
		if err := <-finished; !transport.Retryable(err) || !strings.Contains(err.Error(), "limit") {
			t.Error(err)
		}
		body.Close()
	})
}

// exaggerating returns more bytes than it was given room for, as one does that reads into other memory.
type exaggerating struct{ native.Link }

func (l exaggerating) ReadMessage(buf []byte) (int, error) {
	n, err := l.Link.ReadMessage(buf)
	return n + len(buf), err
}

// It ends with an error, and others live.
func TestLinkThatReturnsMoreThanItsBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMedium(reliable)
		shutdown := serveMedium(t, m, &transport.MemStore{})
		m.wrap = func(l native.Link) native.Link { return exaggerating{l} }
		if _, err := native.Over(m.dial, nil, native.Config{}).Dial(t.Context()); err == nil {
			t.Error("no error")
		}
		m.wrap = nil
		conn := mustDial(t, native.Over(m.dial, nil, native.Config{}))
		conn.Close()
		shutdown(time.Second)
	})
}

// A device that is not there is not opened again and again without a pause.
func TestOneAtATimeRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		l, err := native.Over(nil, native.OneAtATime(func(context.Context) (native.Link, error) {
			opened++
			near, far := memLinks(reliable, 64)
			far.Close()
			return near, nil
		}), native.Config{}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := l.Accept(ctx); err == nil {
			t.Error("a dead link is accepted")
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if opened < 5 || opened > 25 {
			t.Errorf("opened %d times in 10 s", opened)
		}
	})
}

// What ends first is mostly the context; what kept the image from going says more.
func TestDeadlineWhileTheLinkIsLost(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		unplugged := errors.New("the cable is unplugged")
		e.medium.mu.Lock()
		e.fails = unplugged
		e.medium.ends[0].Close()
		e.medium.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := e.conn.Send(ctx, image("x", make([]byte, 1000)), nil)
		if !errors.Is(err, context.DeadlineExceeded) || transport.Retryable(err) || !strings.Contains(err.Error(), unplugged.Error()) {
			t.Error(err)
		}
	})
}

func TestDigestByItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMedium(reliable)
		l := mustListen(t, native.Over(nil, m.listen, native.Config{}))
		srv := &transport.Server{Store: &transport.MemStore{}}
		served := async(func() error { return srv.Serve(context.Background(), l) })
		conn := mustDial(t, native.Over(m.dial, nil, native.Config{Digest: chunk.Algorithm{ID: chunk.SHA256.ID}}))
		if r, err := conn.Send(t.Context(), image("x", []byte("x")), nil); err != nil || r.Digest.Algorithm() != chunk.SHA256.ID {
			t.Errorf("%+v, %v", r, err)
		}
		conn.Close()
		srv.Shutdown(t.Context())
		<-served
	})
}

// Peers that open links and say nothing keep nobody out.
func TestSilentLinksMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMedium(reliable)
		var log bytes.Buffer
		l := mustListen(t, native.Over(nil, m.listen, native.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}))
		var silent []native.Link
		for range 300 {
			link, err := m.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			silent = append(silent, link)
		}
		began := time.Now()
		c := mustDial(t, native.Over(m.dial, nil, native.Config{}))
		if took := time.Since(began); took > time.Second {
			t.Errorf("joined after %v", took)
		}
		buf := make([]byte, reliable.MaxMessage)
		if _, err := silent[0].ReadMessage(buf); err == nil {
			t.Error("the oldest link was not ended")
		}
		synctest.Wait()
		refused := strings.Count(log.String(), "refused a peer")
		c.Close()
		l.Close()
		if refused == 0 || strings.Count(log.String(), "refused a peer") != refused {
			t.Errorf("%d peers were refused, and then those whose Listener was closed: %s", refused, &log)
		}
		for _, link := range silent {
			link.Close()
		}
	})
}

// Of a fleet that comes back all at once, each peer has the time to begin its session.
func TestManyLinksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMedium(reliable)
		l, err := native.Over(nil, m.listen, native.Config{}).Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		turn := make(chan struct{}, 1) // not the medium's mutex, which stops the time of a bubble
		slow := native.Over(func(ctx context.Context) (native.Link, error) {
			turn <- struct{}{}
			link, err := m.dial(ctx)
			<-turn
			time.Sleep(500 * time.Millisecond)
			return link, err
		}, nil, native.Config{})
		const peers = 300
		conns := make(chan transport.Conn, 2*peers)
		var all sync.WaitGroup
		for range peers {
			all.Go(func() {
				c, err := slow.Dial(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				conns <- c
				if c, err = l.Accept(t.Context()); err == nil {
					conns <- c
				}
			})
		}
		all.Wait()
		close(conns)
		for c := range conns {
			go c.Close()
		}
		l.Close()
	})
}
