package face

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/pixferry/pixferry/transport"
)

const (
	connectTime = 10 * time.Second
	replyTime   = 10 * time.Second // of the broker, to a subscription
	writeTime   = 10 * time.Second // a message that takes longer ends the connection
	closeTime   = 250 * time.Millisecond

	// A client reconnects after firstPause to mostPause, doubled from try to try and with
	// jitter, instead of paho's own pause, which cannot be ended.
	firstPause = 250 * time.Millisecond
	mostPause  = 5 * time.Second
	pahoPause  = 10 * time.Millisecond
)

// A client is an MQTT client that subscribes whenever it is connected.
type client struct {
	broker     string // for people
	filters    map[string]byte
	client     mqtt.Client
	log        *slog.Logger
	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	once       sync.Once
	token      *mqtt.ConnectToken // set when connecting is closed
	connecting chan struct{}
	tries      int // to reconnect, since the last connection; paho's reconnecting goroutine has it

	mu    sync.Mutex
	lives int           // connections so far
	up    chan struct{} // closed while the client is connected and subscribed
	isUp  bool
	err   error // of the first connection; final
	dead  chan struct{}
}

// connect returns a client that is connected and subscribed. deliver gets what is
// published to the filters, in order; it must not block.
func (t *Transport) connect(ctx context.Context, filters []string, deliver func(mqtt.Message)) (*client, error) {
	o := mqtt.NewClientOptions()
	if t.ClientOptions != nil {
		*o = *t.ClientOptions
	}
	if t.Broker != "" {
		u, err := brokerURL(t.Broker)
		if err != nil {
			return nil, err
		}
		o.Servers = []*url.URL{u}
	}
	if len(o.Servers) == 0 {
		return nil, final(`face.Transport: set Broker, for example to "mqtt://localhost:1883"`)
	}
	c := &client{
		broker: o.Servers[0].Scheme + "://" + o.Servers[0].Host, filters: make(map[string]byte, len(filters)),
		up: make(chan struct{}), dead: make(chan struct{}), connecting: make(chan struct{}),
	}
	c.log = t.logger().With("broker", c.broker)
	for _, f := range filters {
		c.filters[f] = 1
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	o.ClientID = cmp.Or(t.ClientID, o.ClientID, "face-"+rand.Text()[:18]) // 3.1.1 brokers need take no more than 23 bytes
	o.SetCleanSession(t.ClientID == "").SetOrderMatters(true).SetAutoAckDisabled(true)
	o.SetConnectRetry(false).SetAutoReconnect(true).SetMaxReconnectInterval(pahoPause)
	if o.ProtocolVersion == 0 {
		o.SetProtocolVersion(4) // else it tries 3.1 after each failure
	}
	o.ConnectTimeout = min(o.ConnectTimeout, connectTime)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, writeTime)
	// What a session has waiting comes before a subscription could have a handler.
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { deliver(m) })
	o.OnConnect = func(mqtt.Client) { c.connected() }
	o.OnConnectionLost = func(_ mqtt.Client, err error) { c.lost(err) }
	o.OnReconnecting = func(mqtt.Client, *mqtt.ClientOptions) { c.pause() }
	if o.CustomOpenConnectionFn == nil {
		o.CustomOpenConnectionFn = c.open
	}
	c.client = mqtt.NewClient(o)
	c.token = c.client.Connect().(*mqtt.ConnectToken)
	close(c.connecting)
	go func() {
		if <-c.token.Done(); c.token.Error() != nil {
			c.fail(connectError(c.broker, c.token.Error()))
		}
	}()
	if err := c.wait(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// brokerURL reads the URL of a broker and completes it.
func brokerURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, final("the broker's URL: %v", err)
	}
	port := map[string]string{"mqtt": "1883", "tcp": "1883", "mqtts": "8883", "tls": "8883", "ssl": "8883", "ws": "80", "wss": "443"}[u.Scheme]
	switch {
	case port == "":
		return nil, final("the broker %s: its URL begins with mqtt://, mqtts://, ws:// or wss://", u.Redacted())
	case u.Hostname() == "":
		return nil, final("the broker %s: its URL has no host", u.Redacted())
	case u.Port() == "":
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

// open connects to the broker. Unlike paho's own it can be ended.
func (c *client) open(u *url.URL, o mqtt.ClientOptions) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx, o.ConnectTimeout)
	defer cancel()
	dialer := cmp.Or(o.Dialer, &net.Dialer{})
	var conn net.Conn
	var err error
	switch u.Scheme {
	case "ws", "wss":
		bare := *u
		bare.User = nil
		conn, err = mqtt.NewWebsocket(bare.String(), o.TLSConfig, o.ConnectTimeout, o.HTTPHeaders, o.WebsocketOptions)
	case "mqtts", "tls", "ssl":
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: o.TLSConfig}).DialContext(ctx, "tcp", u.Host)
	default:
		conn, err = dialer.DialContext(ctx, "tcp", u.Host)
	}
	if err != nil {
		return nil, err
	}
	return &boundConn{conn, context.AfterFunc(c.ctx, func() { conn.Close() })}, nil
}

