package udpx

import (
	"errors"
	"net"
	"sync"

	"github.com/pixferry/pixferry/internal/session"
)

// listener takes the peers that begin sessions on a socket.
type listener struct {
	*session.Backlog
	socket   *socket
	endpoint *session.Endpoint
	over     chan struct{} // closed when Close is done

	mu     sync.Mutex // held while a session begins
	closed bool       // no more sessions begin
	ended  bool       // Close was called
}

func (s *socket) listen(endpoint *session.Endpoint) (*listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil: // since it was started
		return nil, s.err
	case s.listener != nil:
		return nil, errors.New("udpx.Transport: there is a Listener on this Conn already")
	}
	s.listener = &listener{socket: s, endpoint: endpoint, Backlog: session.NewBacklog(), over: make(chan struct{})}
	return s.listener, nil
}

// begin starts the session whose first message is msg.
func (l *listener) begin(from net.Addr, first firstID, msg []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if ok, err := l.socket.hold(); !ok || err != nil {
		return
	}
	c := l.socket.newCarrier(from, first)
	c.early = len(msg)
	if _, err := l.endpoint.Accept(c, msg, l.Ready); err != nil {
		l.socket.release()
	}
}

// Addr implements transport.Listener.
func (l *listener) Addr() net.Addr { return l.socket.conn.LocalAddr() }

// fail ends Accept because the socket has failed.
func (l *listener) fail(err error) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	go l.Fail(err)
}

// Close implements transport.Listener. Peers that nobody has accepted are told so.
func (l *listener) Close() error {
	l.mu.Lock()
	ended := l.ended
	l.closed, l.ended = true, true
	l.mu.Unlock()
	if ended {
		<-l.over
		return nil
	}
	defer close(l.over)
	l.socket.unlisten()
	l.Backlog.Close()
	if l.socket.release() {
		<-l.socket.done
	}
	return nil
}
