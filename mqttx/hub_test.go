package mqttx

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"golang.org/x/sync/errgroup"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/transport"
)

// userOptions are a program's own, with a client ID.
func userOptions(b testbroker.Broker, id string) *mqtt.ClientOptions {
	return mqtt.NewClientOptions().AddBroker(b.URL()).SetClientID(id).SetProtocolVersion(4).SetMaxReconnectInterval(200 * time.Millisecond)
}

// connect connects a program's own client until the end of the test.
func connect(t testing.TB, o *mqtt.ClientOptions) mqtt.Client {
	t.Helper()
	c := mqtt.NewClient(o)
	done(t, c.Connect())
	t.Cleanup(func() { c.Disconnect(100) })
	return c
}

func done(t testing.TB, token mqtt.Token) {
	t.Helper()
	if !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
}

// attach makes a hub on a client that it connects.
func attach(t testing.TB, o *mqtt.ClientOptions, ho *HubOptions) (*Hub, mqtt.Client) {
	t.Helper()
	h, err := Attach(o, ho)
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, o)
	t.Cleanup(func() { h.Close() })
	return h, c
}

// A program sends to many devices through one client that has other traffic, on a
// subscription of everything and on one of its own, with its own handlers and will.
func TestUsersClient(t *testing.T) {
	const devices, size = 20, 500_000
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		var connected, all, own atomic.Int64
		o := userOptions(b, "program").SetWill("program/gone", "gone", 1, false).
			SetOnConnectHandler(func(mqtt.Client) { connected.Add(1) })
		h, client := attach(t, o, nil)
		if o.WillTopic != "program/gone" {
			t.Error("the user's will is", o.WillTopic)
		}
		last := make(chan struct{})
		done(t, client.Subscribe("#", 1, func(_ mqtt.Client, m mqtt.Message) {
			if strings.HasPrefix(m.Topic(), "own/") {
				all.Add(1)
			}
		}))
		done(t, client.Subscribe("own/+", 1, func(_ mqtt.Client, m mqtt.Message) {
			own.Add(1)
			if string(m.Payload()) == "last" {
				close(last)
			}
		}))
		content := random(size)
		var group errgroup.Group
		for i := range devices {
			name := fmt.Sprint("device/", i)
			r := receive(t, &Transport{Broker: b.URL(), Name: name})
			c := dial(t, h.Peer(name))
			group.Go(func() error {
				_, err := send(within(t), c, "image", content)
				if err == nil {
					r.expect(t, "image", content)
				}
				return err
			})
		}
		const published = 200
		for i := range published {
			payload := fmt.Sprint(i)
			if i == published-1 {
				payload = "last"
			}
			done(t, client.Publish("own/x", 1, false, payload))
		}
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
		<-last
		// Whether overlapping subscriptions give a message once or twice is the broker's.
		if own.Load() < published || all.Load() != own.Load() || connected.Load() != 1 {
			t.Errorf("the user's handlers got %d and %d of %d messages; connected %d times", own.Load(), all.Load(), published, connected.Load())
		}
		for _, c := range h.sessions.all(everyone) {
			if size := c.session.MaxMessage(); size > sharedSize {
				t.Errorf("messages of %d bytes on a client that is shared", size)
			}
		}
		h.Close()
		own.Store(0)
		if !client.IsConnectionOpen() {
			t.Error("closing the hub has disconnected the user's client")
		}
		client.Publish("own/x", 1, false, "after")
		for own.Load() == 0 {
			select {
			case <-within(t).Done():
				t.Fatal("the user's subscription has gone")
			case <-time.After(time.Millisecond):
			}
		}
	})
}

func TestHubListensAndSurvivesTheBroker(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		h, _ := attach(t, userOptions(b, "service"), nil)
		r := receive(t, h)
		c := dial(t, &Transport{Broker: b.URL(), Peer: "service"})
		mustSend(t, c, "before", []byte("1"))
		b.Stop()
		b.Start()
		mustSend(t, c, "after", []byte("22"))
		r.expect(t, "after", []byte("22"))
	})
}

