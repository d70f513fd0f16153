package mqttx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/internal/wire"
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

// A receiver that begins while another has the name fails, and the other notices nothing.
func TestSecondReceiver(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		tr := &Transport{Broker: b.URL(), Name: "receiver"}
		first := receive(t, tr)
		if _, err := (&Transport{Broker: b.URL(), Name: "receiver"}).Listen(within(t)); !errors.Is(err, transport.ErrNameTaken) {
			t.Error(err)
		}
		mustSend(t, dial(t, &Transport{Broker: b.URL(), Peer: "receiver"}), "image", []byte("1"))
		first.expect(t, "image", []byte("1"))
		if lives := connections(tr); lives != 1 {
			t.Errorf("the first has had %d connections", lives)
		}
	})
}

// Of two receivers with one name, and one client ID, one gives up and the other goes on.
//
// Not with the embedded broker: when mochi takes a client over, the goroutine of the old
// connection may find it not marked yet, and forget the new one in its place, which then is
// sent nothing, and is not ended by the next one of its ID.
func TestSameClientID(t *testing.T) {
	b := testbroker.Mosquitto(t, "")
	first := receive(t, &Transport{Broker: b.URL(), Name: "receiver"})
	at := &Transport{Broker: b.URL(), Name: "receiver"}
	_ = at.check()
	var err error
	if at.hub, err = at.connect(); err != nil { // without a question whether another is there
		t.Fatal(err)
	}
	second := receive(t, at)
	ctx := within(t)
	other := first
	select {
	case err = <-first.done:
		other = second
	case err = <-second.done:
	case <-ctx.Done():
		t.Fatal("neither has given up")
	}
	if !errors.Is(err, transport.ErrClientIDTaken) && !errors.Is(err, transport.ErrNameTaken) || transport.Retryable(err) {
		t.Error(err)
	}
	t.Log(err)
	c := dial(t, &Transport{Broker: b.URL(), Peer: "receiver"})
	mustSend(t, c, "image", []byte("1"))
	other.expect(t, "image", []byte("1"))
	select {
	case err := <-other.done:
		t.Error("the other has given up too:", err)
	default:
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

// A broker that crashes again and again is no other client, and another client is no broker that crashes.
func TestWhoEndsConnections(t *testing.T) {
	ends := map[string]func(b testbroker.Broker){
		"broker": func(b testbroker.Broker) {
			b.Stop()
			b.Start()
		},
		"client": func(b testbroker.Broker) {
			other := mqtt.NewClient(userOptions(b, "receiver").SetAutoReconnect(false))
			done(t, other.Connect())
			other.Disconnect(0)
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			b := testbroker.Mosquitto(t, "")
			at := &Transport{Broker: b.URL(), Name: "receiver"}
			receive(t, at)
			for i, short := range []int{suspectShort, maxShort - 2} { // the first time a witness is called, which takes a broker
				before := connections(at)
				at.hub.mu.Lock()
				at.hub.short = short
				at.hub.mu.Unlock()
				if i == 0 {
					ends["client"](b)
				} else {
					end(b)
				}
				for deadline := time.Now().Add(patience); connections(at) == before; time.Sleep(5 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("it does not connect again:", at.hub.failure())
					}
				}
			}
			want := maxShort - 1
			if name == "broker" {
				want = 0
			}
			if short := at.hub.shortLives(); short != want {
				t.Errorf("%d connections count as ended by another client, want %d", short, want)
			}
		})
	}
}

// With client IDs of their own the second of two receivers is told when it begins.
func TestSameName(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		h1, _ := attach(t, userOptions(b, "id1"), &HubOptions{Name: "receiver"})
		first := receive(t, h1)
		h1.presence.mu.Lock()
		h1.presence.since = h1.presence.since.Add(-claimTime) // it has been there for a while
		h1.presence.mu.Unlock()
		h2, client := attach(t, userOptions(b, "id2"), &HubOptions{Name: "receiver"})
		if _, err := h2.Listen(within(t)); !errors.Is(err, transport.ErrNameTaken) {
			t.Errorf("%v", err)
		}
		if !client.IsConnectionOpen() {
			t.Error("the user's client was disconnected")
		}
		c := dial(t, &Transport{Broker: b.URL(), Peer: "receiver"})
		mustSend(t, c, "image", []byte("1"))
		first.expect(t, "image", []byte("1"))
	})
}

