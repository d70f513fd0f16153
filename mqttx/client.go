package mqttx

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
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

	readAhead = 16 << 10 // bytes

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
	h      *Hub
	client mqtt.Client
	ctx    context.Context // ends with the client
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
	if o.CustomOpenConnectionFn == nil {
		o.CustomOpenConnectionFn = c.open
	}
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

// open connects to the broker. Unlike paho's own it can be ended.
func (c *ownClient) open(u *url.URL, o mqtt.ClientOptions) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx, o.ConnectTimeout)
	defer cancel()
	if u.Scheme == "ws" || u.Scheme == "wss" {
		bare := *u
		bare.User = nil
		conn, err := mqtt.NewWebsocket(bare.String(), o.TLSConfig, o.ConnectTimeout, o.HTTPHeaders, o.WebsocketOptions)
		if err != nil {
			return nil, err
		}
		return c.bind(conn, conn), nil
	}
	raw, err := cmp.Or(o.Dialer, &net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	conn := quick(raw)
	if u.Scheme != "mqtt" && u.Scheme != "tcp" {
		config := o.TLSConfig.Clone()
		if config == nil {
			config = &tls.Config{}
		}
		if config.ServerName == "" {
			config.ServerName = u.Hostname()
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		conn = secure
	}
	return c.bind(conn, raw), nil
}

// bind has a connection end with the client, and read in larger pieces than paho, which
// asks for headers byte by byte.
func (c *ownClient) bind(conn, raw net.Conn) net.Conn {
	return &boundConn{conn, bufio.NewReaderSize(conn, readAhead), context.AfterFunc(c.ctx, func() { raw.Close() })}
}

type boundConn struct {
	net.Conn
	r    *bufio.Reader
	stop func() bool
}

func (c *boundConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *boundConn) Close() error {
	c.stop()
	return c.Conn.Close()
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
