package mqttclient

import (
	"errors"
	"strings"
	"testing"

	"github.com/pixferry/pixferry/transport"
)

// The errors of a broker's URL hold nothing of it: what cannot be read may be a password.
func TestErrorsHoldNoPassword(t *testing.T) {
	for broker, says := range map[string]string{
		"mqtt://user:se^cret@h": "percent-encode", "mqtt://user:se%zzcret@h": "percent-encode", "mqtt://user:se/cret@h": "percent-encode",
		"mqtt://user:se?cret@h": "percent-encode", "user:secret@h": "begins with", "mqtt:user:secret@h": "no host", "http://user:secret@h": "begins with",
		"mqtt://user:secret": "port", "wss://h/mqtt?token=secret\n": "cannot be read", "wss://h/%zz?token=secret": "percent-encode", "mqtt://h:70000": "port",
	} {
		_, err := (&Settings{Broker: broker}).ClientOptions()
		if !errors.Is(err, transport.ErrConfig) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "cret") || strings.Contains(err.Error(), ":se") {
			t.Errorf("%s: %v, want an error with %q", broker, err, says)
		}
	}
	o, err := (&Settings{Broker: "mqtt://user:secret@h"}).ClientOptions()
	if err != nil || o.Servers[0].Host != "h:1883" {
		t.Error(o, err)
	}
}
