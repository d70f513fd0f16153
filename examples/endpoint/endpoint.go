// Package endpoint makes transports from URLs, for the programs beside it and
// for yours.
//
//	tcp://HOST:PORT                  udp://HOST:PORT
//	tcps://HOST:PORT?ca=&cert=&key=
//	mqtt://HOST:PORT/NAME            mqtts://HOST:PORT/NAME?ca=&cert=&key=
//
// NAME is the receiver's name on the broker. The protocols of devices:
//
//	mqtt+base://HOST:PORT?to=TOPIC&from=TOPIC&number=1|0&size=1400&timeout=5s&truncated=keep&last=first
//	udp+datagram://HOST:PORT
//	udp+header://HOST:PORT?width=8|4&order=le|be&gap=250us
//	udp+json://HOST:PORT
//	tcp+begin://HOST:PORT?pause=300ms
//	tcp+command://HOST:PORT?pause=300ms&commands=weeding,stop
//	tcp+frames://HOST:PORT?format=infrared&dir=got
package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/pixferry/pixferry/mqttx"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// Parse makes the transport that a URL names, for the side that receives or the
// one that sends.
func Parse(raw string, receive bool) (transport.Transport, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, err
	}
	if u.Port() == "" {
		return nil, fmt.Errorf("%s: the URL needs HOST:PORT", raw)
	}
	q := u.Query()
	switch u.Scheme {
	case "tcp", "tcps":
		t := &tcpx.Transport{Addr: u.Host}
		if u.Scheme == "tcps" {
			t.TLS, err = tlsConfig(u.Hostname(), q, receive)
		}
		return t, err
	case "udp":
		return &udpx.Transport{Addr: u.Host}, nil
	case "mqtt", "mqtts":
		name, err := url.PathUnescape(strings.TrimPrefix(u.EscapedPath(), "/"))
		if err != nil || name == "" {
			return nil, fmt.Errorf("%s: the URL needs the receiver's name behind the broker: %s://%s/NAME", raw, u.Scheme, u.Host)
		}
		t := &mqttx.Transport{Broker: u.Scheme + "://" + u.Host}
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

// Where is the URL of a listener: raw with the real port in place of port 0.
func Where(raw string, addr net.Addr) string {
	u, err := url.Parse(raw)
	if err != nil || u.Port() != "0" {
		return raw
	}
	if _, port, err := net.SplitHostPort(addr.String()); err == nil {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u.String()
}
