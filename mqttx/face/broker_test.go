package face

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/transport"
)

// Defects: the field's service loses a record that it cannot deliver at once, and blocks
// its MQTT thread while it tries.
func TestHandlerFails(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	var mu sync.Mutex
	calls := 0
	d := serve(t, b, &Transport{}, func(s *transport.Server) {
		s.Handler = func(_ context.Context, in *transport.Incoming) error {
			mu.Lock()
			defer mu.Unlock()
			if calls++; in.Image.Meta["num"] == "2" {
				return transport.Reject("never")
			}
			if calls < 4 {
				return errors.New("not now")
			}
			return nil
		}
	})
	p := newPeer(t, b, down)
	for _, num := range []string{"1", "2", "3"} {
		p.publish(up, verified(element(num, []byte("x"))))
	}
	d.expect(t, "1", []byte("x"))
	d.expect(t, "3", []byte("x"))
	if err := await(t, "trouble", d.trouble); !strings.Contains(err.Error(), "never") {
		t.Error(err)
	}
	if mu.Lock(); calls != 6 {
		t.Errorf("the Handler was called %d times for 3 failures, a refusal and 2 records", calls)
	}
	mu.Unlock()
}

// A Handler that hands on to another service, which goes away, does not hold up its terminal for longer than that.
func TestSomebodyElseGoesAway(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	calls := 0
	d := serve(t, b, &Transport{}, func(s *transport.Server) {
		s.Handler = func(context.Context, *transport.Incoming) error {
			if calls++; calls <= 5 {
				return &transport.RejectedError{Reason: transport.ReasonGoingAway, Retryable: true}
			}
			return nil
		}
	})
	p := newPeer(t, b, down)
	p.publish(up, verified(element("1", []byte("x"))))
	p.publish(up, verified(element("2", []byte("x"))))
	d.expect(t, "1", []byte("x"))
	d.expect(t, "2", []byte("x"))
}

// While a Handler is slow heartbeats are answered, and what does not fit into the queue
// is dropped, the oldest first.
func TestSlowHandler(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	entered, open := make(chan struct{}, 100), make(chan struct{})
	d := serve(t, b, &Transport{Queue: 5 * (1000 + overhead)}, func(s *transport.Server) {
		s.Handler = func(context.Context, *transport.Incoming) error { entered <- struct{}{}; <-open; return nil }
	})
	p := newPeer(t, b, down)
	record := func(n int) string { // of 1000 bytes
		s := verified(element(fmt.Sprint(n), []byte{byte(n)}))
		return s + strings.Repeat(" ", 1000-len(s))
	}
	p.publish(up, record(0))
	await(t, "the Handler", entered)
	for n := 1; n <= 8; n++ {
		p.publish(up, record(n))
	}
	p.publish(up, `{"cmd": "heartU"}`)
	await(t, "heartD while a Handler is slow", p.got)
	for range 3 {
		if err := await(t, "a drop", d.trouble); !errors.Is(err, ErrDropped) {
			t.Error(err)
		}
	}
	close(open)
	for _, n := range []int{0, 4, 5, 6, 7, 8} {
		d.expect(t, fmt.Sprint(n), []byte{byte(n)})
	}
}

// A terminal whose Handler is slow holds up no other, and no heartbeat, whatever the broker delivers without an
// acknowledgement (mosquitto: 20 messages).
func TestOneSlowTerminal(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		open := make(chan struct{})
		defer close(open)
		d := serve(t, b, &Transport{Serials: []string{"SN1", "SN2"}}, func(s *transport.Server) {
			s.Handler = func(_ context.Context, in *transport.Incoming) error {
				if in.Image.Source == "SN1" {
					<-open
				}
				return nil
			}
		})
		p := newPeer(t, b, down)
		for n := range 50 {
			p.publish(up, verified(element(fmt.Sprint(n), []byte("x"))))
		}
		p.publish("fungxi_SN2_upLink", verified(element("7", []byte("y"))))
		d.expect(t, "7", []byte("y"))
		p.publish(up, `{"cmd": "heartU"}`)
		await(t, "heartD", p.got)
	})
}

func TestBrokerRestart(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		d := serve(t, b, &Transport{}, nil)
		c := dial(t, b, &Transport{})
		for n := range 2 {
			content := []byte{1, 2, byte(n)}
			if _, err := c.Send(within(t), &transport.Image{Body: transport.Bytes(content)}, nil); err != nil {
				t.Fatal("send:", err)
			}
			got := await(t, "an image", d.images)
			if !bytes.Equal(got.body, content) {
				t.Errorf("got %v", got.body)
			}
			if n == 1 {
				if err := got.Conn.SendMessage(within(t), transport.Message{Data: []byte("x")}); err != nil {
					t.Error("command:", err)
				}
				break
			}
			b.Stop()
			waitUp(t, c.(*terminal).client, false)
			if err := c.SendMessage(ended(t), transport.Message{Type: "heartU"}); err == nil {
				t.Error("SendMessage while there is no broker succeeds")
			}
			b.Start()
			waitUp(t, c.(*terminal).client, true)
			waitUp(t, got.Conn.(*service).l.client, true)
		}
	})
}

// ended returns a context that soon ends.
func ended(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// waitUp waits until a client has lost its first connection, or has another one.
func waitUp(t testing.TB, c *client, want bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		c.mu.Lock()
		up := c.isUp == want && c.lives > 1
		c.mu.Unlock()
		if up {
			return
		}
	}
	t.Fatal("the client does not notice that the broker is gone, or back")
}

// With a ClientID the broker keeps what is published while the service is away, and what
// the service had not finished.
func TestSession(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		tr := func() *Transport { return &Transport{ClientID: "service"} }
		d := serve(t, b, tr(), func(s *transport.Server) {
			s.Handler = func(ctx context.Context, in *transport.Incoming) error {
				if in.Image.Meta["num"] == "2" {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}
		})
		p := newPeer(t, b, down)
		for _, num := range []string{"1", "2", "3"} {
			p.publish(up, verified(element(num, []byte("x"))))
		}
		d.expect(t, "1", []byte("x"))
		d.srv.Shutdown(ended(t))
		p.publish(up, verified(element("4", []byte("x"))))
		d = serve(t, b, tr(), nil)
		got := make(map[string]int) // in any order, which the embedded broker does not keep
		for range 3 {
			got[string(await(t, "a record that the broker has kept", d.images).record.Num)]++
		}
		if got["2"] != 1 || got["3"] != 1 || got["4"] != 1 {
			t.Errorf("the broker has kept %v", got)
		}
	})
}

// What has been received when Serve's context ends is still handed over.
func TestDrain(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	tr := &Transport{Broker: b.URL(), Serials: []string{"SN1"}}
	l, err := tr.Listen(within(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	srv := &transport.Server{Handler: func(_ context.Context, in *transport.Incoming) error {
		if got = append(got, in.Image.Meta["num"]); len(got) == 1 {
			s := in.Conn.(*service)
			for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				s.lane.q.mu.Lock()
				n := len(s.lane.waiting)
				s.lane.q.mu.Unlock()
				if n == 2 {
					break
				}
			}
			cancel()
		}
		return nil
	}}
	served := make(chan error)
	go func() { served <- srv.Serve(ctx, l) }()
	p := newPeer(t, b, down)
	for n := range 3 {
		p.publish(up, verified(element(fmt.Sprint(n), []byte("x"))))
	}
	if err := await(t, "the end of Serve", served); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if fmt.Sprint(got) != "[0 1 2]" {
		t.Errorf("handled were %v", got)
	}
	srv.Shutdown(within(t))
}
