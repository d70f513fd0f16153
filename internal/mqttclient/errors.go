package mqttclient

import (
	"errors"
	"fmt"

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
	return fmt.Errorf("cannot connect to the broker %s: %w", broker, err)
}
