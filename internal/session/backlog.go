package session

import (
	"context"
	"sync"

	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// maxBacklog is how many established Conns wait for Accept; more are closed.
const maxBacklog = 256

// Backlog holds the established Conns of a listener, which embeds it, until Accept
// takes them. It is safe for concurrent use.
type Backlog struct {
	conns chan *Conn
	open  context.Context // ends with what Accept is to return then
	end   context.CancelCauseFunc
	mu    sync.Mutex // of adding to conns
}

// NewBacklog returns an empty Backlog.
func NewBacklog() *Backlog {
	b := &Backlog{conns: make(chan *Conn, maxBacklog)}
	b.open, b.end = context.WithCancelCause(context.Background())
	return b
}

// Ready adds a Conn. It does not block: a Conn for which there is no room is closed.
func (b *Backlog) Ready(c *Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Err() != nil {
		go c.end(wire.CodeGoingAway)
		return
	}
	select {
	case b.conns <- c:
	default:
		go c.end(wire.CodeBusy)
	}
}

// Accept implements transport.Listener.
func (b *Backlog) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := b.next(ctx)
	if err != nil {
		return nil, &transport.Error{Op: "accept", Err: err}
	}
	return c, nil
}

func (b *Backlog) next(ctx context.Context) (*Conn, error) {
	if b.open.Err() != nil {
		return nil, context.Cause(b.open)
	}
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.open.Done():
		return nil, context.Cause(b.open)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends Accept and closes the Conns that nobody has taken.
func (b *Backlog) Close() { b.Fail(transport.ErrClosed) }

// Fail is Close where Accept is to return another error.
func (b *Backlog) Fail(err error) {
	b.mu.Lock()
	b.end(err)
	b.mu.Unlock()
	for {
		select {
		case c := <-b.conns:
			c.end(wire.CodeGoingAway)
		default:
			return
		}
	}
}
