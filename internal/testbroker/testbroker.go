// Package testbroker starts MQTT brokers for tests, on loopback ports: one that
// is embedded and misbehaves on demand, and a real mosquitto.
package testbroker

import (
	"net"
	"testing"
)

// A Broker is one that runs. It is stopped at the end of its test.
type Broker interface {
	// URL is where it listens, for example "mqtt://127.0.0.1:41883".
	URL() string
	// Stop ends it as a crash does: connections break, nothing is said or kept.
	Stop()
	// Start begins it again at the same port, without memory of what was before.
	Start()
}

// Each runs a test with each kind of broker; a short one with the embedded one alone.
func Each(t *testing.T, f func(t *testing.T, b Broker)) {
	t.Run("embedded", func(t *testing.T) { f(t, Embedded(t, Options{})) })
	if !testing.Short() {
		t.Run("mosquitto", func(t *testing.T) { f(t, Mosquitto(t, "")) })
	}
}

// freePort returns a port that nobody listens on.
func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
