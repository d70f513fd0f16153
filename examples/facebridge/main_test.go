package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"go.uber.org/goleak"

	"github.com/pixferry/pixferry/internal/testbroker"
)

// With this in the environment the test binary is the bridge, so that it can be killed.
const asBridge = "FACEBRIDGE_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asBridge) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const patience = time.Minute

func await[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("%s: nothing after %v", what, patience)
	}
	return v
}

func broker(t testing.TB) string { return testbroker.Embedded(t, testbroker.Options{}).URL() }

// A terminal is one in the field: it publishes bytes and sees bytes.
type terminal struct {
	t      testing.TB
	client mqtt.Client
	topic  string
	got    chan string
}

func newTerminal(t testing.TB, broker, up, down string) *terminal {
	t.Helper()
	p := &terminal{t: t, topic: up, got: make(chan string, 1000)}
	p.client = mqtt.NewClient(mqtt.NewClientOptions().AddBroker(broker).SetProtocolVersion(4).SetAutoReconnect(false))
	p.wait("connect", p.client.Connect())
	p.wait("subscribe", p.client.Subscribe(down, 0, func(_ mqtt.Client, m mqtt.Message) { p.got <- string(m.Payload()) }))
	t.Cleanup(func() { p.client.Disconnect(50) })
	return p
}

func (p *terminal) wait(what string, token mqtt.Token) {
	p.t.Helper()
	if !token.WaitTimeout(patience) || token.Error() != nil {
		p.t.Fatal(what, token.Error())
	}
}

func (p *terminal) publish(payload string) {
	p.t.Helper()
	p.wait("publish", p.client.Publish(p.topic, 1, false, payload))
}

// person is an element of a report.
func person(num string) string {
	return fmt.Sprintf(`{"num": %s, "name": "Ann", "liveImageBase64": "data:image/jpeg;base64,/9j/%s", "verifiedCode": 0, "time": "2024-02-29 12:34:56", "personType": "1"}`,
		num, "AAAA")
}

func verified(people ...string) string {
	return `{"cmd": "verifiedRecordU", "data": [` + strings.Join(people, ", ") + `]}`
}

// A callback writes down what is posted. While it is down it answers 500.
type callback struct {
	*httptest.Server
	mu     sync.Mutex
	down   bool
	refuse chan string // what it has refused
	taken  chan string
}

func newCallback(t testing.TB) *callback {
	c := &callback{refuse: make(chan string, 10000), taken: make(chan string, 10000)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/api" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s of %q (%v)", r.Method, r.URL, r.Header.Get("Content-Type"), err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.down {
			http.Error(w, "down", http.StatusInternalServerError)
			c.refuse <- string(body)
			return
		}
		c.taken <- string(body)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *callback) set(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

// expect waits for the records of people, in order.
func (c *callback) expect(t testing.TB, nums ...string) {
	t.Helper()
	for _, num := range nums {
		var got struct {
			UserID json.RawMessage `json:"user_id"`
		}
		said := await(t, "the record of "+num, c.taken)
		if err := json.Unmarshal([]byte(said), &got); err != nil || string(got.UserID) != num {
			t.Fatalf("%s was posted (%v) when the record of %s was next", said, err, num)
		}
	}
}

func (c *callback) nothing(t testing.TB) {
	t.Helper()
	select {
	case said := <-c.taken:
		t.Errorf("this was posted and should not be: %s", said)
	default:
	}
}

// start runs a bridge within the test, and returns the URL of its web server.
func start(t testing.TB, args ...string) (url string, stop func()) {
	t.Helper()
	c, err := parse(append([]string{"-listen", "127.0.0.1:0"}, args...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c.outbox == "outbox" {
		c.outbox = t.TempDir()
	}
	b, err := newBridge(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := await(t, "the end of the bridge", ended); err != nil {
			t.Error("run:", err)
		}
		b.client.CloseIdleConnections()
	})
	t.Cleanup(stop)
	await(t, "the broker", b.ready)
	return "http://" + b.web.Addr().String(), stop
}

func post(t testing.TB, url, body string) (status int, said string) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// status asks GET /status until ok is content with it.
func status(t testing.TB, url, what string, ok func(s map[string]any) bool) {
	t.Helper()
	var last []byte
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get(url + "/status")
		if err != nil {
			t.Fatal(err)
		}
		last, _ = io.ReadAll(resp.Body)
		resp.Body.Close()
		var s map[string]any
		d := json.NewDecoder(bytes.NewReader(last))
		d.UseNumber()
		if err := d.Decode(&s); err != nil {
			t.Fatalf("%s: %v", last, err)
		}
		if ok(s) {
			return
		}
	}
	t.Fatalf("%s is not in the status: %s", what, last)
}

// at follows keys into a status and returns what is there as text.
func at(s map[string]any, keys ...string) string {
	var v any = s
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return fmt.Sprint(v)
}
