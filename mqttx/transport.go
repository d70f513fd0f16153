package mqttx

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// A Transport is an endpoint of the native protocol on an MQTT broker. It has a client of its
// own, which is connected while a Conn or the Listener needs it. Set the fields before the first
// use. It is safe for concurrent use.
type Transport struct {
	// Broker is the broker's URL: mqtt:// (or tcp://), mqtts:// (or tls://, ssl://), ws:// or
	// wss://. The default port is 1883, or 8883 for mqtts.
	Broker string
	// Name is what peers call this endpoint, and the client ID unless ClientOptions has one.
	// Listen needs one; empty means a random one, which is enough to dial. If two endpoints take
	// one name the later one fails; if both begin at once, or the broker's rules hide one from
	// the other, at least one fails.
	Name string
	// Peer is the name of the endpoint that Dial joins.
	Peer string
	// Username and Password are for the broker, if it wants them.
	Username, Password string
	// TLS configures mqtts and wss; nil: the system's roots. Its GetClientCertificate is asked for
	// each connection, so that a certificate can be renewed without a restart.
	TLS *tls.Config
	// MaxMessage is the largest MQTT payload in bytes, for a broker that takes less than 16 KiB
	// or for which larger ones are expensive. 0: as much as the broker is found to take, up to a
	// little over 256 KiB, beyond which nothing is gained.
	MaxMessage int
	// ClientOptions holds other options for the client; nil: the defaults. It is copied. The
	// fields above replace its own, except for a client ID. Order of handlers, session and pace
	// of reconnecting are set by the Transport.
	ClientOptions *mqtt.ClientOptions
	// AnswerTimeout is how long a peer that is dialled may take for its first answer: more for one
	// behind a slow modem. 0: 3 s, negative: Config.IdleTimeout. Then it is transport.ErrNoReceiver.
	AnswerTimeout time.Duration
	// Config holds the protocol's settings.
	Config native.Config

	once     sync.Once
	endpoint *session.Endpoint
	sizes    *sizes // what is known about the broker

	mu  sync.Mutex
	hub *Hub // the last one
}

// Dial joins Peer. If that does not answer within AnswerTimeout the error matches
// transport.ErrNoReceiver. All Conns and the Listener share one client.
func (t *Transport) Dial(ctx context.Context) (transport.Conn, error) {
	if t.Peer == "" {
		return nil, dialError(fmt.Errorf("%w: set mqttx.Transport.Peer to the receiver's name", transport.ErrConfig))
	}
	if err := t.check(); err != nil {
		return nil, dialError(err)
	}
	var last atomic.Pointer[Hub]
	conn, err := t.endpoint.Dial(ctx, func(ctx context.Context) (session.Carrier, error) {
		if h := last.Load(); h != nil { // to redial
			if err := h.failure(); err != nil && !errors.Is(err, transport.ErrClosed) && !transport.Retryable(err) {
				return nil, err
			}
		}
		h, err := t.open(ctx)
		if err != nil {
			return nil, err
		}
		last.Store(h)
		return h.dial(ctx, t.Peer)
	})
	if err != nil {
		return nil, dialError(err)
	}
	h := last.Load()
	if !h.hold() {
		conn.Close()
		return nil, dialError(h.failure())
	}
	return &ownConn{Conn: conn, h: h}, nil
}

// ownConn keeps the client connected until it is closed: a client that comes back at
// once with the same ID is confused with the one before by some brokers (mochi).
type ownConn struct {
	*session.Conn
	h    *Hub
	once sync.Once
}

func (c *ownConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.h.release)
	return err
}

// Listen accepts peers that dial Name. The Listener's address is a URL that ends with it.
func (t *Transport) Listen(ctx context.Context) (transport.Listener, error) {
	if t.Name == "" {
		return nil, listenError(fmt.Errorf("%w: set mqttx.Transport.Name to what peers call this receiver", transport.ErrConfig))
	}
	if err := t.check(); err != nil {
		return nil, listenError(err)
	}
	h, err := t.open(ctx)
	if err != nil {
		return nil, listenError(err)
	}
	return h.listen(ctx)
}

// check makes the endpoint, and says what is wrong with the settings.
func (t *Transport) check() error {
	t.once.Do(func() { t.endpoint, t.sizes = newEndpoint(t.Config), newSizes(t.MaxMessage, false) })
	return errors.Join(checkSize(t.MaxMessage), t.endpoint.Check())
}

// open returns a hub with a reference for the caller. It need not be connected yet.
func (t *Transport) open(ctx context.Context) (*Hub, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for asked := t.Name == ""; ; {
		var err error
		switch {
		case t.hub != nil && t.hub.hold():
			return t.hub, nil
		case t.hub != nil && !t.hub.own.isGone(): // two clients with one ID must not meet
			gone := t.hub.own.gone
			t.mu.Unlock()
			select {
			case <-gone:
			case <-ctx.Done():
			}
			t.mu.Lock()
			err = ctx.Err()
		case !asked:
			asked = true
			t.mu.Unlock()
			err = t.rival(ctx)
			t.mu.Lock()
		default:
			t.hub, err = t.connect()
		}
		if err != nil {
			return nil, err
		}
	}
}

// connect makes a hub whose client begins to connect.
func (t *Transport) connect() (*Hub, error) {
	name := cmp.Or(t.Name, randomName())
	if err := checkName(name); err != nil {
		return nil, &transport.RejectedError{Reason: transport.ReasonName, Text: err.Error()}
	}
	opts, err := t.options(name)
	if err != nil {
		return nil, err
	}
	h := newHub(name, opts.Servers[0], t.sizes, t.endpoint, logger(t.Config))
	h.answer = cmp.Or(t.AnswerTimeout, answerTime)
	h.named = t.Name != ""
	h.own = newOwnClient(h, opts)
	h.own.call = t.witness
	if h.named {
		h.own.rival = t.rival
	}
	h.sole = !h.named && opts.ClientID == encodeName(name)
	h.own.connect()
	return h, nil
}
