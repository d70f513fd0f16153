package mqttx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/mqttclient"
	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

const (
	// What may be on its way to all sessions of a hub together, in bytes and messages:
	// they share a queue in the broker, which drops what does not fit (mosquitto: 1,000
	// messages).
	window         = 4 << 20
	windowMessages = 512
)

// HubOptions are the options of [Attach]; nil means all defaults.
type HubOptions struct {
	// Name is what peers call this program; empty: the client ID. A broker that checks who writes
	// wants the client ID to be the name as it is written in topics.
	Name string
	// MaxMessage is the largest MQTT payload in bytes, for a broker that takes less than 16 KiB
	// or for which larger ones are expensive. 0, and at most: 120 KiB, because the client's other
	// traffic waits behind each message.
	MaxMessage int
	// AnswerTimeout is how long a peer that is dialled may take for its first answer: more for one
	// behind a slow modem. 0: 3 s, negative: Config.IdleTimeout. Then it is transport.ErrNoReceiver.
	AnswerTimeout time.Duration
	// Config holds the protocol's settings.
	Config native.Config
}

// answerTime is how long a peer may take to answer the first message.
const answerTime = 3 * time.Second

// A Hub carries sessions with any number of peers on one MQTT client of yours; [Attach] makes
// one. As a Transport it only listens; to dial use Peer. It is safe for concurrent use.
type Hub struct {
	name     string
	broker   string     // for people
	own      *ownClient // nil: the client is the user's
	endpoint *session.Endpoint
	log      *slog.Logger
	answer   time.Duration // that a peer has for the first one; negative: as long as the session lasts
	sizes    *sizes
	pump     *pump
	sessions sessions
	presence presence
	named    bool // by the user
	sole     bool // nobody else can have its client ID, which is random
	ending   sync.Once
	dead     chan struct{} // closed with err

	mu       sync.Mutex
	client   mqtt.Client
	up       chan struct{} // closed while the client is connected and subscribed
	isUp     bool
	worked   bool      // it was up
	since    time.Time // when the client was connected; zero while it is not
	lives    int       // connections so far
	short    int       // short connections in a row
	why      error     // the last failure to connect
	err      error     // final
	refs     int       // carriers, listeners and calls of Dial
	listener *listener
}

func newHub(name string, broker *url.URL, z *sizes, ep *session.Endpoint, log *slog.Logger) *Hub {
	h := &Hub{
		name: name, broker: mqttclient.Name(broker),
		endpoint: ep, sizes: z,
		up: make(chan struct{}), dead: make(chan struct{}),
	}
	h.log = log.With("broker", h.broker, "name", name)
	h.pump = newPump(h.sizes)
	h.sessions.init(h)
	h.presence.init(h)
	return h
}

// Attach makes a Hub on the client that the caller then makes of opts and connects. Call it last
// before mqtt.NewClient: it wraps the handlers OnConnect, OnConnectionLost, OnReconnecting and
// OnConnectionNotification, which are still called, and sets a will if there is none. Whenever
// the client is connected the Hub subscribes to pf/i/{name}/+ and pf/p/{name}. It touches no
// other topic, handler or subscription.
func Attach(opts *mqtt.ClientOptions, o *HubOptions) (*Hub, error) {
	if o == nil {
		o = &HubOptions{}
	}
	if opts == nil {
		return nil, fmt.Errorf("%w: mqttx.Attach needs the options that the client is made of", transport.ErrConfig)
	}
	name := cmp.Or(o.Name, opts.ClientID)
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("%w: mqttx.Attach: %w: set HubOptions.Name or the client's ID", transport.ErrConfig, err)
	}
	if len(opts.Servers) == 0 {
		return nil, fmt.Errorf("%w: mqttx.Attach: add a broker to the client's options first", transport.ErrConfig)
	}
	h := newHub(name, opts.Servers[0], newSizes(o.MaxMessage, true), newEndpoint(o.Config), logger(o.Config))
	if err := errors.Join(checkSize(o.MaxMessage), h.endpoint.Check()); err != nil {
		return nil, fmt.Errorf("mqttx.Attach: %w", err)
	}
	h.named, h.answer = true, cmp.Or(o.AnswerTimeout, answerTime)
	h.chain(opts)
	return h, nil
}

