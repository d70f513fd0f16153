package mqttx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// A broker that loses messages, with and without telling their sender that it has them.
func TestLossyBroker(t *testing.T) {
	for name, fault := range map[string]testbroker.Fault{"lost": testbroker.Lose, "devoured": testbroker.Devour} {
		t.Run(name, func(t *testing.T) {
			b := testbroker.Embedded(t, testbroker.Options{})
			r := receive(t, &Transport{Broker: b.URL(), Name: "receiver"})
			from := &Transport{Broker: b.URL(), Peer: "receiver"}
			c := dial(t, from)
			var messages, harmed atomic.Int64
			b.SetFaults(func(topic string, payload []byte) testbroker.Fault {
				if !strings.HasPrefix(topic, inboxPrefix) || messages.Add(1)%8 > 0 {
					return testbroker.None
				}
				harmed.Add(1)
				return fault
			})
			content := random(8 << 20)
			mustSend(t, c, "image", content)
			r.expect(t, "image", content)
			if resent := stats(from).ResentBytes; harmed.Load() < 5 || resent == 0 || resent > 8<<20 {
				t.Errorf("%d of %d messages were harmed, %d bytes sent again", harmed.Load(), messages.Load(), resent)
			}
		})
	}
}

// A broker that drops messages over a limit, or breaks the connection of who sends one,
// without saying why.
func TestLimitedBroker(t *testing.T) {
	const limit = 100_000
	for name, start := range map[string]func(t *testing.T) testbroker.Broker{
		"disconnects": func(t *testing.T) testbroker.Broker {
			return testbroker.Embedded(t, testbroker.Options{MaxPacket: limit})
		},
		"drops": func(t *testing.T) testbroker.Broker {
			return testbroker.Mosquitto(t, fmt.Sprint("message_size_limit ", limit))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t)
			r := receive(t, &Transport{Broker: b.URL(), Name: "receiver"})
			from := &Transport{Broker: b.URL(), Peer: "receiver"}
			c := dial(t, from)
			content := random(12 << 20)
			for i := range 2 {
				mustSend(t, c, fmt.Sprint(i), content)
				r.expect(t, fmt.Sprint(i), content)
			}
			// The connection that ends takes with it what is on its way: at most a window.
			if resent := stats(from).ResentBytes; resent > 4<<20+limit {
				t.Errorf("%d bytes were sent again", resent)
			}
			if size := from.hub.sessions.all(everyone)[0].session.MaxMessage(); size != 64<<10 {
				t.Errorf("messages of %d bytes, want the largest that fit", size)
			}
			if name == "drops" { // which is known for sure only after some time
				return
			}
			if lives := connections(from); lives != 2 {
				t.Errorf("%d connections, one of which a message should have ended", lives)
			}
			c.Close()
			mustSend(t, dial(t, from), "again", content)
			if lives := connections(from); lives != 1 {
				t.Errorf("%d connections: what the broker takes was forgotten", lives)
			}
		})
	}
}

// A broker that takes even less than sessions begin with.
func TestMaxMessage(t *testing.T) {
	b := testbroker.Mosquitto(t, "message_size_limit 5000")
	r := receive(t, &Transport{Broker: b.URL(), Name: "receiver", MaxMessage: 4 << 10})
	c := dial(t, &Transport{Broker: b.URL(), Peer: "receiver", MaxMessage: 4 << 10})
	content := random(1 << 20)
	mustSend(t, c, "image", content)
	r.expect(t, "image", content)
}