// boundConn is a connection that ends with a context.
type boundConn struct {
	net.Conn
	stop func() bool
}

func (c *boundConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// connected subscribes. It runs on a goroutine of its own.
func (c *client) connected() {
	c.mu.Lock()
	c.down()
	c.lives++
	life := c.lives
	c.mu.Unlock()
	for !c.begin(life) {
		select {
		case <-time.After(mostPause):
		case <-c.ctx.Done():
			return
		}
	}
}

// begin subscribes, and reports whether there is nothing more to do about it.
func (c *client) begin(life int) bool {
	err := c.subscribe()
	usable := err == nil || life == 1 && c.resumed()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.lives != life: // it is another connection's turn
		return true
	case usable && !c.isUp:
		c.log.Info("connected to the broker")
		c.isUp = true
		close(c.up)
	case err != nil && life == 1 && !usable:
		c.failLocked(err)
		return true
	}
	if err != nil {
		c.log.Error("cannot subscribe at the moment", "err", err)
	}
	return err == nil
}

// resumed reports whether the broker has kept the session, and the subscriptions in it.
// Some (mochi) take the packet IDs of the messages in it for the client's own, and refuse
// to subscribe until the messages are dealt with.
func (c *client) resumed() bool {
	<-c.connecting
	<-c.token.Done()
	return c.token.SessionPresent()
}

func (c *client) subscribe() error {
	token := c.client.SubscribeMultiple(c.filters, nil).(*mqtt.SubscribeToken)
	timer := time.NewTimer(replyTime)
	defer timer.Stop()
	select {
	case <-token.Done():
	case <-c.ctx.Done():
		return transport.ErrClosed
	case <-timer.C:
		return fmt.Errorf("no answer from the broker %s for %v", c.broker, replyTime)
	}
	if err := token.Error(); err != nil && len(token.Result()) == 0 {
		return fmt.Errorf("cannot subscribe at the broker %s: %w", c.broker, err)
	}
	for topic, code := range token.Result() {
		if code > 2 {
			return final("the broker %s does not let this client subscribe to %s: allow it", c.broker, topic)
		}
	}
	return nil
}

// A finalError is one that trying again does not help against, which transport.Retryable
// knows by the RejectedError that errors.As finds in it.
type finalError string

func final(format string, a ...any) error { return finalError(fmt.Sprintf(format, a...)) }

func (e finalError) Error() string { return string(e) }

func (e finalError) As(target any) bool {
	r, ok := target.(**transport.RejectedError)
	if ok {
		*r = &transport.RejectedError{Reason: transport.ReasonOther, Text: string(e)}
	}
	return ok
}

// connectError says what to do about a failure to connect.
func connectError(broker string, err error) error {
	for _, cause := range []error{
		packets.ErrorRefusedBadProtocolVersion, packets.ErrorRefusedIDRejected, packets.ErrorRefusedBadUsernameOrPassword, packets.ErrorRefusedNotAuthorised,
	} {
		if errors.Is(err, cause) {
			return final("the broker %s refuses this client (%v): check user, password, client ID and what it allows them", broker, cause)
		}
	}
	return fmt.Errorf("cannot connect to the broker %s: %w", broker, err)
}

// down notes that the client is not connected.
func (c *client) down() {
	if c.isUp {
		c.isUp, c.up = false, make(chan struct{})
	}
}

func (c *client) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client.IsConnectionOpen() {
		return // it is told late
	}
	c.down()
	c.lives++
	c.tries = 0
	c.log.Warn("the connection to the broker was lost", "err", err)
}

// pause waits before the client tries to reconnect.
func (c *client) pause() {
	c.mu.Lock()
	most := min(firstPause<<min(c.tries, 10), mostPause)
	c.tries++
	c.mu.Unlock()
	timer := time.NewTimer(most/2 + mathrand.N(most/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ctx.Done():
	}
}

func (c *client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

func (c *client) failLocked(err error) {
	if c.err == nil {
		c.err = err
		close(c.dead)
	}
}

// wait waits until the client is connected and subscribed.
func (c *client) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	up, err := c.up, c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-up:
		return nil
	case <-c.dead:
		return c.err
	case <-c.ctx.Done():
		return transport.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publish waits until the client is connected, and then until the message is written
// (QoS 0) or the broker has it (QoS 1). A message whose context has ended may be on its
// way already.
func (c *client) publish(ctx context.Context, topic string, qos byte, payload []byte) error {
	if err := c.wait(ctx); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		token := c.client.Publish(topic, qos, false, payload)
		select {
		case <-token.Done():
			done <- token.Error()
		case <-c.ctx.Done():
		}
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("publish at the broker %s: %w", c.broker, err)
		}
		return nil
	case <-c.ctx.Done():
		return transport.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close disconnects the client for good.
func (c *client) close() {
	c.once.Do(func() {
		c.fail(transport.ErrClosed)
		if c.client.IsConnectionOpen() {
			c.client.Disconnect(uint(closeTime.Milliseconds()))
		}
		c.cancel()
		c.client.Disconnect(0)
	})
}
