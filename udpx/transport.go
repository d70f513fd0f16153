package udpx

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/pixferry/pixferry/internal/parity"
	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// A Transport is an endpoint of the native protocol over UDP. The zero value listens on any free
// port; to dial, set Addr. Set the fields before the first use. It is safe for concurrent use.
type Transport struct {
	// Addr is the peer's "host:port" to dial, or the local one to listen on; there empty means
	// ":0".
	Addr string
	// Conn, if set, is a socket that Listen and all Dials share, instead of one each. Any
	// net.PacketConn will do; a *net.UDPConn is driven in batches. The caller closes it, after
	// all Conns and the Listener. Nobody else may read from it meanwhile, and its read deadline
	// belongs to the Transport.
	Conn net.PacketConn
	// Config holds the protocol's settings.
	Config native.Config
	// MaxDatagram is the largest datagram for which the path is probed, in bytes of UDP payload:
	// at least 1,200, with which every session begins. 0: 1,472, which fills an Ethernet frame.
	MaxDatagram int
	// MaxPeers is how many sessions a socket may have at once, in both directions; 0: 65,536. A
	// peer that would begin another is refused (transport.ReasonBusy, retryable).
	MaxPeers int

	once     sync.Once
	endpoint *session.Endpoint
	log      *slog.Logger

	mu     sync.Mutex
	shared *socket // on Conn; nil before its first use
}

// Dial joins the peer at Addr, on a socket of its own unless Conn is set. It fails with
// transport.ErrNoReceiver: at once if the peer's host says that nobody listens, which only a
// socket of its own hears, and none on Windows, else after Config.IdleTimeout.
func (t *Transport) Dial(ctx context.Context) (transport.Conn, error) {
	if err := checkPeer("udpx.Transport", t.Addr); err != nil {
		return nil, dialError(err)
	}
	if t.Conn == nil {
		return t.dial(ctx, t.Addr, t.dialOwn)
	}
	return t.dial(ctx, t.Addr, func(ctx context.Context) (session.Carrier, error) {
		peer, err := resolve(ctx, t.Addr)
		if err != nil {
			return nil, err
		}
		return t.dialShared(ctx, peer)
	})
}

// DialAddr joins a peer from the socket Conn, which must be set. Addr is not used.
func (t *Transport) DialAddr(ctx context.Context, peer net.Addr) (transport.Conn, error) {
	if t.Conn == nil {
		return nil, dialError(fmt.Errorf("%w: DialAddr needs a socket in udpx.Transport.Conn", transport.ErrConfig))
	}
	return t.dial(ctx, peer.String(), func(ctx context.Context) (session.Carrier, error) { return t.dialShared(ctx, peer) })
}

func (t *Transport) dial(ctx context.Context, addr string, join func(context.Context) (session.Carrier, error)) (transport.Conn, error) {
	if err := t.check(); err != nil {
		return nil, dialError(err)
	}
	began := time.Now()
	c, err := t.endpoint.Dial(ctx, join)
	if err != nil {
		return nil, dialError(session.Unanswered(err, "udp", addr, began))
	}
	return c, nil
}

// checkPeer says what is wrong with the Addr of a side that dials.
func checkPeer(what, addr string) error {
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" || !isPort(port) {
		return fmt.Errorf("%w: the Addr of %s is %q: set it to the peer's host:port, for example 192.168.1.7:9999", transport.ErrConfig, what, addr)
	}
	return nil
}

// checkLocal says what is wrong with the Addr of a side that listens.
func checkLocal(what, addr string) error {
	if _, port, err := net.SplitHostPort(addr); addr != "" && (err != nil || !isPort(port)) {
		return fmt.Errorf("%w: the Addr of %s is %q: set it to the host:port to listen on, for example :9999", transport.ErrConfig, what, addr)
	}
	return nil
}

// isPort reports whether a port is a number or the name of one.
func isPort(port string) bool {
	_, err := net.LookupPort("udp", port)
	return err == nil
}

