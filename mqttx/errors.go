package mqttx

import (
	"errors"
	"fmt"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/pixferry/pixferry/transport"
)

// A refusal is a broker's. Trying again does not help, which transport.Retryable knows
// by the RejectedError that errors.As finds in it.
type refusal struct {
	broker string
	text   string
	cause  error // of package packets, or nil
}

func (e *refusal) Error() string { return fmt.Sprintf("the broker %s %s", e.broker, e.text) }

func (e *refusal) Unwrap() error { return e.cause }

func (e *refusal) As(target any) bool {
	r, ok := target.(**transport.RejectedError)
	if ok {
		*r = &transport.RejectedError{Reason: transport.ReasonOther, Text: e.Error()}
	}
	return ok
}

// connectError says what to do about a failure to connect.
func connectError(broker string, err error) error {
	for cause, text := range map[error]string{
		packets.ErrorRefusedBadProtocolVersion:    "does not speak MQTT 3.1.1",
		packets.ErrorRefusedIDRejected:            "rejects the client ID: choose another name",
		packets.ErrorRefusedBadUsernameOrPassword: "refuses user name and password: check Username and Password",
		packets.ErrorRefusedNotAuthorised:         "does not let this client connect: check Username, Password and what it allows them",
		packets.ErrorProtocolViolation:            "does not speak MQTT",
	} {
		if errors.Is(err, cause) {
			return &refusal{broker, text, cause}
		}
	}
	return fmt.Errorf("cannot connect to the broker %s: %w", broker, err)
}

// final reports whether trying again cannot help.
func final(err error) bool { return !transport.Retryable(err) }
