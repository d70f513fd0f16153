package testbroker

import (
	"fmt"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

func connect(t *testing.T, b Broker, password string) paho.Client {
	o := paho.NewClientOptions().AddBroker(b.URL()).SetProtocolVersion(4).SetAutoReconnect(false).SetUsername("u").SetPassword(password)
	c := paho.NewClient(o)
	token := c.Connect()
	if !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatalf("connect: %v", token.Error())
	}
	t.Cleanup(func() { c.Disconnect(100) })
	return c
}

// exchange publishes messages and returns those that arrive before the one at the end.
func exchange(t *testing.T, c paho.Client, payloads ...string) (got []string) {
	in := make(chan string, 100)
	if token := c.Subscribe("t", 1, func(_ paho.Client, m paho.Message) { in <- string(m.Payload()) }); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal("subscribe:", token.Error())
	}
	for _, p := range append(payloads, "end") {
		c.Publish("t", 1, false, p)
	}
	for {
		select {
		case p := <-in:
			if p == "end" {
				return got
			}
			got = append(got, p)
		case <-time.After(patience):
			t.Fatalf("only %v have arrived", got)
		}
	}
}

func TestBrokers(t *testing.T) {
	Each(t, func(t *testing.T, b Broker) {
		for range 3 {
			if got := exchange(t, connect(t, b, ""), "a", "b"); fmt.Sprint(got) != "[a b]" {
				t.Fatalf("got %v", got)
			}
			url := b.URL()
			b.Stop()
			b.Start()
			if b.URL() != url {
				t.Fatalf("%s is %s after a restart", url, b.URL())
			}
		}
	})
}

func TestFaults(t *testing.T) {
	b := Embedded(t, Options{Password: "secret"})
	c := connect(t, b, "secret")
	b.SetFaults(func(topic string, payload []byte) Fault {
		return map[string]Fault{"lost": Lose, "devoured": Devour}[string(payload)]
	})
	if got := exchange(t, c, "a", "devoured", "lost", "b"); fmt.Sprint(got) != "[a b]" {
		t.Fatalf("got %v", got)
	}
	if !c.Publish("t", 1, false, "devoured").WaitTimeout(patience) {
		t.Error("a devoured message is not acknowledged")
	}
	if c.Publish("t", 1, false, "lost").WaitTimeout(50 * time.Millisecond) {
		t.Error("a lost message is acknowledged")
	}
}
