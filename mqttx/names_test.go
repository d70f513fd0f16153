package mqttx

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

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
