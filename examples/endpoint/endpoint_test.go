package endpoint

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/transport"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		url     string
		receive bool
		err     string // a part of it; empty: none
	}{
		{"tcp://127.0.0.1:1", true, ""},
		{"udp://[::1]:1", false, ""},
		{"mqtt://user:secret@broker:1883/gate%207", true, ""},
		{"mqtt+base://h:1?to=a&from=b&number=0&size=512&timeout=1s&truncated=keep&last=first", true, ""},
		{"udp+header://h:1?width=4&order=be&gap=1ms", false, ""},
		{"tcp+command://h:1?pause=500ms&commands=weeding,stop", true, ""},
		{"tcp+frames://h:1?format=infrared&dir=got", false, ""},
		{"tcp://h", true, "HOST:PORT"},
		{"mqtt://h:1", false, "/NAME"},
		{"tcps://h:1", true, "cert=FILE"},
		{"tcps://h:1?ca=/nowhere", false, "/nowhere"},
		{"ftp://h:1", true, "unknown scheme"},
		{"127.0.0.1:99", true, "such as tcp://127.0.0.1:99"},
		{"udp+smoke://h:1", true, "unknown scheme"},
		{"udp+header://h:1?width=5", true, "width"},
		{"udp+header://h:1?with=4", true, "not one of: width, gap, order"},
		{"mqtt+base://h:1?number=2", true, "1 or 0"},
		{"tcp+begin://h:1?pause=soon", true, "500ms"},
	} {
		tr, err := Parse(c.url, c.receive, nil)
		switch {
		case c.err == "" && (err != nil || tr == nil):
			t.Errorf("%s: %v", c.url, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: %v, want an error with %q", c.url, err, c.err)
		}
	}
}

func TestErrorsHoldNoPassword(t *testing.T) {
	for raw, says := range map[string]string{
		"mqtt://user:se^cret@h:1/n": "percent-encode", "mqtt://user:se%zzcret@h:1/n": "percent-encode",
		"mqtt://user:se/cret@h:1/n": "percent-encode", "mqtt://user:se?cret@h:1/n": "percent-encode",
		"user:secret@h:1/n": "such as tcp://h:1/n", "user:secret@tcp://h:1": "such as tcp://",
		"mqtt://user:secret@h/n": "HOST:PORT", "tcp://h:x": "invalid port",
	} {
		_, err := Parse(raw, true, nil)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "cret") || strings.Contains(err.Error(), "se^") || strings.Contains(err.Error(), ":se") {
			t.Errorf("%s: %v, want an error with %q", raw, err, says)
		}
	}
}

func TestWhereHasTheRealPort(t *testing.T) {
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711}
	for raw, want := range map[string]string{
		"tcp://localhost:0":          "tcp://localhost:4711",
		"udp+header://:0?width=4":    "udp+header://:4711?width=4",
		"mqtt://127.0.0.1:1883/name": "mqtt://127.0.0.1:1883/name",

		"mqtt://user:secret@127.0.0.1:1883/gate%207?ca=a": "mqtt://user:xxxxx@127.0.0.1:1883/gate%207?ca=a",
		"mqtt+base://user:secret@localhost:0?to=a":        "mqtt+base://user:xxxxx@localhost:4711?to=a",
	} {
		if got := Where(raw, addr); got != want {
			t.Errorf("%s: %s, want %s", raw, got, want)
		}
	}
}

// Whatever the protocol, an error says which operation has failed.
func TestErrorsNameTheOperation(t *testing.T) {
	over, end := context.WithCancel(t.Context())
	end()
	for raw, broker := range map[string]bool{
		"tcp://127.0.0.1:0": false, "tcp+begin://127.0.0.1:0": false, "tcp+command://127.0.0.1:0": false, "tcp+frames://127.0.0.1:0": false,
		"udp://127.0.0.1:0": false, "udp+datagram://127.0.0.1:0": false, "udp+header://127.0.0.1:0": false, "udp+json://127.0.0.1:0": false,
		"mqtt://127.0.0.1:1/gate": true, "mqtt+base://127.0.0.1:1": true,
	} {
		tr, err := Parse(raw, true, nil)
		if err != nil {
			t.Fatal(err)
		}
		failed := func(op string, err error) {
			t.Helper()
			if e := (*transport.Error)(nil); !errors.As(err, &e) || e.Op != op {
				t.Errorf("%s: %v is no error of %s", raw, err, op)
			}
		}
		elsewhere, err := Parse(strings.Replace(raw, "127.0.0.1", "192.0.2.1", 1), true, nil) // which no host has
		if err != nil {
			t.Fatal(err)
		}
		_, err = elsewhere.Listen(over)
		failed("listen", err)
		_, err = tr.Dial(over)
		failed("dial", err)
		if broker {
			continue
		}
		l, err := tr.Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.Accept(over)
		failed("accept", err)
		l.Close()
		_, err = l.Accept(t.Context())
		failed("accept", err)
	}
}

// lines is a log whose lines can be waited for.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestLogHearsOfBrokerThatIsAway(t *testing.T) {
	broker := testbroker.Embedded(t, testbroker.Options{})
	for _, raw := range []string{broker.URL() + "/name", strings.Replace(broker.URL(), "mqtt:", "mqtt+base:", 1) + "?to=down&from=up"} {
		log := make(lines, 100)
		tr, err := Parse(raw, true, slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		l, err := tr.Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		broker.Stop()
		for away := false; !away; {
			select {
			case line := <-log:
				away = strings.Contains(line, "level=WARN") && strings.Contains(line, "cannot be used")
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: nothing in the log", raw)
			}
		}
		broker.Start()
		l.Close()
	}
}
