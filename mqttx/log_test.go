package mqttx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// A journal keeps the lines of a log.
type journal struct {
	slog.Handler

	mu    sync.Mutex
	lines []string
	news  chan struct{} // closed, and replaced, with each line
}

func newJournal() *journal { return &journal{Handler: slog.DiscardHandler, news: make(chan struct{})} }

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += fmt.Sprint(" ", a); return true })
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
	close(j.news)
	j.news = make(chan struct{})
	return nil
}

// count is how many lines there are with a text in them.
func (j *journal) count(text string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, line := range j.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// await waits for a line.
func (j *journal) await(t testing.TB, text string) {
	t.Helper()
	for end := within(t); ; {
		j.mu.Lock()
		news := j.news
		j.mu.Unlock()
		if j.count(text) > 0 {
			return
		}
		select {
		case <-news:
		case <-end.Done():
			t.Fatalf("no line with %q in %q", text, j.lines)
		}
	}
}

// What Dial and Listen return is not in the log too.
func TestFirstFailureIsNotLogged(t *testing.T) {
	j := newJournal()
	cfg := native.Config{Logger: slog.New(j)}
	password := testbroker.Embedded(t, testbroker.Options{Password: "secret"}).URL()
	for _, broker := range []string{"mqtt://127.0.0.1:1", password} {
		_, dialled := (&Transport{Broker: broker, Peer: "x", Config: cfg}).Dial(within(t))
		_, listened := (&Transport{Broker: broker, Name: "x", Config: cfg}).Listen(within(t))
		_, based := (&Base{Broker: broker, ToBase: "a", FromBase: "b", Logger: cfg.Logger}).Dial(within(t))
		if dialled == nil || listened == nil || based == nil {
			t.Error(dialled, listened, based)
		}
	}
	if len(j.lines) > 0 {
		t.Errorf("the log says %q", j.lines)
	}
}

// Of an outage the log has its beginning, with the reason, why it lasts, once, and its end.
func TestOutageInTheLog(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	for name, listen := range map[string]func(*mqtt.ClientOptions, *slog.Logger) (transport.Listener, error){
		"native": func(o *mqtt.ClientOptions, l *slog.Logger) (transport.Listener, error) {
			return (&Transport{Broker: b.URL(), Name: "x", ClientOptions: o, Config: native.Config{Logger: l}}).Listen(within(t))
		},
		"base": func(o *mqtt.ClientOptions, l *slog.Logger) (transport.Listener, error) {
			return (&Base{Broker: b.URL(), ToBase: "a", FromBase: "b", ClientOptions: o, Logger: l}).Listen(within(t))
		},
	} {
		t.Run(name, func(t *testing.T) {
			failures := make(chan error, 100)
			o := mqtt.NewClientOptions().SetConnectionNotificationHandler(func(_ mqtt.Client, n mqtt.ConnectionNotification) {
				if failed, ok := n.(mqtt.ConnectionNotificationFailed); ok {
					failures <- failed.Reason
				}
			})
			j := newJournal()
			l, err := listen(o, slog.New(j))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			b.Stop()
			<-failures
			<-failures
			b.Start()
			j.await(t, "the broker can be used again")
			for _, text := range []string{"the connection to the broker was lost err=", "the broker cannot be used"} {
				if n := j.count(text); n != 1 {
					t.Errorf("%d lines with %q in %q", n, text, j.lines)
				}
			}
		})
	}
}

// A broker that takes the connection and says nothing is told as that, within the documented time, and may be tried again.
func TestSilentBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	options := mqtt.NewClientOptions().SetConnectTimeout(50 * time.Millisecond)
	for scheme, says := range map[string]string{"mqtt": "takes the connection and does not answer", "mqtts": "no answer for 50ms"} {
		broker := scheme + "://" + l.Addr().String()
		_, dialled := (&Transport{Broker: broker, Peer: "x", ClientOptions: options}).Dial(within(t))
		_, based := (&Base{Broker: broker, ToBase: "a", FromBase: "b", ClientOptions: options}).Dial(within(t))
		for _, err := range []error{dialled, based} {
			if err == nil || !transport.Retryable(err) || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, retryable: %v", scheme, err, transport.Retryable(err))
			}
		}
	}
}

// Whoever ends the context of a Dial gets the context's error, whatever the cause, and no reason to dial again.
func TestDialEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts: a broker that does not answer
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	broker := "mqtt://" + l.Addr().String()
	for _, tr := range []transport.Transport{&Transport{Broker: broker, Peer: "x"}, &Base{Broker: broker, ToBase: "a", FromBase: "b"}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(20*time.Millisecond, func() { cancel(errors.New("the user has had enough")) })
		if _, err := tr.Dial(ctx); !errors.Is(err, context.Canceled) || transport.Retryable(err) {
			t.Errorf("%T: %v, retryable: %v", tr, err, transport.Retryable(err))
		}
	}
}

