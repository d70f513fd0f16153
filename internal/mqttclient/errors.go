package mqttclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/pixferry/pixferry/transport"
)

// A refusal is a broker's. Trying again does not help, which transport.Retryable knows
// by the RejectedError that errors.As finds in it.
type refusal struct {
	text  string
	cause error // of package packets, or nil
}

func (e *refusal) Error() string { return e.text }

func (e *refusal) Unwrap() error { return e.cause }

func (e *refusal) As(target any) bool {
	r, ok := target.(**transport.RejectedError)
	if ok {
		*r = &transport.RejectedError{Reason: transport.ReasonOther, Text: e.text}
	}
	return ok
}

// Denied is the error of a client that may not subscribe.
func Denied(broker, client, filter string) error {
	return &refusal{fmt.Sprintf("the broker %s does not let %q subscribe to %s: allow it", broker, client, filter), nil}
}

// ConnectError says what to do about a failure to connect.
func ConnectError(broker string, err error) error {
	for cause, text := range map[error]string{
		packets.ErrorRefusedBadProtocolVersion:    "does not speak MQTT 3.1.1",
		packets.ErrorRefusedIDRejected:            "rejects the client ID: choose another name",
		packets.ErrorRefusedBadUsernameOrPassword: "refuses user name and password: check Username and Password",
		packets.ErrorRefusedNotAuthorised:         "does not let this client connect: check Username, Password and what it allows them",
		packets.ErrorProtocolViolation:            "does not speak MQTT",
	} {
		if errors.Is(err, cause) {
			return &refusal{fmt.Sprintf("the broker %s %s", broker, text), cause}
		}
	}
	unverified := (*tls.CertificateVerificationError)(nil)
	switch {
	case errors.As(err, &unverified) && !expired(err):
		return fmt.Errorf("%w: the certificate of the broker %s: see RootCAs and ServerName of TLS: %w", transport.ErrConfig, broker, err)
	case alerted(err, "certificate") && !alerted(err, "expired"):
		return fmt.Errorf("%w: the broker %s refuses the certificate of this client, or its want of one: set Certificates of TLS to one that the broker's CA has signed: %w", transport.ErrConfig, broker, err)
	}
	return fmt.Errorf("cannot connect to the broker %s: %w%s", broker, err, hint(broker, err))
}

// expired reports whether the broker's certificate is out of date by this host's clock, which may not be set yet.
func expired(err error) bool {
	invalid := x509.CertificateInvalidError{}
	return errors.As(err, &invalid) && invalid.Reason == x509.Expired
}

// alerted reports whether an error is the broker's alert in TLS (RFC 8446, section 6), with the word in it.
func alerted(err error, word string) bool {
	op := (*net.OpError)(nil)
	return errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), word)
}

// hint is what the likely cause is of an end instead of an answer.
func hint(broker string, err error) string {
	scheme, _, _ := strings.Cut(broker, "://")
	switch secure := scheme != "mqtt" && scheme != "tcp" && scheme != "ws"; {
	case expired(err):
		return "; set the clock of this host, or renew the certificate of the broker"
	case alerted(err, "expired"):
		return "; that is the certificate of this client, as the broker sees it"
	case secure && ended(err, "write"): // after the handshake, in which a client says that it has no certificate
		return "; if it wants a certificate of its clients, set Certificates of TLS"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "; it takes the connection and does not answer: check that the port is that of a broker"
	case !ended(err, "read"):
		return ""
	case scheme == "wss":
		return "; if it does not speak TLS, use ws://"
	case secure:
		return "; if it does not speak TLS, use mqtt://"
	case scheme == "ws":
		return "; check that the port is that of a broker; if it expects TLS, use wss://"
	}
	return "; check that the port is that of a broker; if it expects TLS, use mqtts://"
}

// ended reports whether the other side of a connection has answered what was read or written with its end, or with no TLS.
func ended(err error, op string) bool {
	failed, noTLS := (*net.OpError)(nil), tls.RecordHeaderError{}
	if errors.Is(err, net.ErrClosed) {
		return false // by this side
	}
	if errors.As(err, &failed) {
		return failed.Op == op && !failed.Timeout()
	}
	return op == "read" && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &noTLS))
}

// Same reports whether two failures say the same, though each may have had a port of its own here.
func Same(a, b error) bool {
	x, y := (*net.OpError)(nil), (*net.OpError)(nil)
	if errors.As(a, &x) && errors.As(b, &y) {
		return x.Op == y.Op && x.Err.Error() == y.Err.Error()
	}
	return a != nil && b != nil && a.Error() == b.Error()
}

// late is what has taken longer than a limit of ours, which does not count as the end of a caller's context.
type late struct {
	limit time.Duration
	err   error
}

func (e *late) Error() string { return fmt.Sprintf("no answer for %v: %v", e.limit, e.err) }

func (e *late) As(target any) bool { return errors.As(e.err, target) }
