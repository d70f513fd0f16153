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

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

const (
	// joinTime is how long Dial and Listen wait for the client to be connected.
	joinTime = 10 * time.Second

	// replyTime is how long the broker may take to answer a subscription.
	replyTime = 10 * time.Second

	// shortLife is how long a connection lives at most that another client with the
	// same ID ends, and maxShort how many of these in a row prove that there is one.
	shortLife = 5 * time.Second
	maxShort  = 3

	// What may be on its way to all sessions of a hub together, in bytes and messages:
	// they share a queue in the broker, which drops what does not fit (mosquitto: 1,000
	// messages).
	window   = 4 << 20
	messages = 512
)

// HubOptions are the options of Attach; nil means all defaults.
type HubOptions struct {
	// Name is what peers call this program; the client ID if empty. Brokers that
	// check who writes want them to be the same.
	Name string
	// MaxMessage is the largest MQTT payload, in bytes, for a broker that takes less
	// than 16 KiB or makes larger ones dear; 0, and at most: 120 KiB, because the
	// client's other traffic waits behind each message.
	MaxMessage int
	// Config holds the protocol's options.
	Config native.Config
}

// A Hub carries sessions with any number of peers on one MQTT client, with one
// subscription. As a Transport it listens; Peer is for dialling. It is safe for
// concurrent use.
type Hub struct {
	name     string
	broker   string     // for people
	own      *ownClient // nil: the client is the user's
	endpoint *session.Endpoint
	log      *slog.Logger
	sizes    *sizes
	pump     *pump
	sessions sessions
	presence presence
	named    bool // by the user
	ending   sync.Once
	dead     chan struct{} // closed with err

	mu       sync.Mutex
	client   mqtt.Client
	up       chan struct{} // closed while the client is connected and subscribed
	isUp     bool
	since    time.Time // when the client was connected; zero while it is not
	lives    int       // connections so far
	short    int       // short connections in a row
	why      error     // the last failure to connect
	err      error     // final
	refs     int       // carriers, listeners and calls of Dial
	listener *listener
}

func newHub(name string, broker *url.URL, shared bool, maxMessage int, ep *session.Endpoint, log *slog.Logger) *Hub {
	h := &Hub{
		name: name, broker: broker.Scheme + "://" + broker.Host,
		endpoint: ep, sizes: newSizes(maxMessage, shared),
		up: make(chan struct{}), dead: make(chan struct{}),
	}
	h.log = log.With("broker", h.broker, "name", name)
	h.pump = newPump(h.sizes)
	h.sessions.init(h)
	h.presence.init(h)
	return h
}

// Attach makes a Hub on the client that the caller then makes of opts and connects. Call
// it last, before mqtt.NewClient: it puts itself before the handlers OnConnect,
// OnConnectionLost, OnReconnecting and OnConnectionNotification, and sets a will if
// there is none. It subscribes to pf/i/{name}/+ whenever the client is connected, and
// touches no other topic, handler or subscription.
func Attach(opts *mqtt.ClientOptions, o *HubOptions) (*Hub, error) {
	if o == nil {
		o = &HubOptions{}
	}
	name := o.Name
	if name == "" {
		name = opts.ClientID
	}
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("mqttx.Attach: %w: set HubOptions.Name or the client's ID", err)
	}
	if len(opts.Servers) == 0 {
		return nil, errors.New("mqttx.Attach: add a broker to the client's options first")
	}
	h := newHub(name, opts.Servers[0], true, o.MaxMessage, newEndpoint(o.Config), logger(o.Config))
	h.named = true
	h.chain(opts)
	return h, nil
}

// newEndpoint returns what the sessions of a hub share.
func newEndpoint(cfg native.Config) *session.Endpoint {
	return session.NewEndpoint(session.Config{
		Idle: cfg.IdleTimeout, Window: cmp.Or(cfg.Window, window), Messages: messages, Transfers: cfg.MaxTransfers, Digest: cfg.Digest, Logger: cfg.Logger,
	})
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
		opts.SetBinaryWill(presenceTopic(h.name), gonePayload, 1, true)
	}
}