// Somebody who has overheard the ID of a session cannot use it under a name of his own.
func TestImpostor(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	r := receive(t, &Transport{Broker: b.URL(), Name: "receiver"})
	from := &Transport{Broker: b.URL(), Name: "camera", Peer: "receiver"}
	overheard := make(chan []byte, 100)
	impostor := connect(t, userOptions(b, "impostor"))
	done(t, impostor.Subscribe(inboxTopic("receiver", "camera"), 0, func(_ mqtt.Client, m mqtt.Message) { overheard <- m.Payload() }))
	c := dial(t, from)
	before := from.hub.sessions.all(everyone)[0]
	mustSend(t, c, "1", []byte("1"))
	var header wire.Header
	for header.Long = true; header.Long; {
		var err error
		if header, _, err = wire.Parse(<-overheard); err != nil {
			t.Fatal(err)
		}
	}
	header.Number += 100
	bye := wire.Close{Code: wire.CodeDone}
	done(t, impostor.Publish(inboxTopic("receiver", "impostor"), 1, false, wire.Seal(bye.Append(header.Append(nil)))))
	mustSend(t, c, "2", []byte("2"))
	r.expect(t, "2", []byte("2"))
	if after := from.hub.sessions.all(everyone); len(after) != 1 || after[0] != before {
		t.Error("the session was ended")
	}
}

// What a receiver left behind that has crashed keeps nobody out.
func TestPresenceLeftBehind(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	h, client := attach(t, userOptions(b, "id"), nil)
	left := presence{h: h, instance: 42}
	// Who has seen it come knows that the broker is through with it: from now on it is a retained one to everybody.
	seen := make(chan struct{})
	done(t, client.Subscribe(presenceTopic("receiver"), 1, func(mqtt.Client, mqtt.Message) { close(seen) }))
	done(t, client.Publish(presenceTopic("receiver"), 1, true, left.payload()))
	<-seen
	done(t, client.Unsubscribe(presenceTopic("receiver")))
	receive(t, &Transport{Broker: b.URL(), Name: "receiver"})
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

// The mosquitto lines of the package documentation let images through and keep names apart: those of users, whatever their
// clients call themselves, or those of clients.
func TestMosquittoACL(t *testing.T) {
	for of, c := range map[string]struct{ camera, liar, lies string }{
		"%u": {camera: "camera-1", liar: "third", lies: "third"},
		"%c": {camera: "camera/1", liar: "liar", lies: "camera/1"},
	} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			acl := filepath.Join(t.TempDir(), "acl")
			lines := fmt.Sprintf("pattern write pf/i/+/%[1]s\npattern read pf/i/%[1]s/+\npattern readwrite pf/p/%[1]s\n", of)
			if err := os.WriteFile(acl, []byte(lines), 0o644); err != nil {
				t.Fatal(err)
			}
			b := testbroker.Mosquitto(t, "acl_file "+acl)
			began := time.Now()
			r := receive(t, &Transport{Broker: b.URL(), Name: "receiver", Username: "receiver"})
			conn := dial(t, &Transport{Broker: b.URL(), Name: c.camera, Username: c.camera, Peer: "receiver"})
			if took := time.Since(began); took > rivalTime { // each has asked
				t.Errorf("it took %v to begin where the rules hide who has a name", took)
			}
			mustSend(t, conn, "image", []byte("1"))
			r.expect(t, "image", []byte("1"))

			// A client cannot write in another's name.
			from := make(chan string, 10)
			client := func(id, user string) mqtt.Client { return connect(t, userOptions(b, id).SetUsername(user)) }
			watch, liar := client("watch", "watch"), client(c.liar, "liar")
			done(t, watch.Subscribe(inboxFilter("watch"), 0, func(_ mqtt.Client, m mqtt.Message) { from <- m.Topic() }))
			done(t, liar.Publish(inboxTopic("watch", c.lies), 0, false, "a lie"))
			done(t, liar.Publish(inboxTopic("watch", "liar"), 0, false, "the truth"))
			if topic := <-from; topic != inboxTopic("watch", "liar") {
				t.Errorf("something came from %s", topic)
			}
		})
	}
}
