package mqttx

import (
	"context"
	"net"
	"sync"

	"github.com/pixferry/pixferry/transport"
)

// baseListener is BASE on a pair of topics. It has one Conn at a time, and lives on with
// it after Close.
type baseListener struct {
	base *Base
	link *baseLink
	free chan struct{} // holds a token while there is no Conn
	once sync.Once
	done chan struct{} // closed by Close
}

func newBaseListener(b *Base, link *baseLink) *baseListener {
	l := &baseListener{base: b, link: link, free: make(chan struct{}, 1), done: make(chan struct{})}
	l.free <- struct{}{}
	return l
}

// Accept implements transport.Listener. It returns when a sender has said something.
func (l *baseListener) Accept(ctx context.Context) (transport.Conn, error) {
	free, in := l.free, (chan []byte)(nil)
	for {
		if err := l.ended(ctx); err != nil {
			if free == nil {
				l.release()
			}
			return nil, &transport.Error{Op: "accept", Err: err}
		}
		select {
		case <-l.done:
		case <-ctx.Done():
		case <-free:
			free, in = nil, l.link.in // for the one Conn
		case p := <-in:
			if err := new(BaseMessage).Parse(p); err != nil {
				l.link.strange(err)
				continue
			}
			return &baseStation{l: l, first: p, closed: make(chan struct{}), served: make(chan struct{}, 1)}, nil
		}
	}
}

func (l *baseListener) ended(ctx context.Context) error {
	select {
	case <-l.done:
		return transport.ErrClosed
	default:
		return ctx.Err()
	}
}

// Addr implements transport.Listener. It is a URL, the broker's with the topic to BASE as
// path.
func (l *baseListener) Addr() net.Addr { return addr(l.link.broker + "/" + l.base.toBase()) }

// Close implements transport.Listener.
func (l *baseListener) Close() error {
	l.once.Do(func() { close(l.done) })
	select {
	case <-l.free:
		l.link.close()
	default: // the Conn sees to it
	}
	return nil
}

// release is called when there is no Conn any more.
func (l *baseListener) release() {
	l.free <- struct{}{}
	select {
	case <-l.done:
		l.Close()
	default:
	}
}