// connected subscribes anew. It runs on a goroutine of its own.
func (h *Hub) connected(c mqtt.Client) {
	h.down() // the user may have disconnected, which nobody is told
	h.mu.Lock()
	h.client, h.since, h.why = c, time.Now(), nil
	h.lives++
	life := h.lives
	h.mu.Unlock()

	if h.named {
		h.presence.claim(c) // first, so that we do not answer for another
	}
	err := h.subscribe(c, inboxFilter(h.name), h.sessions.receive)
	if err != nil {
		if final(err) {
			h.fail(err)
		}
		return // the connection was lost again
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lives != life || h.since.IsZero() || h.err != nil {
		return
	}
	h.isUp = true
	close(h.up)
	h.pump.connected(c)
}

// subscribe returns when the broker has agreed.
func (h *Hub) subscribe(c mqtt.Client, filter string, handler mqtt.MessageHandler) error {
	token := c.Subscribe(filter, 0, handler).(*mqtt.SubscribeToken)
	if !h.pause(token.Done(), replyTime) {
		return fmt.Errorf("no answer from the broker %s for %v", h.broker, replyTime)
	}
	if token.Error() != nil {
		return token.Error()
	}
	for _, code := range token.Result() {
		if code > 2 {
			return &refusal{h.broker, fmt.Sprintf("does not let %q subscribe to %s: allow it (see the documentation of package mqttx)", h.name, filter), nil}
		}
	}
	return nil
}

// pause waits for an event, for the hub's failure or for a time, and reports whether the
// event came.
func (h *Hub) pause(event <-chan struct{}, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-event:
		return true
	case <-h.dead:
	case <-timer.C:
	}
	return false
}

// wait waits for a token, which may never be completed.
func wait(token mqtt.Token, most time.Duration) { token.WaitTimeout(most) }

// down notes that the client is not connected, and returns for how long it was; 0: that
// is known.
func (h *Hub) down() (life time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() {
		return 0
	}
	life = max(time.Since(h.since), 1)
	h.since = time.Time{}
	if h.isUp {
		h.isUp, h.up = false, make(chan struct{})
	}
	h.pump.connected(nil)
	return life
}

// lost notes that the connection has ended.
func (h *Hub) lost() {
	life := h.down()
	if life == 0 {
		return
	}
	h.log.Info("the connection to the broker was lost", "after", life)
	limited := h.sizes.lost(time.Now())
	if limited {
		h.sessions.limit(h.sizes.largest())
	}
	h.mu.Lock()
	h.short++
	if life >= shortLife || limited {
		h.short = 0
	}
	taken := h.short >= maxShort
	h.mu.Unlock()
	if taken {
		h.fail(fmt.Errorf("the broker %s has ended %d connections in a row at once: %w", h.broker, maxShort, transport.ErrClientIDTaken))
	}
}

// failed notes why the client cannot connect.
func (h *Hub) failed(err error) {
	if err = connectError(h.broker, err); final(err) && h.own != nil {
		h.fail(err)
		return
	}
	h.mu.Lock()
	h.why = err
	h.mu.Unlock()
}

// fail ends everything for good.
func (h *Hub) fail(err error) {
	h.mu.Lock()
	if h.err != nil {
		h.mu.Unlock()
		return
	}
	h.err = err
	close(h.dead)
	l := h.listener
	h.mu.Unlock()
	h.log.Warn("the hub has failed", "err", err)
	h.pump.connected(nil)
	if l != nil {
		l.fail(err)
	}
	h.sessions.fail(err)
	go h.end()
}

// end gives back what the hub has of the broker's, and its own client.
func (h *Hub) end() {
	h.ending.Do(func() {
		h.mu.Lock()
		client := h.client
		h.mu.Unlock()
		if client != nil && client.IsConnectionOpen() {
			h.pump.flush()
			h.sessions.answered()
			if h.own == nil {
				wait(client.Unsubscribe(inboxFilter(h.name)), flushTime)
			}
			h.presence.withdraw(client)
		}
		if h.own != nil {
			h.own.end()
		}
	})
}

