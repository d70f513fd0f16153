// Package mqttclient is what clients of brokers have in common here: their options,
// connections that end with a context, a way past the client for large messages, and
// errors that say what to do.
package mqttclient

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/sleep"
	"github.com/pixferry/pixferry/transport"
)

const (
	connectTime = 9 * time.Second  // those who wait 10 for a connection hear why there is none
	writeTime   = 10 * time.Second // a message that takes longer ends the connection

	// A client reconnects after firstPause to mostPause, doubled from try to try and
	// with jitter, so that the clients of a broker that was restarted do not all come
	// at once.
	firstPause = 250 * time.Millisecond
	mostPause  = 5 * time.Second

	// pahoPause replaces paho's pause, which knows no jitter and cannot be ended.
	pahoPause = 10 * time.Millisecond
)

// Settings are what users set. Those that are not zero go before the options.
type Settings struct {
	Broker, Username, Password string
	TLS                        *tls.Config
	Options                    *mqtt.ClientOptions
}

// ClientOptions returns a copy of the options, completed. Errors match transport.ErrConfig.
func (s *Settings) ClientOptions() (*mqtt.ClientOptions, error) {
	o := mqtt.NewClientOptions()
	if s.Options != nil {
		*o = *s.Options
	}
	if s.Broker != "" {
		u, err := brokerURL(s.Broker)
		if err != nil {
			return nil, err
		}
		o.Servers = []*url.URL{u}
	}
	if len(o.Servers) == 0 {
		return nil, fmt.Errorf("%w: set Broker: "+exampleBroker, transport.ErrConfig)
	}
	o.Username, o.Password = cmp.Or(s.Username, o.Username), cmp.Or(s.Password, o.Password)
	if s.TLS != nil {
		o.TLSConfig = s.TLS
	}
	o.SetOrderMatters(true).SetConnectRetry(false).SetAutoReconnect(true).SetMaxReconnectInterval(pahoPause)
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
	noScheme := fmt.Errorf("%w: the broker's URL begins with mqtt://, mqtts://, ws:// or wss://: "+exampleBroker, transport.ErrConfig)
	u, err := url.Parse(s)
	if err != nil && !strings.Contains(s, "://") {
		return nil, noScheme
	}
	if err != nil { // which quotes what may be a password, or a token
		return nil, fmt.Errorf("%w: the broker's URL cannot be read: percent-encode what is special in a password, and check the port: "+exampleBroker, transport.ErrConfig)
	}
	port := ""
	switch u.Scheme {
	case "mqtt", "tcp":
		port = "1883"
	case "mqtts", "tls", "ssl":
		port = "8883"
	case "ws", "wss":
	default:
		return nil, noScheme
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("%w: the broker's URL has no host: "+exampleBroker, transport.ErrConfig)
	}
	if u.Port() == "" && port != "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	if p := u.Port(); p != "" {
		if _, err := strconv.ParseUint(p, 10, 16); err != nil {
			return nil, fmt.Errorf("%w: the broker's URL has the port %s, of 0 to 65535: "+exampleBroker, transport.ErrConfig, p)
		}
	}
	return u, nil
}

// Name is what a broker is called for people.
func Name(u *url.URL) string { return u.Scheme + "://" + u.Host }

// Pause waits before a client tries to reconnect, for the first time with try 0, or until
// ctx ends.
func Pause(ctx context.Context, try int) {
	most := min(firstPause<<min(try, 10), mostPause)
	_ = sleep.For(ctx, most/2+rand.N(most/2))
}