// A hub whose broker refuses says so, and nothing about how it was made.
func TestHubSaysWhyItIsNotConnected(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{Password: "secret"})
	o := userOptions(b, "x").SetConnectRetry(true).SetConnectRetryInterval(time.Millisecond)
	j := newJournal()
	h, err := Attach(o, &HubOptions{Config: native.Config{Logger: slog.New(j)}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	client := mqtt.NewClient(o)
	defer client.Disconnect(0)
	ctx, cancel := context.WithCancel(t.Context())
	dialled := make(chan error)
	go func() {
		_, err := h.Peer("y").Dial(ctx)
		dialled <- err
	}()
	client.Connect()
	j.await(t, "the broker cannot be used")
	cancel()
	if err := <-dialled; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "Password") || strings.Contains(err.Error(), "Attach") {
		t.Error(err)
	}
}

// What a client says of its own end while it connects is no news of the broker.
func TestOwnEndIsNotLogged(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	j := newJournal()
	tr := &Transport{Broker: b.URL(), Name: "x", Config: native.Config{Logger: slog.New(j)}}
	l, err := tr.Listen(within(t))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	tr.hub.failed(errors.New("operation was canceled"))
	if n := j.count("the broker cannot be used"); n > 0 {
		t.Errorf("%d lines", n)
	}
}

// A broker that ends connections instead of saying what it does not allow.
func TestSevereBroker(t *testing.T) {
	for name, c := range map[string]struct {
		name, topic string
		write       bool
		wants       string
	}{
		"inbox":    {"x", "pf/i/x/+", false, `"x" read pf/i/x/+`},
		"presence": {"x", "pf/p/x", true, `use pf/p/x`},
		"dial":     {"", "pf/i/y/", true, `write pf/i/+/pf-`},
	} {
		t.Run(name, func(t *testing.T) {
			b := testbroker.Embedded(t, testbroker.Options{Severe: true, Deny: func(_, topic string, write bool) bool {
				return write == c.write && strings.HasPrefix(topic, c.topic)
			}})
			ctx, cancel := context.WithCancel(t.Context())
			over := make(chan struct{})
			tr := &Transport{Broker: b.URL(), Name: c.name, Peer: "y", ClientOptions: mqtt.NewClientOptions().SetReconnectingHandler(
				func(mqtt.Client, *mqtt.ClientOptions) {
					cancel()
					<-over
				})}
			_, err := tr.Dial(ctx)
			close(over)
			if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), c.wants) {
				t.Errorf("%v, want one with %s", err, c.wants)
			}
		})
	}
}

// A receiver whose answers the broker does not let through hears so in its log: its peers can only hear nothing.
func TestMuteReceiverInTheLog(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{Deny: func(_, _ string, write bool) bool { return write }})
	j := newJournal()
	l, err := (&Transport{Broker: b.URL(), Name: "x", Config: native.Config{Logger: slog.New(j)}}).Listen(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	j.await(t, "what is published on pf/p/x does not come back")
}

// Nonsense on the topic of a BASE does not fill the log.
func TestSeldom(t *testing.T) {
	j := newJournal()
	var s seldom
	for range 1000 {
		s.warn(slog.New(j), "strange")
	}
	s.told = time.Now().Add(-seldomPause)
	s.warn(slog.New(j), "strange")
	if len(j.lines) != 2 || !strings.Contains(j.lines[1], "more before=999") {
		t.Errorf("%q", j.lines)
	}
}

// Whoever waits while the broker is away hears why, however the waiting ends.
func TestWaitingForTheBrokerSaysWhy(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	receive(t, &Transport{Broker: b.URL(), Name: "receiver"})
	j := newJournal()
	c := dial(t, &Transport{Broker: b.URL(), Peer: "receiver", Config: native.Config{IdleTimeout: time.Second, Logger: slog.New(j)}})
	b.Stop()
	j.await(t, "the broker cannot be used")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, ended := send(ctx, c, "image", []byte("1"))
	_, idle := send(within(t), c, "image", []byte("2"))
	_, lost := send(within(t), c, "image", []byte("3")) // the session is over now
	b.Start()
	for err, is := range map[error]error{ended: context.DeadlineExceeded, idle: transport.ErrIdle, lost: transport.ErrIdle} {
		if !errors.Is(err, is) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("%v, want %v and why", err, is)
		}
	}
}

// A receiver whose answers do not arrive hears why its peer leaves.
func TestUnansweredPeerSaysSo(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{Deny: func(_, topic string, write bool) bool {
		return write && strings.HasPrefix(topic, inboxTopic("camera", "x")[:len("pf/i/camera/")])
	}})
	l, err := (&Transport{Broker: b.URL(), Name: "receiver"}).Listen(within(t))
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	srv := &transport.Server{Store: &transport.MemStore{}, Hooks: transport.Hooks{ConnClosed: func(_ transport.Info, err error) { left <- err }}}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	if _, err := (&Transport{Broker: b.URL(), Name: "camera", Peer: "receiver"}).Dial(within(t)); !errors.Is(err, transport.ErrNoReceiver) {
		t.Error(err)
	}
	select {
	case err := <-left:
		if !errors.Is(err, transport.ErrIdle) || !strings.Contains(err.Error(), "hears no answer of this side") {
			t.Error(err)
		}
	case <-within(t).Done():
		t.Error("the receiver does not hear that its peer has left")
	}
	if err := srv.Shutdown(within(t)); err != nil {
		t.Error(err)
	}
	<-served
}
