package tcpx

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// A Transport carries the native protocol over TCP or TLS. Only Addr is needed. It is safe for
// concurrent use; do not change or copy it after its first use.
type Transport struct {
	// Addr is the "host:port" to dial, or to listen on if Listener is nil. Empty means any free
	// port to listen on.
	Addr string
	// TLS makes it TLS; nil is plain TCP. To dial, an empty ServerName means the host of Addr. To
	// listen, it needs a certificate. The peer's transport.Info.Peer is then the name in its
	// verified certificate: the CommonName, else the first URI or DNS name. A listener verifies
	// certificates with ClientAuth: tls.RequireAndVerifyClientCert. Its functions, such as
	// GetCertificate and GetClientCertificate, are asked for each connection, also for one in
	// place of one that was lost: with them certificates are renewed without a restart.
	TLS *tls.Config
	// DialContext replaces net.Dialer's, for proxies and other networks than TCP.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Listener replaces net.Listen. The transport.Listener owns and closes it. One that accepts
	// only so many connections bounds what strangers can claim: up to 270 KB each while a message
	// arrives, and all file descriptors of the process, of which a DirStore needs three for each
	// image on its way.
	Listener net.Listener
	// Config holds the protocol's settings.
	Config native.Config

	init sync.Once
	over transport.Transport
}

var _ transport.Transport = (*Transport)(nil)

func (t *Transport) native() transport.Transport {
	t.init.Do(func() { t.over = native.Over(t.dial, t.listen, t.Config) })
	return t.over
}

// Dial implements transport.Transport. It fails with transport.ErrNoReceiver: at once if the port
// is closed, and after Config.IdleTimeout if the host does not answer, or takes the connection and
// says nothing, in TLS or after it. The context may end it sooner.
func (t *Transport) Dial(ctx context.Context) (transport.Conn, error) { return t.native().Dial(ctx) }

// Listen implements transport.Transport.
func (t *Transport) Listen(ctx context.Context) (transport.Listener, error) {
	return t.native().Listen(ctx)
}

// dial connects within the idle time, which is the Transport's and so no end of the caller's context.
func (t *Transport) dial(ctx context.Context) (native.Link, error) {
	most, cancel := context.WithTimeout(ctx, t.idle())
	defer cancel()
	l, err := t.connect(most)
	if err != nil {
		return nil, unreached(ctx, t.Addr, err)
	}
	return l, nil
}

func (t *Transport) connect(ctx context.Context) (native.Link, error) {
	dial := t.DialContext
	if dial == nil {
		dial = dialTCP
	}
	conn, err := dial(ctx, "tcp", t.Addr)
	if err != nil {
		return nil, err
	}
	if t.TLS == nil {
		return newLink(conn, t.idle()), nil
	}
	cfg := t.TLS
	if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		cfg = cfg.Clone()
		if cfg.ServerName, _, err = net.SplitHostPort(t.Addr); err != nil {
			conn.Close()
			return nil, err
		}
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, tlsError(t.Addr, err)
	}
	return newLink(secured, t.idle()), nil
}

// dialTCP is the default of DialContext.
func dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" || !isPort(port) {
		return nil, fmt.Errorf("%w: Addr is %q: set it to the peer's host:port, for example 192.168.1.7:9999", transport.ErrConfig, addr)
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// unreached says so of an error of connect, and leaves others as they are. A limit that is not ctx's, as a net.Dialer has one
// for each of several addresses, is no end of the caller's context.
func unreached(ctx context.Context, addr string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("nothing answers at tcp %s: %w (%s)", addr, transport.ErrNoReceiver, err.Error())
	}
	op, call := (*net.OpError)(nil), (*os.SyscallError)(nil)
	if errors.As(err, &op) && op.Op == "dial" && (op.Timeout() || errors.As(op.Err, &call) && strings.HasPrefix(call.Syscall, "connect")) {
		return fmt.Errorf("nothing listens at tcp %s: %w (%w)", addr, transport.ErrNoReceiver, err)
	}
	return err
}

// listenTCP is what replaces a Listener that is not set.
func listenTCP(ctx context.Context, addr string) (net.Listener, error) {
	if _, port, err := net.SplitHostPort(addr); addr != "" && (err != nil || !isPort(port)) {
		return nil, fmt.Errorf("%w: Addr is %q: set it to the host:port to listen on, for example :9999", transport.ErrConfig, addr)
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", addr)
}

// isPort reports whether a port is a number or the name of one.
func isPort(port string) bool {
	_, err := net.LookupPort("tcp", port)
	return err == nil
}

// idle is how long the peer may be silent within a message, and while it is dialled: as long
// as the session lets it.
func (t *Transport) idle() time.Duration { return cmp.Or(t.Config.IdleTimeout, 30*time.Second) }

func (t *Transport) listen(ctx context.Context) (native.LinkListener, error) {
	if c := t.TLS; c != nil && len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		return nil, fmt.Errorf("%w: TLS has no certificate to listen with: set its Certificates or GetCertificate", transport.ErrConfig)
	}
	l := t.Listener
	if l == nil {
		var err error
		if l, err = listenTCP(ctx, t.Addr); err != nil {
			return nil, err
		}
	}
	return &listener{Listener: l, t: t}, nil
}

// listener accepts connections. A TLS handshake runs with the first read.
type listener struct {
	net.Listener
	t *Transport
}

// Accept waits for the next connection; it ends with Close, not with ctx.
func (l *listener) Accept(context.Context) (native.Link, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if l.t.TLS != nil {
		conn = tls.Server(conn, l.t.TLS)
	}
	link := newLink(conn, l.t.idle())
	link.accepted = true
	return link, nil
}

// Close implements native.LinkListener.
func (l *listener) Close() error {
	if err := l.Listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