// A hub that was closed leaves its name to others, also when the user's client is connected anew.
func TestClosedHubStaysClosed(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		h1, client := attach(t, userOptions(b, "id1"), &HubOptions{Name: "receiver"})
		receive(t, h1)
		h1.Close()
		h1.connected(client)
		h1.presence.mu.Lock()
		if !h1.presence.since.IsZero() {
			h1.presence.since = h1.presence.since.Add(-claimTime) // it would stand
		}
		h1.presence.mu.Unlock()
		h2, _ := attach(t, userOptions(b, "id2"), &HubOptions{Name: "receiver"})
		r := receive(t, h2)
		mustSend(t, dial(t, &Transport{Broker: b.URL(), Peer: "receiver"}), "image", []byte("1"))
		r.expect(t, "image", []byte("1"))
	})
}

// Without the order of handlers messages come in disorder, and images arrive all the same.
func TestHubWithoutOrder(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	h, _ := attach(t, userOptions(b, "service").SetOrderMatters(false), nil)
	r := receive(t, h)
	content := random(3 << 20)
	mustSend(t, dial(t, &Transport{Broker: b.URL(), Peer: "service"}), "image", content)
	r.expect(t, "image", content)
}

func TestAttachRefuses(t *testing.T) {
	if _, err := Attach(nil, nil); !errors.Is(err, transport.ErrConfig) {
		t.Error("no options")
	}
	if _, err := Attach(mqtt.NewClientOptions().AddBroker("tcp://127.0.0.1:1"), nil); !errors.Is(err, transport.ErrConfig) {
		t.Error("a hub without a name")
	}
	if _, err := Attach(mqtt.NewClientOptions(), &HubOptions{Name: "x"}); err == nil {
		t.Error("a hub without a broker")
	}
	if _, err := Attach(mqtt.NewClientOptions().AddBroker("tcp://127.0.0.1:1"), &HubOptions{Name: "x", MaxMessage: 10}); !errors.Is(err, transport.ErrConfig) {
		t.Error("messages that are too small for anything:", err)
	}
	if _, err := Attach(mqtt.NewClientOptions().AddBroker("tcp://127.0.0.1:1"), &HubOptions{Name: strings.Repeat("x", maxName+1)}); err == nil {
		t.Error("a name that is too long")
	}
}

func TestHubIsNotATransportToDial(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	h, _ := attach(t, userOptions(b, "service"), nil)
	if _, err := h.Dial(t.Context()); err == nil || !strings.Contains(err.Error(), "hub.Peer") {
		t.Error(err)
	}
	if _, err := h.Peer("").Dial(t.Context()); err == nil || transport.Retryable(err) {
		t.Error(err)
	}
	if _, err := h.Peer(strings.Repeat("%", maxName)).Dial(t.Context()); err == nil || transport.Retryable(err) {
		t.Error(err)
	}
}

func TestHubIsNotConnected(t *testing.T) {
	h, err := Attach(mqtt.NewClientOptions().AddBroker("tcp://127.0.0.1:1"), &HubOptions{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Peer("y").Dial(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	h.Close()
	if _, err := h.Peer("y").Dial(t.Context()); !errors.Is(err, transport.ErrClosed) {
		t.Error(err)
	}
	if _, err := h.Listen(t.Context()); !errors.Is(err, transport.ErrClosed) {
		t.Error(err)
	}
}

// One client sends to 500 devices at once.
func TestFiveHundredDevices(t *testing.T) {
	if testing.Short() {
		t.Skip("500 connections")
	}
	const devices = 500
	b := testbroker.Embedded(t, testbroker.Options{})
	content := random(40_000)
	var group errgroup.Group
	group.SetLimit(32)
	for i := range devices {
		group.Go(func() error {
			tr := &Transport{Broker: b.URL(), Name: fmt.Sprint("dev-", i)}
			l, err := tr.Listen(within(t))
			if err != nil {
				return err
			}
			srv := &transport.Server{Handler: func(context.Context, *transport.Incoming) error { return nil }}
			go srv.Serve(context.Background(), l)
			t.Cleanup(func() { srv.Shutdown(context.Background()) })
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	h, _ := attach(t, userOptions(b, "service"), nil)
	began := time.Now()
	conns := make([]transport.Conn, devices)
	for i := range conns {
		group.Go(func() error { // all at once might wait longer than 3 s for an answer on a busy machine
			return transport.Retry(t.Context(), nil, func(ctx context.Context) (err error) {
				conns[i], err = h.Peer(fmt.Sprint("dev-", i)).Dial(ctx)
				return err
			})
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	group = errgroup.Group{}
	for _, c := range conns {
		group.Go(func() error {
			defer c.Close()
			_, err := send(t.Context(), c, "image", content)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%v for %d devices", time.Since(began), devices)
}
