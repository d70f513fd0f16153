package face

import (
	"context"
	"fmt"
	"strings"
	"testing"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/transport"
)

// A command that the broker has kept opens no door.
func TestRetainedCommand(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	p := newPeer(t, b, down)
	if token := p.client.Publish(down, 1, true, `{"cmd": "openDoorD"}`); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	await(t, "the command itself", p.got) // the broker hands it out after it has confirmed it
	c := dial(t, b, &Transport{})
	got := make(chan string, 10)
	srv := &transport.Server{Message: func(_ context.Context, _ transport.Conn, m transport.Message) error {
		got <- string(m.Data)
		return nil
	}}
	served := make(chan error, 1)
	go func() { served <- srv.ServeConn(t.Context(), c) }()
	p.publish(down, `{"cmd": "probe"}`)
	if first := await(t, "a command", got); first != `{"cmd": "probe"}` {
		t.Errorf("%s was obeyed", first)
	}
	srv.Shutdown(within(t))
	<-served
}

// What was dropped from the queue is out of the client's memory too.
func TestDroppedIsForgotten(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	open := make(chan struct{})
	store := mqtt.NewMemoryStore()
	const size, room, sent = 10_000, 10, 100
	d := serve(t, b, &Transport{Queue: room * (size + overhead), ClientOptions: mqtt.NewClientOptions().SetStore(store)}, func(s *transport.Server) {
		s.Handler = func(context.Context, *transport.Incoming) error { <-open; return nil }
	})
	p := newPeer(t, b, down)
	for n := range sent {
		s := verified(element(fmt.Sprint(n), []byte{1, byte(n)}))
		p.publish(up, s+strings.Repeat(" ", size-len(s)))
	}
	for range sent - room - 1 { // one is with the Handler
		await(t, "a loss", d.trouble)
	}
	if n := len(store.All()); n > room+2 {
		t.Errorf("the client holds %d records, of which %d are in the queue", n, room)
	}
	close(open)
}

// A null is no value.
func TestNull(t *testing.T) {
	r, err := HFSecurity.Parse([]byte(`{"operator": "RecPush", "info": {"customId": null, "personId": "7", "pic": null, "snapPic": "aGk="}}`))
	if err != nil {
		t.Fatal(err)
	}
	for rec, err := range r.Records() {
		picture, broken := rec.Decode()
		if err != nil || broken != nil || string(picture) != "hi" || text(rec.Num) != "7" {
			t.Errorf("num %s, picture %q, %v, %v", rec.Num, picture, err, broken)
		}
	}
}
