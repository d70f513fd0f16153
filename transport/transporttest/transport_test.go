package transporttest

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/pixferry/pixferry/transport"
)

// pipes is a Transport whose Conns are transport.Pipe, with something wrapped
// around them if that is set.
type pipes struct {
	accept chan transport.Conn
	wrap   func(transport.Conn) transport.Conn // of the dialling side
}

func (p *pipes) Dial(ctx context.Context) (transport.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	here, there := transport.Pipe()
	select {
	case p.accept <- there:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p.wrap != nil {
		here = p.wrap(here)
	}
	return here, nil
}

func (p *pipes) Listen(context.Context) (transport.Listener, error) {
	return &pipeListener{p: p, closed: make(chan struct{})}, nil
}

type pipeListener struct {
	p      *pipes
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept(ctx context.Context) (transport.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.p.accept:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }

func makePipes(wrap func(transport.Conn) transport.Conn) MakeTransport {
	return func(testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		p := &pipes{accept: make(chan transport.Conn, 16), wrap: wrap}
		return p, func(net.Addr) transport.Transport { return p }
	}
}

var pipeProperties = Properties{
	Confirms: transport.Kept, Boundaries: []int64{1 << 20}, UnknownSize: true, Names: true, Metadata: true, IDs: true, Digests: true,
	Rejections: true, Aborts: true, Concurrency: 16, Messages: 64 << 10, BothWays: true, TellsClose: true, Live: true, Resume: true,
}

func TestPipe(t *testing.T) {
	t.Run("virtual time", func(t *testing.T) {
		p := pipeProperties
		p.Bubble = true
		TestTransport(t, makePipes(nil), p)
	})
	t.Run("real time", func(t *testing.T) { TestTransport(t, makePipes(nil), pipeProperties) })
}

// One that claims less must pass too.
func TestPipeWithFewClaims(t *testing.T) {
	TestTransport(t, makePipes(nil), Properties{Confirms: transport.Kept, Messages: 1, Resume: true, SingleUse: true, Bubble: true})
}
