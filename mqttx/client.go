package mqttx

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/transport"
)

const (
	connectTime = 10 * time.Second
	writeTime   = 10 * time.Second // a message that takes longer ends the connection

	// A client reconnects after firstPause to mostPause, doubled from try to try and
	// with jitter, so that the clients of a broker that was restarted do not all come
	// at once.
	firstPause = 250 * time.Millisecond
	mostPause  = 5 * time.Second

	// pahoPause replaces paho's pause, which knows no jitter and cannot be ended.
	pahoPause = 10 * time.Millisecond
)

// options returns what a client of the Transport's is made with.
func (t *Transport) options(name string) (*mqtt.ClientOptions, error) {
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
		return nil, fmt.Errorf("%w: set mqttx.Transport.Broker: "+exampleBroker, transport.ErrConfig)
	}
	o.ClientID = cmp.Or(o.ClientID, encodeName(name))
	o.Username, o.Password = cmp.Or(t.Username, o.Username), cmp.Or(t.Password, o.Password)
	if t.TLS != nil {
		o.TLSConfig = t.TLS
	}
	o.SetCleanSession(true).SetOrderMatters(true).SetConnectRetry(false).SetAutoReconnect(true).SetMaxReconnectInterval(pahoPause)
	if o.ProtocolVersion == 0 {
		o.SetProtocolVersion(4) // else it tries 3.1 after each failure
	}
	o.ConnectTimeout = min(o.ConnectTimeout, connectTime)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, writeTime)
	return o, nil
}

const exampleBroker = "write for example mqtt://127.0.0.1:1883"

// brokerURL reads the URL of a broker and completes it.
func brokerURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%w: the broker's URL: %w: "+exampleBroker, transport.ErrConfig, err)
	}
	port := ""
	switch u.Scheme {
	case "mqtt", "tcp":
		port = "1883"
	case "mqtts", "tls", "ssl":
		port = "8883"
	case "ws", "wss":
	default:
		return nil, fmt.Errorf("%w: the broker %s: its URL begins with mqtt://, mqtts://, ws:// or wss://: "+exampleBroker, transport.ErrConfig, u.Redacted())
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("%w: the broker %s: its URL has no host: "+exampleBroker, transport.ErrConfig, u.Redacted())
	}
	if u.Port() == "" && port != "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

// ownClient is the client of a Transport's hub. It lives as long as the hub.
type ownClient struct {
	opener
	h      *Hub
	client mqtt.Client
	cancel context.CancelFunc
	gone   chan struct{} // closed when it is disconnected for good
	tries  int           // to reconnect, since the last connection that lasted
}

func newOwnClient(h *Hub, o *mqtt.ClientOptions) *ownClient {
	c := &ownClient{h: h, gone: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	users := o.OnReconnecting
	o.OnReconnecting = func(client mqtt.Client, o *mqtt.ClientOptions) {
		c.pause()
		if users != nil {
			users(client, o)
		}
	}
	inbox := inboxTopic(h.name, "")
	c.owner = laneOwner{
		mine: func(topic []byte) bool { return len(topic) > len(inbox) && string(topic[:len(inbox)]) == inbox },
		take: h.sessions.take,
	}
	c.set(o)
	h.chain(o)
	c.client = mqtt.NewClient(o)
	return c
}

// connect begins to connect. A failure is the hub's.
func (c *ownClient) connect() {
	token := c.client.Connect()
	go func() {
		<-token.Done()
		if err := token.Error(); err != nil {
			c.h.fail(connectError(c.h.broker, err))
		}
	}()
}

// pause waits before the client tries to reconnect.
func (c *ownClient) pause() {
	if c.h.lasted() {
		c.tries = 0
	}
	most := min(firstPause<<min(c.tries, 10), mostPause)
	c.tries++
	timer := time.NewTimer(most/2 + rand.N(most/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ctx.Done():
	}
}

// An opener opens the connections of a client, and has what its owner takes pass it by.
type opener struct {
	ctx     context.Context // ends with the client
	timeout time.Duration   // of a write
	owner   laneOwner
	lane    atomic.Pointer[lane] // the last one
}

// set has the client that is made of o connect by it.
func (d *opener) set(o *mqtt.ClientOptions) {
	d.timeout = o.WriteTimeout
	users := o.CustomOpenConnectionFn
	o.CustomOpenConnectionFn = func(u *url.URL, o mqtt.ClientOptions) (net.Conn, error) {
		l, err := (*lane)(nil), error(nil)
		if users == nil {
			l, err = d.open(u, &o)
		} else if conn, failed := users(u, o); failed == nil {
			l = d.over(conn, conn)
		} else {
			err = failed
		}
		if err != nil {
			return nil, err
		}
		d.lane.Store(l)
		return l, nil
	}
}

func (d *opener) over(conn, raw net.Conn) *lane {
	return newLane(d.ctx, conn, raw, d.timeout, &d.owner)
}

// open connects to the broker. Unlike paho's own it can be ended.
func (d *opener) open(u *url.URL, o *mqtt.ClientOptions) (*lane, error) {
	ctx, cancel := context.WithTimeout(d.ctx, o.ConnectTimeout)
	defer cancel()
	if u.Scheme == "ws" || u.Scheme == "wss" {
		bare := *u
		bare.User = nil
		conn, err := mqtt.NewWebsocket(bare.String(), o.TLSConfig, o.ConnectTimeout, o.HTTPHeaders, o.WebsocketOptions)
		if err != nil {
			return nil, err
		}
		return d.over(conn, conn), nil
	}
	raw, err := cmp.Or(o.Dialer, &net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "mqtt" || u.Scheme == "tcp" {
		l := d.over(quick(raw), raw)
		l.to = raw
		return l, nil
	}
	config := o.TLSConfig.Clone()
	if config == nil {
		config = &tls.Config{}
	}
	if config.ServerName == "" {
		config.ServerName = u.Hostname()
	}
	secure := tls.Client(quick(raw), config)
	if err := secure.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return d.over(secure, raw), nil
}

func (c *ownClient) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// end disconnects the client for good.
func (c *ownClient) end() {
	if c.client.IsConnectionOpen() {
		c.client.Disconnect(uint(flushTime.Milliseconds()))
	}
	c.cancel()
	c.client.Disconnect(0)
	close(c.gone)
}
