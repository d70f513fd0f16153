package native

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/sleep"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// Over makes a Transport of a medium of your own. Dial joins the peer with dial, and does so
// again whenever the link is lost while calls run, for the idle time. Listen accepts the links of
// listen. Either may be nil; its method then fails with errors.ErrUnsupported.
func Over(dial DialLink, listen ListenLinks, cfg Config) transport.Transport {
	return &over{dial: dial, listen: listen, ep: session.NewEndpoint(session.Config{Settings: session.Settings(cfg)}), log: cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))}
}

type over struct {
	dial   DialLink
	listen ListenLinks
	ep     *session.Endpoint
	log    *slog.Logger
}

func (o *over) Dial(ctx context.Context) (transport.Conn, error) {
	if o.dial == nil {
		return nil, &transport.Error{Op: "dial", Err: fmt.Errorf("this transport only listens, as native.Over was given no DialLink: %w", errors.ErrUnsupported)}
	}
	began, joined := time.Now(), LinkInfo{}
	c, err := o.ep.Dial(ctx, func(ctx context.Context) (session.Carrier, error) {
		l, err := o.dial(ctx)
		if err != nil {
			return nil, err
		}
		if err := checkLink(l); err != nil {
			l.Close()
			return nil, err
		}
		joined = l.Info()
		return session.Carry(adapter(l)), nil
	})
	if err != nil {
		if joined.Protocol != "" {
			err = session.Unanswered(err, joined.Protocol, joined.Peer, began)
		}
		return nil, &transport.Error{Op: "dial", Err: err}
	}
	return c, nil
}

func (o *over) Listen(ctx context.Context) (transport.Listener, error) {
	if o.listen == nil {
		return nil, &transport.Error{Op: "listen", Err: fmt.Errorf("this transport only dials, as native.Over was given no ListenLinks: %w", errors.ErrUnsupported)}
	}
	if err := o.ep.Check(); err != nil {
		return nil, &transport.Error{Op: "listen", Err: err}
	}
	links, err := o.listen(ctx)
	if err != nil {
		return nil, &transport.Error{Op: "listen", Err: err}
	}
	l := &listener{over: o, links: links, Backlog: session.NewBacklog(), fewer: make(chan struct{}, 1)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.work.Go(l.accept)
	return l, nil
}

const (
	// maxPending is how many links may be without an established session at once. The oldest of them makes room for
	// one more, so that peers which say nothing keep nobody out.
	maxPending = 256
	// leastPending is how long it is left to begin one all the same: of a fleet that comes back at once, each peer would
	// be sent away for the next.
	leastPending = time.Second
)

var errCrowded = fmt.Errorf("no session began within %v, while more than %d links waited for theirs", leastPending, maxPending)

// listener turns accepted links into Conns with established sessions, so that a
// port scanner never gets as far as Accept.
type listener struct {
	*session.Backlog
	over   *over
	links  LinkListener
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	pending []*joining    // the oldest first
	fewer   chan struct{} // has a token when there are
}

// joining is a link without a session so far.
type joining struct {
	cancel context.CancelCauseFunc
	began  time.Time
}

func (l *listener) accept() {
	defer l.Backlog.Close()
	for pause := time.Duration(0); ; {
		link, err := l.links.Accept(l.ctx)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || l.ctx.Err() != nil {
				return
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.over.log.Warn("cannot accept at the moment", "addr", l.links.Addr(), "err", err, "again in", pause)
			_ = sleep.For(l.ctx, pause)
			continue
		}
		pause = 0
		ctx, done := l.join()
		l.work.Go(func() {
			defer done()
			l.begin(ctx, link)
		})
	}
}

// join makes room for one more link. The context ends when that is needed again; done says that it is not.
func (l *listener) join() (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(l.ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) == maxPending && l.ctx.Err() == nil {
		patience := leastPending - time.Since(l.pending[0].began)
		if patience <= 0 {
			break
		}
		l.mu.Unlock()
		select {
		case <-l.fewer:
		case <-time.After(patience):
		case <-l.ctx.Done():
		}
		l.mu.Lock()
	}
	j := &joining{cancel, time.Now()}
	if len(l.pending) == maxPending {
		l.pending[0].cancel(errCrowded)
		l.pending = slices.Delete(l.pending, 0, 1)
	}
	l.pending = append(l.pending, j)
	return ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		cancel(nil)
		l.pending = slices.DeleteFunc(l.pending, func(other *joining) bool { return other == j })
		select {
		case l.fewer <- struct{}{}:
		default:
		}
	}
}

// begin waits for the session of a link.
func (l *listener) begin(ctx context.Context, link Link) {
	if err := checkLink(link); err != nil {
		link.Close()
		l.Fail(err)
		return
	}
	a := adapter(link)
	c, err := l.over.ep.AcceptLink(ctx, a)
	switch {
	case err == nil:
		l.Ready(c)
	case errors.Is(err, io.EOF): // health checks come for ever
		l.over.log.Debug("a peer has left without a session", "peer", link.Info().Peer, "err", err)
	case l.ctx.Err() == nil: // else the Listener was closed, which is nothing about the peer
		l.over.log.Warn("refused a peer", "peer", link.Info().Peer, "err", err)
	}
}

func (l *listener) Addr() net.Addr { return l.links.Addr() }

func (l *listener) Close() error {
	l.cancel()
	err := l.links.Close()
	l.work.Wait()
	return err
}

// checkLink says what is wrong with what a Link says of itself.
func checkLink(l Link) error {
	if n := l.Info().MaxMessage; n < wire.MinMessage {
		return fmt.Errorf("%w: the Link's Info has a MaxMessage of %d bytes: %d is the least that carries a session", transport.ErrConfig, n, wire.MinMessage)
	}
	return nil
}

// adapter is a Link as package session knows it.
func adapter(l Link) session.Link {
	a := &adapted{l}
	if e, ok := l.(extension); ok {
		return &extended{a, e}
	}
	return a
}

type adapted struct{ Link }

// extension is what session.ExtendedLink has beyond a Link.
type extension interface {
	WaitMessage() error
	Apart() bool
	WriteApart(head, payload, tail []byte) error
	Slow(slow func())
	Abort()
}

type extended struct {
	*adapted
	extension
}

func (a *adapted) Info() session.LinkInfo { return session.LinkInfo(a.Link.Info()) }