// A broker that refuses says so at once and for good.
func TestRefusingBroker(t *testing.T) {
	password := testbroker.Embedded(t, testbroker.Options{Password: "secret"})
	inbox := testbroker.Embedded(t, testbroker.Options{Deny: func(_, topic string, write bool) bool {
		return !write && strings.HasPrefix(topic, inboxPrefix)
	}})
	anonymous := testbroker.Mosquitto(t, "allow_anonymous false")
	for name, c := range map[string]struct {
		t    *Transport
		want string
	}{
		"password":     {&Transport{Broker: password.URL(), Username: "u", Password: "wrong"}, "Password"},
		"anonymous":    {&Transport{Broker: anonymous.URL()}, "Password"},
		"subscription": {&Transport{Broker: inbox.URL()}, "pf/i/"},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			c.t.Name, c.t.Peer = "me", "receiver"
			_, err := c.t.Dial(within(t))
			if err == nil || transport.Retryable(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("dial: %v (retryable: %v), want one with %q", err, transport.Retryable(err), c.want)
			}
			_, err = c.t.Listen(within(t))
			if err == nil || transport.Retryable(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("listen: %v", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	ok := &Transport{Broker: password.URL(), Name: "receiver", Username: "u", Password: "secret"}
	r := receive(t, ok)
	c := dial(t, &Transport{Broker: strings.Replace(password.URL(), "//", "//u:secret@", 1), Peer: "receiver"})
	mustSend(t, c, "image", []byte("1"))
	r.expect(t, "image", []byte("1"))
}

// A broker that refuses after a restart, and then no more, is said and used again.
func TestRefusedForAWhile(t *testing.T) {
	for _, subscription := range []bool{false, true} {
		var denied atomic.Bool
		b := testbroker.Embedded(t, testbroker.Options{Deny: func(_, topic string, write bool) bool { return subscription && denied.Load() && !write }})
		at := &Transport{Broker: b.URL(), Name: "receiver"}
		r, c := receive(t, at), dial(t, &Transport{Broker: b.URL(), Peer: "receiver"})
		restart := func(deny bool) {
			b.Stop()
			if denied.Store(deny); !subscription {
				b.SetPassword(map[bool]string{true: "secret"}[deny])
			}
			b.Start()
		}
		restart(true)
		for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			at.hub.mu.Lock()
			why := errors.Join(at.hub.why, at.hub.err)
			at.hub.mu.Unlock()
			if why != nil && !transport.Retryable(why) {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the broker refuses nothing")
			}
		}
		restart(false)
		content := random(3000)
		mustSend(t, c, "image", content)
		r.expect(t, "image", content)
	}
}

func TestNoBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	silent := "mqtt://" + l.Addr().String() // takes connections and says nothing
	for broker, want := range map[string]string{
		"":                      "set Broker",
		"localhost":             "write for example mqtt://",
		"127.0.0.1:1883":        "write for example mqtt://",
		"http://localhost":      "write for example mqtt://",
		"mqtt://":               "host",
		"mqtt://127.0.0.1:1":    "cannot connect",
		"mqtts://127.0.0.1:1":   "cannot connect",
		"ws://127.0.0.1:1/mqtt": "cannot connect",
		silent:                  "deadline",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		began := time.Now()
		_, err := (&Transport{Broker: broker, Peer: "receiver"}).Dial(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q in it", broker, err, want)
		}
		if mistake := !strings.HasPrefix(want, "cannot") && want != "deadline"; errors.Is(err, transport.ErrConfig) != mistake {
			t.Errorf("%q: %v; a mistake of configuration: %v", broker, err, mistake)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%q: %v", broker, took)
		}
	}
}

func TestMistakesInTransports(t *testing.T) {
	const broker = "mqtt://127.0.0.1:1"
	_, noPeer := (&Transport{Broker: broker}).Dial(t.Context())
	_, self := (&Transport{Broker: broker, Name: "me", Peer: "me"}).Dial(t.Context())
	_, noName := (&Transport{Broker: broker}).Listen(t.Context())
	small := &Transport{Broker: broker, Name: "me", Peer: "you", MaxMessage: -1}
	_, smallDial := small.Dial(t.Context())
	_, smallListen := small.Listen(t.Context())
	hasty := &Transport{Broker: broker, Name: "me", Peer: "you", Config: native.Config{IdleTimeout: 30}}
	_, hastyDial := hasty.Dial(t.Context())
	_, hastyListen := hasty.Listen(t.Context())
	for err, want := range map[error]string{
		noPeer: "Transport.Peer", self: "own name", noName: "Transport.Name", smallDial: "MaxMessage is -1", smallListen: "MaxMessage is -1",
		hastyDial: "IdleTimeout is 30ns", hastyListen: "IdleTimeout is 30ns",
	} {
		if !errors.Is(err, transport.ErrConfig) || transport.Retryable(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q in a mistake of configuration", err, want)
		}
	}
}

// The answer to a Dial that was given up begins no session at an endpoint that listens too.
func TestLateAnswerToDial(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	receive(t, &Transport{Broker: b.URL(), Name: "a"})
	both := &Transport{Broker: b.URL(), Name: "b", Peer: "a"}
	l, err := both.Listen(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	late, given := make(chan struct{}), make(chan struct{}, 100)
	b.SetFaults(func(topic string, _ []byte) testbroker.Fault {
		if strings.HasPrefix(topic, inboxTopic("b", "a")) {
			given <- struct{}{}
			<-late
		}
		return testbroker.None
	})
	ctx, cancel := context.WithCancel(within(t))
	dialled := make(chan error)
	go func() {
		_, err := both.Dial(ctx)
		dialled <- err
	}()
	<-given // the answer is on its way
	cancel()
	if err := <-dialled; err == nil {
		t.Fatal("the answer was in time")
	}
	close(late)
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if c, err := l.Accept(ctx); err == nil {
		t.Errorf("a Conn with %q was accepted, which has dialled nobody", c.Info().Peer)
		c.Close()
	}
}

// A broker that has crashed a few times, and was there again at once, is no other client.
func TestBrokerCrashesQuickly(t *testing.T) {
	b := testbroker.Mosquitto(t, "")
	at, from := &Transport{Broker: b.URL(), Name: "receiver"}, &Transport{Broker: b.URL(), Peer: "receiver"}
	r, c := receive(t, at), dial(t, from)
	for i := range suspectShort + 1 {
		before := []int{connections(at), connections(from)}
		b.Stop()
		b.Start()
		for end := time.Now().Add(patience); connections(at) == before[0] || connections(from) == before[1]; time.Sleep(10 * time.Millisecond) {
			if at.hub.failure() != nil || from.hub.failure() != nil || time.Now().After(end) {
				t.Fatalf("crash %d: the receiver: %v, the sender: %v", i+1, at.hub.failure(), from.hub.failure())
			}
		}
	}
	content := random(100_000)
	mustSend(t, c, "a", content)
	r.expect(t, "a", content)
}

// A receiver that was restarted is noticed at once, not after the idle time.
func TestReceiverRestarts(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	start := func(id string) (stop func(), r *receiver) {
		h, client := attach(t, userOptions(b, id), &HubOptions{Name: "receiver"})
		r = receive(t, h)
		return func() {
			client.Disconnect(100) // so that nobody is told
			h.fail(errors.New("the program was killed"))
		}, r
	}
	stop, _ := start("1")
	c := dial(t, &Transport{Broker: b.URL(), Peer: "receiver", Config: native.Config{IdleTimeout: time.Minute}})
	mustSend(t, c, "1", []byte("1"))
	stop()
	_, r := start("2") // not "1": a client that comes back at once confuses the broker
	began := time.Now()
	mustSend(t, c, "2", []byte("2"))
	r.expect(t, "2", []byte("2"))
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}