func dialError(err error) error { return &transport.Error{Op: "dial", Err: err} }

// dialOwn makes a carrier on a socket of its own, connected to Addr so that the
// kernel tells when nobody listens there.
func (t *Transport) dialOwn(ctx context.Context) (session.Carrier, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", t.Addr)
	if err != nil {
		return nil, err
	}
	s := t.newSocket(conn.(*net.UDPConn), true)
	return s.newCarrier(conn.RemoteAddr(), firstID{}), nil
}

func (t *Transport) dialShared(ctx context.Context, peer net.Addr) (session.Carrier, error) {
	s, err := t.share(ctx)
	if err != nil {
		return nil, err
	}
	return s.newCarrier(peer, firstID{}), nil
}

// Listen accepts peers at Addr, or on Conn, where one Listener may be open at a time.
func (t *Transport) Listen(ctx context.Context) (transport.Listener, error) {
	if err := t.check(); err != nil {
		return nil, &transport.Error{Op: "listen", Err: err}
	}
	s, err := t.listenSocket(ctx)
	if err == nil {
		var l *listener
		if l, err = s.listen(t.endpoint); err == nil {
			return l, nil
		}
		s.release()
	}
	return nil, &transport.Error{Op: "listen", Err: err}
}

func (t *Transport) listenSocket(ctx context.Context) (*socket, error) {
	if t.Conn != nil {
		return t.share(ctx)
	}
	if err := checkLocal("udpx.Transport", t.Addr); err != nil {
		return nil, err
	}
	var c net.ListenConfig
	conn, err := c.ListenPacket(ctx, "udp", t.Addr)
	if err != nil {
		return nil, err
	}
	return t.newSocket(conn, true), nil
}

// check makes the endpoint, and says what is wrong with the settings.
func (t *Transport) check() error {
	t.once.Do(func() {
		t.log = cmp.Or(t.Config.Logger, slog.New(slog.DiscardHandler))
		t.endpoint = session.NewEndpoint(session.Config{Settings: session.Settings(t.Config), Coder: &parity.Coder{}})
	})
	switch {
	case t.MaxDatagram != 0 && t.MaxDatagram < wire.InitialMessage:
		return fmt.Errorf("%w: MaxDatagram is %d: set it to %d or more, or to 0 for %d", transport.ErrConfig, t.MaxDatagram, wire.InitialMessage, defaultDatagram)
	case t.MaxPeers < 0:
		return fmt.Errorf("%w: MaxPeers is %d: set it to a number of sessions, or to 0 for %d", transport.ErrConfig, t.MaxPeers, defaultSessions)
	}
	return t.endpoint.Check()
}

// share returns the socket on Conn with a reference for the caller.
func (t *Transport) share(ctx context.Context) (*socket, error) {
	for {
		t.mu.Lock()
		if t.shared == nil {
			t.shared = t.newSocket(t.Conn, false)
			t.mu.Unlock()
			return t.shared, nil
		}
		s := t.shared
		t.mu.Unlock()
		ok, err := s.hold()
		if err != nil {
			return nil, fmt.Errorf("the socket in udpx.Transport.Conn has failed: %w", err)
		}
		if ok {
			return s, nil
		}
		// Its last user has left it: two must not read at once.
		select {
		case <-s.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		t.mu.Lock()
		if t.shared == s {
			t.shared = nil
		}
		t.mu.Unlock()
	}
}

// newSocket starts a socket with one reference for the caller.
func (t *Transport) newSocket(conn net.PacketConn, owned bool) *socket {
	return startSocket(udpsock.New(conn, t.log), owned, t.sizes(), cmp.Or(t.MaxPeers, defaultSessions))
}

// resolve finds the address of a peer for a socket that is not connected.
func resolve(ctx context.Context, addr string) (net.Addr, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, err
	}
	return &net.UDPAddr{IP: ips[0].IP, Port: port, Zone: ips[0].Zone}, nil
}
