package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/pixferry/pixferry/mqttx"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/udpx"
)

// idleTime is how long a silent peer is waited for.
const idleTime = 30 * time.Second

// endpoint makes the transport that a URL names, for the side that receives or
// the one that sends.
func endpoint(raw string, receive bool) (transport.Transport, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, err
	}
	if u.Port() == "" {
		return nil, fmt.Errorf("%s: the URL needs HOST:PORT", raw)
	}
	q := u.Query()
	config := native.Config{IdleTimeout: idleTime}
	switch u.Scheme {
	case "tcp", "tcps":
		t := &tcpx.Transport{Addr: u.Host, Config: config}
		if u.Scheme == "tcps" {
			t.TLS, err = tlsConfig(u.Hostname(), q, receive)
		}
		return t, err
	case "udp":
		return &udpx.Transport{Addr: u.Host, Config: config}, nil
	case "mqtt", "mqtts":
		name, err := url.PathUnescape(strings.TrimPrefix(u.EscapedPath(), "/"))
		if err != nil || name == "" {
			return nil, fmt.Errorf("%s: the URL needs the receiver's name behind the broker: %s://%s/NAME", raw, u.Scheme, u.Host)
		}
		t := &mqttx.Transport{Broker: u.Scheme + "://" + u.Host, Config: config}
		if receive {
			t.Name = name
		} else {
			t.Peer = name
		}
		if u.User != nil {
			t.Username = u.User.Username()
			t.Password, _ = u.User.Password()
		}
		if u.Scheme == "mqtts" {
			t.TLS, err = tlsConfig(u.Hostname(), q, false) // towards the broker both sides are clients
		}
		return t, err
	}
	if strings.Contains(u.Scheme, "+") {
		return device(u)
	}
	return nil, fmt.Errorf("%s: unknown scheme %q", raw, u.Scheme)
}

// tlsConfig reads the files that ca=, cert= and key= name.
func tlsConfig(host string, q url.Values, server bool) (*tls.Config, error) {
	config := &tls.Config{ServerName: host}
	if file := q.Get("cert"); file != "" || q.Get("key") != "" {
		pair, err := tls.LoadX509KeyPair(file, q.Get("key"))
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	} else if server {
		return nil, fmt.Errorf("receiving over TLS needs ?cert=FILE&key=FILE")
	}
	if file := q.Get("ca"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", file)
		}
		config.RootCAs = pool
		if server { // a receiver with a CA wants its senders to prove themselves
			config.ClientCAs, config.ClientAuth = pool, tls.RequireAndVerifyClientCert
		}
	}
	return config, nil
}
