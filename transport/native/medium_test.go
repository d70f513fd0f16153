package native_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memLink is one end of a link in memory. Writes block when the peer does not read.
type memLink struct {
	info    native.LinkInfo
	pace    time.Duration // that each message takes
	in, out chan []byte
	closed  chan struct{} // this end
	peer    chan struct{} // the other
	once    sync.Once
}

// memLinks returns both ends of a link that holds depth messages each way.
func memLinks(info native.LinkInfo, depth int) (a, b *memLink) {
	x, y := make(chan []byte, depth), make(chan []byte, depth)
	a = &memLink{info: info, in: x, out: y, closed: make(chan struct{}), peer: make(chan struct{})}
	b = &memLink{info: info, in: y, out: x, closed: a.peer, peer: a.closed}
	return a, b
}

// plugged opens the links that come, one after the other.
func plugged(links <-chan native.Link) func(context.Context) (native.Link, error) {
	return func(ctx context.Context) (native.Link, error) {
		select {
		case l := <-links:
			return l, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (l *memLink) Info() native.LinkInfo { return l.info }

func (l *memLink) ReadMessage(buf []byte) (int, error) {
	select {
	case <-l.closed:
		return 0, net.ErrClosed
	default:
	}
	select {
	case m := <-l.in:
		return copy(buf, m), nil
	default:
	}
	select {
	case m := <-l.in:
		return copy(buf, m), nil
	case <-l.closed:
		return 0, net.ErrClosed
	case <-l.peer:
		select { // what was written before is still there
		case m := <-l.in:
			return copy(buf, m), nil
		default:
			return 0, io.EOF
		}
	}
}

func (l *memLink) WriteMessage(msg []byte) error {
	if len(msg) > l.info.MaxMessage {
		return &transport.TooLargeError{What: "message", Size: int64(len(msg)), Max: int64(l.info.MaxMessage)}
	}
	select {
	case <-l.closed:
		return net.ErrClosed
	case <-l.peer:
		return io.ErrClosedPipe
	default:
	}
	if l.pace > 0 {
		time.Sleep(l.pace)
	}
	select {
	case l.out <- append([]byte(nil), msg...):
		return nil
	case <-l.closed:
		return net.ErrClosed
	case <-l.peer:
		return io.ErrClosedPipe
	}
}

func (l *memLink) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// medium is where memLinks are dialled and accepted. Wrap, if not nil, puts
// something around both ends of each.
type medium struct {
	info   native.LinkInfo
	depth  int
	pace   time.Duration
	wrap   func(native.Link) native.Link
	pair   func() (a, b native.Link) // nil: of memLinks
	links  chan native.Link
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	ends  []*memLink // of the dialling side
	fails error      // what Dial returns meanwhile
}

func newMedium(info native.LinkInfo) *medium {
	return &medium{info: info, depth: 64, links: make(chan native.Link), closed: make(chan struct{})}
}

func (m *medium) dial(ctx context.Context) (native.Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails != nil {
		return nil, m.fails
	}
	a, b := memLinks(m.info, m.depth)
	a.pace, b.pace = m.pace, m.pace
	var near, far native.Link = a, b
	if m.pair != nil {
		near, far = m.pair()
	}
	if m.wrap != nil {
		near, far = m.wrap(a), m.wrap(b)
	}
	select {
	case m.links <- far:
		m.ends = append(m.ends, a)
		return near, nil
	case <-m.closed:
		return nil, io.ErrClosedPipe
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// away has dialling fail with err from now on.
func (m *medium) away(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fails = err
}

// cut does too, and ends all links.
func (m *medium) cut(err error) {
	m.away(err)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.ends {
		l.Close()
	}
	m.ends = nil
}

func (m *medium) listen(context.Context) (native.LinkListener, error) { return m, nil }

func (m *medium) Accept(ctx context.Context) (native.Link, error) {
	select {
	case l := <-m.links:
		return l, nil
	case <-m.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type memAddr struct{}

func (memAddr) Network() string { return "mem" }
func (memAddr) String() string  { return "mem" }

func (m *medium) Addr() net.Addr { return memAddr{} }

func (m *medium) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}
