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
//	tcp+frames://HOST:PORT?format=infrared&dir=got&pause=50ms
package endpoint

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pixferry/pixferry/mqttx"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/udpx"
)

// Parse makes the transport that a URL names, for the side that receives or the
// one that sends. An option that the scheme does not know is an error. The log
// hears of trouble that no call returns, such as a broker that is away; nil is
// silent.
func Parse(raw string, receive bool, log *slog.Logger) (transport.Transport, error) {
	u, err := ParseURL(raw)
	if err != nil {
		return nil, err
	}
	fail := func(format string, a ...any) (transport.Transport, error) {
		return nil, fmt.Errorf("%s: %w", u.Redacted(), fmt.Errorf(format, a...))
	}
	if u.Port() == "" {
		return fail("the URL needs HOST:PORT")
	}
	if _, err := strconv.ParseUint(u.Port(), 10, 16); err != nil {
		return fail("port %s: want 0 to 65535", u.Port())
	}
	q := query{log: log}
	if q.values, err = url.ParseQuery(u.RawQuery); err != nil {
		return fail("%w", err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	if named := u.Scheme == "mqtt" || u.Scheme == "mqtts"; named && name == "" {
		return fail("the URL needs the receiver's name behind the broker: %s://%s/NAME", u.Scheme, u.Host)
	} else if !named && name != "" {
		return fail("%q names nothing behind HOST:PORT", u.Path)
	}
	t := q.transport(u, name, receive)
	for option := range q.values {
		if !slices.Contains(q.known, option) {
			q.fail("%s is not one of: %s", option, cmp.Or(strings.Join(q.known, ", "), "none"))
		}
	}
	if q.err != nil {
		return fail("%w", q.err)
	}
	return t, nil
}

// ParseURL reads a URL. Unlike those of url.Parse its errors hold no password.
func ParseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch secret := strings.Contains(raw, "@"); {
	case !strings.Contains(raw, "://") || err == nil && u.Opaque != "":
		address := raw[strings.LastIndex(raw, "@")+1:]
		return nil, fmt.Errorf("%s: a URL begins with its protocol, such as tcp://%s", address, address)
	case err != nil && secret: // the reason quotes a part of it
		return nil, errors.New("a URL cannot be read: percent-encode the password in it, such as %2F for /")
	}
	return u, err
}

func (q *query) transport(u *url.URL, name string, receive bool) transport.Transport {
	switch u.Scheme {
	case "tcp":
		return &tcpx.Transport{Addr: u.Host, Config: q.config()}
	case "tcps":
		return &tcpx.Transport{Addr: u.Host, TLS: q.tls(u.Hostname(), receive), Config: q.config()}
	case "udp":
		return &udpx.Transport{Addr: u.Host, Config: q.config()}
	case "mqtt", "mqtts":
		t := &mqttx.Transport{Broker: u.Scheme + "://" + u.Host, Config: q.config()}
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
			t.TLS = q.tls(u.Hostname(), false) // towards the broker both sides are clients
		}
		return t
	}
	return q.device(u)
}

func (q *query) config() native.Config { return native.Config{Logger: q.log} }

// tls reads the files that ca=, cert= and key= name.
func (q *query) tls(host string, server bool) *tls.Config {
	config, err := tlsConfig(host, q.text("ca", ""), q.text("cert", ""), q.text("key", ""), server)
	if err != nil {
		q.fail("%w", err)
	}
	return config
}

func tlsConfig(host, ca, cert, key string, server bool) (*tls.Config, error) {
	config := &tls.Config{ServerName: host}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	} else if server {
		return nil, fmt.Errorf("receiving over TLS needs ?cert=FILE&key=FILE")
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", ca)
		}
		config.RootCAs = pool
		if server { // a receiver with a CA wants its senders to prove themselves
			config.ClientCAs, config.ClientAuth = pool, tls.RequireAndVerifyClientCert
		}
	}
	return config, nil
}

// Where is the URL of a listener: raw with the real port in place of port 0, and without
// its password.
func Where(raw string, addr net.Addr) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	if _, port, err := net.SplitHostPort(addr.String()); err == nil && u.Port() == "0" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u.Redacted()
}

// Redacted is the URL without its password, for what is written down.
func Redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Redacted()
}
