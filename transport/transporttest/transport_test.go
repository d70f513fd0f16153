package transporttest

import (
	"cmp"
	"context"
	"errors"
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

// modest is a Conn as device protocols have them: an image is sent, without a
// name, and nobody answers. One that is given up half-way costs the Conn.
func modest(c transport.Conn) transport.Conn {
	l := &liar{Conn: c, message: transport.UnimplementedConn{}.SendMessage}
	l.info = func(i *transport.Info) {
		i.Confirms, i.Concurrency, i.MaxImage, i.Messages, i.Resumes = transport.Sent, 1, 100_000, false, false
	}
	var turn sync.Mutex
	l.send = func(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
		turn.Lock()
		defer turn.Unlock()
		var all transport.SendOptions
		if o != nil {
			all = *o
		}
		id := cmp.Or(all.ID, transport.NewID())
		fail := func(err error) (transport.Receipt, error) {
			return transport.Receipt{}, &transport.Error{Op: "send", ID: id, Err: err}
		}
		if all.Require > transport.Sent {
			return fail(transport.ErrUnconfirmed)
		}
		b, err := img.Body.Open(ctx)
		if err != nil {
			return fail(err)
		}
		size := b.Size
		b.Close()
		if size > 100_000 {
			return fail(&transport.TooLargeError{What: "image", Size: size, Max: 100_000})
		}
		_, err = c.Send(ctx, &transport.Image{Body: img.Body}, nil)
		if refusal := (*transport.RejectedError)(nil); err != nil && !errors.As(err, &refusal) {
			if !errors.Is(err, net.ErrClosed) && ctx.Err() == nil {
				c.Close()
			}
			return fail(err)
		}
		return transport.Receipt{ID: id, Level: transport.Sent, Bytes: size}, nil
	}
	return l
}

func TestModestTransport(t *testing.T) {
	TestTransport(t, makePipes(modest), Properties{Confirms: transport.Sent, MaxSize: 100_000, Boundaries: []int64{1024}, Bubble: true})
}
