package tcpx_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// certificate returns a self-signed one of a name and of 127.0.0.1.
func certificate(t *testing.T, name string, change ...func(*x509.Certificate)) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	for _, f := range change {
		f(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, trusted
}

func TestTLS(t *testing.T) {
	server, trustServer := certificate(t, "receiver")
	client, trustClient := certificate(t, "camera 7")
	peers := make(chan string, 10)
	r := receive(t, func(s *transport.Server, tr *tcpx.Transport) {
		tr.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trustClient}
		s.Handler = func(_ context.Context, in *transport.Incoming) error {
			peers <- in.Peer
			return nil
		}
	})
	conn := dial(t, &tcpx.Transport{Addr: r.addr, TLS: &tls.Config{RootCAs: trustServer, Certificates: []tls.Certificate{client}}})
	b := content(3 << 20)
	if _, err := conn.Send(t.Context(), image("a", b), nil); err != nil {
		t.Fatal(err)
	}
	r.kept(t, "a", b)
	if peer := <-peers; peer != "camera 7" {
		t.Errorf("the peer is called %q, want the name in its certificate", peer)
	}
	if info := conn.Info(); info.Protocol != "tcp+tls" || info.Peer != "receiver" {
		t.Errorf("%+v", info)
	}

	for name, c := range map[string]struct {
		cfg  *tls.Config
		says string
	}{
		"a receiver that is not trusted": {&tls.Config{Certificates: []tls.Certificate{client}}, "RootCAs"},
		"a receiver of another name":     {&tls.Config{RootCAs: trustServer, ServerName: "other", Certificates: []tls.Certificate{client}}, "ServerName"},
		"no certificate":                 {&tls.Config{RootCAs: trustServer}, "Certificates"},
	} {
		_, err := (&tcpx.Transport{Addr: r.addr, TLS: c.cfg}).Dial(t.Context())
		if !errors.Is(err, transport.ErrConfig) || transport.Retryable(err) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "on both sides") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (&tcpx.Transport{Addr: r.addr}).Dial(t.Context()); err == nil {
		t.Error("joined without TLS a receiver that wants it")
	}
}

// A host whose clock is not set yet refuses what it will take later.
func TestTLSClockIsNotSet(t *testing.T) {
	server, trusted := certificate(t, "receiver")
	client, trustedClient := certificate(t, "camera")
	unset := func() time.Time { return time.Unix(0, 0) }
	for says, clocks := range map[string][2]func() time.Time{"clock of the peer": {unset, nil}, "clock of this host": {nil, unset}} {
		r := receive(t, func(_ *transport.Server, tr *tcpx.Transport) {
			tr.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trustedClient, Time: clocks[0]}
		})
		_, err := (&tcpx.Transport{Addr: r.addr, TLS: &tls.Config{RootCAs: trusted, Certificates: []tls.Certificate{client}, Time: clocks[1]}}).Dial(t.Context())
		if err == nil || !transport.Retryable(err) || !strings.Contains(err.Error(), "expired") || !strings.Contains(err.Error(), says) {
			t.Errorf("final, or not said: %v", err)
		}
	}
}

// Names are of certificates with none in the subject too, as is usual by now.
func TestTLSName(t *testing.T) {
	server, trusted := certificate(t, "", func(c *x509.Certificate) { c.DNSNames = []string{"gate.example"} })
	client, trustedClient := certificate(t, "", func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example", Path: "/camera/7"}}
	})
	peers := make(chan string, 1)
	r := receive(t, func(s *transport.Server, tr *tcpx.Transport) {
		tr.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trustedClient}
		s.Handler = func(_ context.Context, in *transport.Incoming) error {
			peers <- in.Peer
			return nil
		}
	})
	conn := dial(t, &tcpx.Transport{Addr: r.addr, TLS: &tls.Config{RootCAs: trusted, Certificates: []tls.Certificate{client}}})
	if _, err := conn.Send(t.Context(), image("a", content(10)), nil); err != nil {
		t.Fatal(err)
	}
	if peer := <-peers; peer != "spiffe://example/camera/7" || conn.Info().Peer != "gate.example" {
		t.Errorf("the peers are called %q and %q", peer, conn.Info().Peer)
	}
}

// TLS on one side only is named, whoever says it: this library, or another server, which
// answers with an alert of TLS.
func TestTLSOnOneSide(t *testing.T) {
	own, trusted := certificate(t, "receiver")
	plain := receive(t, nil)
	secured := receive(t, func(_ *transport.Server, tr *tcpx.Transport) {
		tr.TLS = &tls.Config{Certificates: []tls.Certificate{own}}
	})
	alerting := answering(t, func(c net.Conn) {
		c.Read(make([]byte, 5))
		c.Write([]byte{0x15, 3, 1, 0, 2, 2, 70})
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c) // or what is unread would make it a reset
	})
	for name, tr := range map[string]*tcpx.Transport{
		"plain to TLS":            {Addr: secured.addr},
		"plain to TLS of another": {Addr: alerting},
		"TLS to plain":            {Addr: plain.addr, TLS: &tls.Config{RootCAs: trusted}},
	} {
		_, err := tr.Dial(t.Context())
		if err == nil || !strings.Contains(err.Error(), "TLS") || !strings.Contains(err.Error(), "on both sides or on none") || !strings.Contains(err.Error(), tr.Addr) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
