package tcpx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pixferry/pixferry/internal/sleep"
	"github.com/pixferry/pixferry/transport"
)

// What the device protocols over TCP ([Begin], [Command], [Frames]) have in common.

const (
	// deviceTimeout is how long a peer that is to answer, or is in the middle of
	// something, may be silent by default.
	deviceTimeout = 30 * time.Second
	// deviceIdle is how long a peer may think, by default, before it begins.
	deviceIdle = 10 * time.Minute
	// devicePiece is the size of a write of an image's bytes: some of the devices
	// take no more at once.
	devicePiece = 1024
	// deviceText is the size of the longest text.
	deviceText = 1024
)

// limit returns the time that an option means: 0 is the default, and a negative
// one no limit, which comes out as 0.
func limit(option, fallback time.Duration) time.Duration {
	if option == 0 {
		return fallback
	}
	return max(option, 0)
}

// A dialFunc opens connections as net.Dialer.DialContext does.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// deviceLink is a connection whose waits end with a time and with a context.
type deviceLink struct {
	net.Conn
	socket  syscall.RawConn // nil: none that is known
	timeout time.Duration   // 0: no limit
	pause   time.Duration   // behind the last text
	due     time.Time       // when it was to be over
	late    bool            // not all had arrived by then, or since
	ready   time.Time       // when the next one may go
}

// joinDevice dials.
func joinDevice(ctx context.Context, dial dialFunc, addr string, timeout time.Duration) (*deviceLink, error) {
	if dial == nil {
		dial = dialTCP
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errSilent(timeout))
		defer cancel()
	}
	conn, err := dial(ctx, "tcp", addr)
	if secured, ok := conn.(*tls.Conn); ok && err == nil { // else the first write begins the handshake, and waits for an answer without end
		if err = secured.HandshakeContext(ctx); err != nil {
			conn.Close()
		}
	}
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, transport.ErrIdle) {
		err = fmt.Errorf("%s cannot be reached: %w", addr, cause)
	}
	if err != nil {
		return nil, unreached(ctx, addr, err)
	}
	return newDeviceLink(conn, timeout), nil
}

func newDeviceLink(conn net.Conn, timeout time.Duration) *deviceLink {
	return &deviceLink{Conn: conn, socket: setOptions(conn), timeout: timeout}
}

func errSilent(after time.Duration) error {
	return fmt.Errorf("nothing for %v: %w", after, transport.ErrIdle)
}

// past is a deadline that frees whoever is blocked.
var past = time.Unix(1, 0)

// bounded runs one read or write, with its deadline setter, for at most wait (0:
// no limit) and until ctx ends.
func bounded(ctx context.Context, wait time.Duration, set func(time.Time) error, do func() (int, error)) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	deadline := time.Time{}
	if wait > 0 {
		deadline = time.Now().Add(wait)
	}
	_ = set(deadline) // if the connection has ended, do says how
	freed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = set(past); close(freed) })
	n, err := do()
	if !stop() {
		<-freed // or it would free whoever comes next
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if err = ctx.Err(); err == nil {
			err = errSilent(wait)
		}
	}
	return n, err
}

// read reads. A device with little memory and Nagle's algorithm sends nothing more until that is acknowledged.
func (l *deviceLink) read(ctx context.Context, p []byte, wait time.Duration) (int, error) {
	n, err := bounded(ctx, wait, l.SetReadDeadline, func() (int, error) { return l.Read(p) })
	if n > 0 && l.socket != nil {
		ackNow(l.socket)
	}
	return n, err
}

func (l *deviceLink) write(ctx context.Context, p []byte) error {
	_, err := bounded(ctx, l.timeout, l.SetWriteDeadline, func() (int, error) { return l.Write(p) })
	return err
}

// settle waits until the next bytes may go. A text that was lost on its way arrives later, and the pause with it: else both
// would arrive joined. For one that does not arrive a call waits no longer than the timeout, and those behind it with it.
func (l *deviceLink) settle(ctx context.Context) error {
	for {
		if err := sleep.For(ctx, time.Until(l.ready)); err != nil || l.pause == 0 {
			return err
		}
		n, ended := l.unacknowledged()
		switch {
		case ended || n == 0 && !l.late:
			return nil
		case n > 0 && l.timeout > 0 && time.Since(l.due) > l.timeout:
			return fmt.Errorf("%v does not take a text: %w", l.RemoteAddr(), errSilent(l.timeout))
		}
		l.late = n > 0
		l.ready = time.Now().Add(l.pause)
	}
}