// newEndpoint returns what the sessions of a hub share.
func newEndpoint(cfg native.Config) *session.Endpoint {
	cfg.Window = cmp.Or(cfg.Window, window)
	return session.NewEndpoint(session.Config{Settings: session.Settings(cfg), Messages: windowMessages})
}

func logger(cfg native.Config) *slog.Logger {
	return cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
}

// chain has the client tell the hub what happens to its connection, before it tells the
// user's handlers.
func (h *Hub) chain(opts *mqtt.ClientOptions) {
	connected, lost, reconnecting, notify := opts.OnConnect, opts.OnConnectionLost, opts.OnReconnecting, opts.OnConnectionNotification
	opts.OnConnect = func(c mqtt.Client) {
		go h.connected(c)
		if connected != nil {
			connected(c)
		}
	}
	opts.OnConnectionLost = func(c mqtt.Client, err error) {
		if !c.IsConnectionOpen() { // else it is told late
			h.lost()
		}
		if h.failure() == nil {
			h.log.Info("the connection to the broker was lost", "err", err)
		}
		if lost != nil {
			lost(c, err)
		}
	}
	opts.OnReconnecting = func(c mqtt.Client, o *mqtt.ClientOptions) {
		h.lost()
		if reconnecting != nil {
			reconnecting(c, o)
		}
	}
	opts.OnConnectionNotification = func(c mqtt.Client, n mqtt.ConnectionNotification) {
		if failed, ok := n.(mqtt.ConnectionNotificationFailed); ok {
			h.failed(failed.Reason)
		}
		if notify != nil {
			notify(c, n)
		}
	}
	if h.named && !opts.WillEnabled {
		opts.SetBinaryWill(presenceTopic(h.name), gonePayload, 0, true)
	}
}

// Dial implements transport.Transport, and fails: use Peer to say whom to dial.
func (h *Hub) Dial(context.Context) (transport.Conn, error) {
	return nil, dialError(fmt.Errorf(`%w: a Hub has many peers: say whom to dial, hub.Peer("name").Dial(ctx)`, transport.ErrConfig))
}

// Listen accepts peers that dial this Hub's name. One Listener may be open at a time.
func (h *Hub) Listen(ctx context.Context) (transport.Listener, error) {
	if !h.hold() {
		return nil, listenError(h.failure())
	}
	return h.listen(ctx)
}

// Peer returns the Transport that dials the peer with this name. It does no I/O.
func (h *Hub) Peer(name string) *Peer { return &Peer{h, name} }

// A Peer is a Transport that dials one peer of a Hub.
type Peer struct {
	hub  *Hub
	name string
}

// Dial joins the peer. It waits at most 10 seconds for the client to be connected and
// HubOptions.AnswerTimeout for the peer, and then fails; without the peer's answer the error matches
// transport.ErrNoReceiver.
func (p *Peer) Dial(ctx context.Context) (transport.Conn, error) {
	conn, err := p.hub.endpoint.Dial(ctx, func(ctx context.Context) (session.Carrier, error) {
		if !p.hub.hold() {
			return nil, p.hub.failure()
		}
		return p.hub.dial(ctx, p.name)
	})
	if err != nil {
		return nil, dialError(err)
	}
	return conn, nil
}

// Listen is the Hub's Listen.
func (p *Peer) Listen(ctx context.Context) (transport.Listener, error) { return p.hub.Listen(ctx) }

// dial returns a carrier for a new session with a peer. It takes over the caller's
// reference.
func (h *Hub) dial(ctx context.Context, peer string) (session.Carrier, error) {
	err := errors.Join(checkName(peer), checkTopic(peer, h.name))
	switch {
	case err != nil:
		err = &transport.RejectedError{Reason: transport.ReasonName, Text: err.Error()}
	case peer == h.name:
		err = fmt.Errorf("%w: %q is this endpoint's own name: dial another", transport.ErrConfig, peer)
	default:
		err = h.join(ctx)
	}
	if err != nil {
		h.release()
		return nil, err
	}
	return h.newCarrier(peer, nil), nil
}

// Close ends all Conns and the Listener, and unsubscribes. The client stays connected and belongs
// to the caller.
func (h *Hub) Close() error {
	h.fail(transport.ErrClosed)
	h.sessions.wait()
	h.end()
	return nil
}

func dialError(err error) error   { return &transport.Error{Op: "dial", Err: err} }
func listenError(err error) error { return &transport.Error{Op: "listen", Err: err} }
func serveError(err error) error  { return &transport.Error{Op: "serve", Err: err} }
