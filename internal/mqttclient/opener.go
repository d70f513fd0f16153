package mqttclient

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// An Opener opens the connections of one client, which end with a context, and on which
// what an Owner takes passes the client by.
type Opener struct {
	ctx     context.Context
	timeout time.Duration // of a write
	owner   *Owner
	lane    atomic.Pointer[Lane] // the last one
}

// Open has the client that is made of o connect by the Opener that it returns. With a nil
// owner everything is the client's.
func Open(ctx context.Context, o *mqtt.ClientOptions, owner *Owner) *Opener {
	d := &Opener{ctx: ctx, timeout: o.WriteTimeout, owner: owner}
	users := o.CustomOpenConnectionFn
	o.CustomOpenConnectionFn = func(u *url.URL, o mqtt.ClientOptions) (net.Conn, error) {
		l, err := d.open(u, &o, users)
		if err != nil {
			return nil, err
		}
		d.lane.Store(l)
		return l, nil
	}
	return d
}

// Lane returns the last connection, which the client need not have any more.
func (d *Opener) Lane() *Lane { return d.lane.Load() }

// open connects to the broker. Unlike paho's own it can be ended.
func (d *Opener) open(u *url.URL, o *mqtt.ClientOptions, users mqtt.OpenConnectionFunc) (*Lane, error) {
	ctx, cancel := context.WithTimeout(d.ctx, o.ConnectTimeout)
	defer cancel()
	l, err := d.dial(ctx, u, o, users)
	if errors.Is(err, context.DeadlineExceeded) && d.ctx.Err() == nil {
		return nil, &late{o.ConnectTimeout, err}
	}
	return l, err
}

func (d *Opener) dial(ctx context.Context, u *url.URL, o *mqtt.ClientOptions, users mqtt.OpenConnectionFunc) (*Lane, error) {
	switch {
	case users != nil:
		conn, err := users(u, *o)
		return d.over(conn, conn, err)
	case u.Scheme == "ws" || u.Scheme == "wss":
		bare := *u
		bare.User = nil
		conn, err := mqtt.NewWebsocket(bare.String(), o.TLSConfig, o.ConnectTimeout, o.HTTPHeaders, o.WebsocketOptions)
		return d.over(conn, conn, err)
	}
	raw, err := cmp.Or(o.Dialer, &net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme == "mqtt" || u.Scheme == "tcp":
		l, _ := d.over(quick(raw), raw, nil)
		l.to = raw // which writes from several places at once
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
	return d.over(secure, raw, nil)
}

func (d *Opener) over(conn, raw net.Conn, err error) (*Lane, error) {
	if err != nil {
		return nil, err
	}
	return newLane(d.ctx, conn, raw, d.timeout, d.owner), nil
}
