package mqttclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/transport"
)

func TestConnectErrorSaysWhatToDo(t *testing.T) {
	op := func(op string, err error) error { return &net.OpError{Op: op, Net: "tcp", Err: err} }
	const certificateRequired, certificateExpired = tls.AlertError(116), tls.AlertError(45)
	for _, c := range []struct {
		broker string
		err    error
		says   string // at the end, or for a mistake anywhere; empty: nothing more than the error
		config bool
	}{
		{"mqtt://h:1", io.ErrUnexpectedEOF, "check that the port is that of a broker; if it expects TLS, use mqtts://", false}, // HTTP
		{"ws://h:1", op("read", syscall.ECONNRESET), "if it expects TLS, use wss://", false},
		{"mqtts://h:1", op("read", syscall.ECONNRESET), "if it does not speak TLS, use mqtt://", false},
		{"mqtts://h:1", op("write", syscall.ECONNRESET), "set Certificates of TLS", false},
		{"mqtt://h:1", op("read", os.ErrDeadlineExceeded), "it takes the connection and does not answer: check that the port is that of a broker", false},
		{"mqtt://h:1", op("read", net.ErrClosed), "", false}, // by this side
		{"mqtt://h:1", op("dial", syscall.ECONNREFUSED), "", false},
		{"mqtts://h:1", op("remote error", certificateRequired), "set Certificates of TLS", true},
		{"mqtts://h:1", op("remote error", certificateExpired), "as the broker sees it", false}, // or its clock is wrong
		{"mqtts://h:1", &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}}, "set the clock of this host, or renew the certificate of the broker", false},
	} {
		err := ConnectError(c.broker, fmt.Errorf("network Error : %w", c.err))
		if text := err.Error(); c.says == "" && !strings.HasSuffix(text, c.err.Error()) || !strings.HasSuffix(text, c.says) && !c.config || !strings.Contains(text, c.says) || !strings.Contains(text, c.broker) {
			t.Errorf("%v says %q", c.err, text)
		}
		if errors.Is(err, transport.ErrConfig) != c.config || transport.Retryable(err) == c.config {
			t.Errorf("%v: a mistake of configuration: %v, retryable: %v", err, !c.config, transport.Retryable(err))
		}
	}
}

func TestSame(t *testing.T) {
	reset := func(port int) error {
		return fmt.Errorf("wrapped: %w", &net.OpError{Op: "read", Source: &net.TCPAddr{Port: port}, Err: syscall.ECONNRESET})
	}
	if !Same(reset(1), reset(2)) || Same(reset(1), io.EOF) || Same(nil, io.EOF) || !Same(io.EOF, errors.New("EOF")) {
		t.Error("another port is another failure, or another failure is none")
	}
}

// A limit of ours is not the end of the caller's context, which would be final.
func TestOwnLimitIsRetryable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := mqtt.NewClientOptions().SetConnectTimeout(50 * time.Millisecond)
	u := &url.URL{Scheme: "mqtts", Host: l.Addr().String()}
	d := Open(t.Context(), o, nil)
	_, silent := o.CustomOpenConnectionFn(u, *o)
	o.CustomOpenConnectionFn = func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: context.DeadlineExceeded}
	}
	Open(t.Context(), o, nil)
	_, unreached := o.CustomOpenConnectionFn(u, *o)
	for _, err := range []error{silent, unreached} {
		if err == nil || !transport.Retryable(err) || !strings.Contains(err.Error(), "no answer for 50ms") {
			t.Errorf("%v, retryable: %v", err, transport.Retryable(err))
		}
	}
	if op := (*net.OpError)(nil); !errors.As(unreached, &op) || op.Op != "dial" {
		t.Errorf("%v does not say where it failed", unreached)
	}
	if d.Lane() != nil {
		t.Error("there is a connection")
	}
}