// Err returns why the hub can do no more, nil while it can.
func (h *Hub) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// lasted reports whether the last connection was not a short one.
func (h *Hub) lasted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.short == 0
}

// connectedSince returns when the client was connected, zero if it is not.
func (h *Hub) connectedSince() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.isUp {
		return time.Time{}
	}
	return h.since
}

// hold takes a reference. It returns false if the hub has failed, or its own client
// is not needed any more.
func (h *Hub) hold() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return false
	}
	h.refs++
	return true
}

// release gives a reference up. With the last one a client of the hub's own is
// disconnected.
func (h *Hub) release() {
	h.mu.Lock()
	h.refs--
	last := h.refs == 0 && h.own != nil
	if last && h.err == nil {
		h.err = transport.ErrClosed
		close(h.dead)
	}
	h.mu.Unlock()
	if last {
		h.end()
	}
}

// join waits until the client is connected and subscribed.
func (h *Hub) join(ctx context.Context) error {
	timer := time.NewTimer(joinTime)
	defer timer.Stop()
	for {
		h.mu.Lock()
		up, isUp, err, why := h.up, h.isUp, h.err, h.why
		h.mu.Unlock()
		if err != nil || isUp {
			return err
		}
		select {
		case <-up:
		case <-h.dead:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), why)
		case <-timer.C:
			return errors.Join(fmt.Errorf("no MQTT connection to %s: call the client's Connect, and set no handlers in its options after mqttx.Attach", h.broker), why)
		}
	}
}

// Dial implements transport.Transport by an error: say whom with Peer.
func (h *Hub) Dial(context.Context) (transport.Conn, error) {
	return nil, dialError(errors.New(`a Hub has many peers: say whom to dial, hub.Peer("name").Dial(ctx)`))
}

// Listen takes peers that dial this hub's name. One Listener may be open at a time.
func (h *Hub) Listen(ctx context.Context) (transport.Listener, error) {
	if !h.hold() {
		return nil, listenError(h.Err())
	}
	return h.listen(ctx)
}

// Peer returns the Transport that dials one peer. It costs nothing.
func (h *Hub) Peer(name string) *Peer { return &Peer{h, name} }

// A Peer is one that a Hub can dial.
type Peer struct {
	hub  *Hub
	name string
}

// Dial joins the peer. It waits at most 10 seconds for the client to be connected, and
// 3 seconds for the peer: then the error matches transport.ErrNoReceiver.
func (p *Peer) Dial(ctx context.Context) (transport.Conn, error) {
	conn, err := p.hub.endpoint.Dial(ctx, func(ctx context.Context) (session.Carrier, error) {
		if !p.hub.hold() {
			return nil, p.hub.Err()
		}
		return p.hub.dial(ctx, p.name)
	})
	if err != nil {
		return nil, dialError(err)
	}
	return conn, nil
}

// Listen implements transport.Transport by the hub's Listen.
func (p *Peer) Listen(ctx context.Context) (transport.Listener, error) { return p.hub.Listen(ctx) }

// dial returns a carrier for a new session with a peer. It takes over the caller's
// reference.
func (h *Hub) dial(ctx context.Context, peer string) (session.Carrier, error) {
	err := errors.Join(checkName(peer), checkTopic(peer, h.name))
	if err != nil {
		err = &transport.RejectedError{Reason: transport.ReasonName, Text: err.Error()}
	} else {
		err = h.join(ctx)
	}
	if err != nil {
		h.release()
		return nil, err
	}
	return h.newCarrier(peer, nil), nil
}

// Close ends what is still open, and takes the hub's subscriptions back. The client stays
// connected and is the caller's.
func (h *Hub) Close() error {
	h.fail(transport.ErrClosed)
	h.sessions.wait()
	h.end()
	return nil
}

func dialError(err error) error   { return &transport.Error{Op: "dial", Err: err} }
func listenError(err error) error { return &transport.Error{Op: "listen", Err: err} }