// settleOr is settle, and drops a connection that is of no use any more: one whose call has ended is left for the next.
func (l *deviceLink) settleOr(ctx context.Context, drop func()) error {
	err := l.settle(ctx)
	if err != nil && ctx.Err() == nil {
		drop()
	}
	return err
}

// unacknowledged is that of the socket, if it is known.
func (l *deviceLink) unacknowledged() (n int, ended bool) {
	if l.socket == nil {
		return 0, false
	}
	return unacknowledged(l.socket)
}

// arrive waits until the peer's system has all that was written, which can take a small device long. It may be silent for the
// timeout.
func (l *deviceLink) arrive(ctx context.Context) error {
	last, at := 0, time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		n, ended := l.unacknowledged()
		switch now := time.Now(); {
		case n == 0:
			return nil
		case ended:
			return fmt.Errorf("the connection to %v has ended with %d bytes on their way", l.RemoteAddr(), n)
		case n != last:
			last, at = n, now
		case l.timeout > 0 && now.Sub(at) > l.timeout:
			return fmt.Errorf("%v does not take the last %d bytes: %w", l.RemoteAddr(), n, errSilent(l.timeout))
		}
		if err := sleep.For(ctx, wait); err != nil {
			return err
		}
	}
}

// say writes a text, and keeps what follows apart from it by a pause: the programs
// in the field take what one receive returns for one text.
func (l *deviceLink) say(ctx context.Context, text string, pause time.Duration) error {
	if err := l.settle(ctx); err != nil {
		return err
	}
	if err := l.write(ctx, []byte(text)); err != nil {
		return err
	}
	l.pause, l.due = pause, time.Now().Add(pause)
	l.ready = l.due
	return nil
}

// reset ends the connection in such a way that the peer gets an error: after an
// orderly close it would take the part of an image that it has for all of it.
func (l *deviceLink) reset() {
	conn := l.Conn
	if secured, ok := conn.(interface{ NetConn() net.Conn }); ok { // whose Close would be orderly
		conn = secured.NetConn()
	}
	if c, ok := conn.(interface{ SetLinger(int) error }); ok {
		c.SetLinger(0)
	}
	conn.Close()
}

// endStream says in good order that no more follows.
func (l *deviceLink) endStream() error {
	if c, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

func dialError(err error) error   { return &transport.Error{Op: "dial", Err: err} }
func listenError(err error) error { return &transport.Error{Op: "listen", Err: err} }

// deviceConn is what the dialling Conns share: one Send or SendMessage at a time
// has the turn, and with it the connection, if there is one. Nothing is dialled
// before there is something to send, and after a failure the next call dials again.
type deviceConn struct {
	transport.UnimplementedConn
	info   transport.Info
	sender transport.Sender
	turn   chan struct{} // capacity 1: full while somebody has the turn
	closed atomic.Bool
	life   context.Context
	end    context.CancelFunc
	shut   func() // ends the connection in good order; called with the turn
}

func newDeviceConn(info transport.Info, shut func()) deviceConn {
	life, end := context.WithCancel(context.Background())
	return deviceConn{info: info, turn: make(chan struct{}, 1), life: life, end: end, shut: shut}
}

func (c *deviceConn) Info() transport.Info { return c.info }

// take waits for the turn.
func (c *deviceConn) take(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := ctx.Err()
	if c.closed.Load() {
		err = transport.ErrClosed
	}
	if err != nil {
		c.release()
	}
	return err
}

// release gives the turn back. After Close, whoever has it ends the connection.
func (c *deviceConn) release() {
	if c.closed.Load() {
		c.shut()
	}
	<-c.turn
}

// Close implements transport.Conn.
func (c *deviceConn) Close() error {
	c.closed.Store(true)
	c.end()
	c.sender.Close(transport.ErrClosed)
	select { // else a source that does not heed its context has it, and release does the rest
	case c.turn <- struct{}{}:
		c.release()
	case <-time.After(drainTime):
	}
	return nil
}
