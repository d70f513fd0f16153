package tcpx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// serveFunc takes what the peer of an accepted connection sends, until its orderly
// end (nil) or a failure.
type serveFunc func(ctx context.Context, r *deviceReader, in *transport.Inbox) error

// deviceListener accepts connections for a device protocol.
type deviceListener struct {
	net.Listener
	accepted chan acceptedConn
	closed   chan struct{}
	stop     sync.Once
	stopped  chan struct{} // the goroutine that accepts has ended
	conn     func(net.Conn) transport.Conn
}

type acceptedConn struct {
	conn net.Conn
	err  error
}

// listenDevice listens on addr, unless there is a listener already. Each Conn takes
// with serve.
func listenDevice(ctx context.Context, l net.Listener, addr string, info transport.Info, wait waits, serve serveFunc) (transport.Listener, error) {
	err := ctx.Err()
	if err == nil && l == nil {
		l, err = listenTCP(ctx, addr)
	}
	if err != nil {
		return nil, listenError(err)
	}
	if wait.quiet == 0 { // no text's end is told by a pause
		wait.quiet = wait.timeout
	}
	d := &deviceListener{Listener: l, accepted: make(chan acceptedConn), closed: make(chan struct{}), stopped: make(chan struct{})}
	d.conn = func(conn net.Conn) transport.Conn {
		info := info
		info.Peer = conn.RemoteAddr().String()
		s := &deviceServer{info: info, reader: newDeviceReader(conn, wait), serve: serve}
		s.life, s.end = context.WithCancel(context.Background())
		return s
	}
	go d.run()
	return d, nil
}

func (l *deviceListener) run() {
	defer close(l.stopped)
	for {
		conn, err := l.Listener.Accept()
		select {
		case l.accepted <- acceptedConn{conn, err}:
		case <-l.closed:
			if err == nil {
				conn.Close()
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// Accept implements transport.Listener.
func (l *deviceListener) Accept(ctx context.Context) (transport.Conn, error) {
	err := ctx.Err()
	if err == nil {
		select {
		case <-l.stopped: // by Close, or because the net.Listener was closed elsewhere
			err = transport.ErrClosed
		case <-ctx.Done():
			err = ctx.Err()
		case a := <-l.accepted:
			if a.err == nil {
				return l.conn(a.conn), nil
			}
			err = a.err
		}
	}
	return nil, &transport.Error{Op: "accept", Err: err}
}

// Close implements transport.Listener.
func (l *deviceListener) Close() error {
	var err error
	l.stop.Do(func() {
		close(l.closed)
		err = l.Listener.Close()
	})
	<-l.stopped
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// deviceServer is an accepted connection.
type deviceServer struct {
	transport.UnimplementedConn
	info   transport.Info
	reader *deviceReader
	serve  serveFunc
	served atomic.Bool
	life   context.Context // ends with Close
	end    context.CancelFunc
}

func (s *deviceServer) Info() transport.Info { return s.info }

// Serve implements transport.Conn.
func (s *deviceServer) Serve(ctx context.Context, in *transport.Inbox) error {
	err := transport.ErrServed
	if !s.served.Swap(true) {
		serving, cancel := context.WithCancel(ctx) // also of the wait for a Handler
		stop := context.AfterFunc(s.life, cancel)
		err = s.serve(serving, s.reader, in)
		stop()
		cancel()
		s.reader.Close()
	}
	switch {
	case err == nil:
		return nil
	case s.life.Err() != nil:
		err = transport.ErrClosed
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	return &transport.Error{Op: "serve", Err: err}
}

// Close implements transport.Conn.
func (s *deviceServer) Close() error {
	s.end()
	s.reader.Close()
	return nil
}

// newNames refuses a pattern that is a path: no such name is taken from anybody.
func newNames(pattern string) (*namePattern, error) {
	if strings.ContainsAny(pattern, `/\`) {
		return nil, fmt.Errorf("%w: Name is %q: set it to the name of a file, and DirStore.Dir or Path to where that is to be", transport.ErrConfig, pattern)
	}
	return &namePattern{pattern: pattern}, nil
}

// namePattern makes names for images that come without one.
type namePattern struct {
	pattern string
	count   atomic.Uint64
}

// next returns the next name, or "" for what the Inbox makes of ID and content.
func (p *namePattern) next() string {
	n := strconv.FormatUint(p.count.Add(1), 10)
	return strings.NewReplacer("{n}", n, "{time}", time.Now().Format("20060102-150405.000")).Replace(p.pattern)
}
