package mqttclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

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
	invalid, unverified := x509.CertificateInvalidError{}, (*tls.CertificateVerificationError)(nil)
	expired := errors.As(err, &invalid) && invalid.Reason == x509.Expired // or the clock is not set yet
	if errors.As(err, &unverified) && !expired {
		return fmt.Errorf("%w: the certificate of the broker %s: see RootCAs and ServerName of TLS: %w", transport.ErrConfig, broker, err)
	}
	return fmt.Errorf("cannot connect to the broker %s: %w%s", broker, err, hint(broker, err))
}

// hint is what the likely cause is if one side speaks TLS and the other does not.
func hint(broker string, err error) string {
	scheme, _, _ := strings.Cut(broker, "://")
	switch {
	case !ended(err):
		return ""
	case scheme == "mqtt" || scheme == "tcp":
		return "; if it expects TLS, use mqtts://"
	case scheme == "ws":
		return "; if it expects TLS, use wss://"
	case scheme == "wss":
		return "; if it does not speak TLS, use ws://"
	}
	return "; if it does not speak TLS, use mqtt://"
}

// ended reports whether the other side of a connection has answered with its end, or with no TLS.
func ended(err error) bool {
	op, noTLS := (*net.OpError)(nil), tls.RecordHeaderError{}
	return errors.Is(err, io.EOF) || errors.As(err, &noTLS) || errors.As(err, &op) && op.Op == "read" && !op.Timeout()
}
