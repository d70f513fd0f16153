package mqttx

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/transport"
)

// listener takes the sessions that peers begin.
type listener struct {
	*session.Backlog
	h       *Hub
	closing sync.Once
}

// listen opens the hub's listener. It takes over the caller's reference.
func (h *Hub) listen(ctx context.Context) (transport.Listener, error) {
	l := &listener{h: h, Backlog: session.NewBacklog()}
	err := h.join(ctx)
	if err == nil {
		err = h.setListener(l)
	}
	if err != nil {
		h.release()
		return nil, listenError(err)
	}
	return l, nil
}

func (h *Hub) setListener(l *listener) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.err != nil:
		return h.err
	case h.listener != nil:
		return errors.New("this name listens already: close that Listener first")
	}
	h.listener = l
	return nil
}

// Addr implements transport.Listener. It is a URL, the broker's with the name as path.
func (l *listener) Addr() net.Addr { return addr(l.h.broker + "/" + encodeName(l.h.name)) }

// Close implements transport.Listener.
func (l *listener) Close() error {
	l.closing.Do(func() {
		l.h.mu.Lock()
		l.h.listener = nil
		l.h.mu.Unlock()
		l.Backlog.Close()
		l.h.release()
	})
	return nil
}

// accepting returns the hub's listener, nil if there is none, with a reference to the
// hub for a session of it.
func (h *Hub) accepting() *listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listener != nil && h.err == nil {
		h.refs++
		return h.listener
	}
	return nil
}

// addr is a URL.
type addr string

func (addr) Network() string  { return "mqtt" }
func (a addr) String() string { return string(a) }
