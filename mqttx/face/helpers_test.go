package face

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"go.uber.org/goleak"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func await[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("%s: nothing after %v", what, patience)
	}
	return v
}

// peer is a program in the field: it publishes bytes and sees bytes.
type peer struct {
	t      testing.TB
	client mqtt.Client
	got    chan string
}

func newPeer(t testing.TB, b testbroker.Broker, subscribe string) *peer {
	t.Helper()
	p := &peer{t: t, got: make(chan string, 1000)}
	o := mqtt.NewClientOptions().AddBroker(b.URL()).SetProtocolVersion(4).SetAutoReconnect(false)
	p.client = mqtt.NewClient(o)
	if token := p.client.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal("connect:", token.Error())
	}
	take := func(_ mqtt.Client, m mqtt.Message) { p.got <- string(m.Payload()) }
	if token := p.client.Subscribe(subscribe, 0, take); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal("subscribe:", token.Error())
	}
	t.Cleanup(func() { p.client.Disconnect(50) })
	return p
}

func (p *peer) publish(topic, payload string) {
	p.t.Helper()
	if token := p.client.Publish(topic, 1, false, payload); !token.WaitTimeout(patience) || token.Error() != nil {
		p.t.Fatal("publish:", token.Error())
	}
}

// An arrival is an image as the Handler saw it.
type arrival struct {
	*transport.Incoming
	record Record
	body   []byte
}

// A note is a message and who it comes from.
type note struct {
	transport.Message
	from transport.Conn
}

// A desk is a service that writes everything down.
type desk struct {
	srv      *transport.Server
	images   chan arrival
	messages chan note
	trouble  chan error
	beats    chan string
	ended    chan error
}

// serve runs a service until the end of the test.
func serve(t testing.TB, b testbroker.Broker, tr *Transport, setup func(*transport.Server)) *desk {
	t.Helper()
	d := &desk{
		images: make(chan arrival, 1000), messages: make(chan note, 1000), trouble: make(chan error, 10000),
		beats: make(chan string, 1000), ended: make(chan error, 1),
	}
	tr.Broker = b.URL()
	if tr.Serials == nil {
		tr.Serials = []string{"SN1"}
	}
	if tr.Retry == nil {
		tr.Retry = &transport.RetryPolicy{Initial: time.Millisecond, Max: 20 * time.Millisecond}
	}
	tr.OnTrouble = func(_ string, err error) { d.trouble <- err }
	tr.OnHeartbeat = func(sn string) { d.beats <- sn }
	d.srv = &transport.Server{Limits: transport.Limits{MaxMessage: 8 << 20}}
	if setup != nil {
		setup(d.srv)
	}
	first := d.srv.Handler
	d.srv.Handler = func(ctx context.Context, in *transport.Incoming) error {
		if first != nil {
			if err := first(ctx, in); err != nil {
				return err
			}
		}
		rec, ok := RecordOf(in)
		if !ok {
			return transport.Reject("no record")
		}
		content, err := in.Image.Body.ReadAll(ctx)
		if err != nil {
			return err
		}
		d.images <- arrival{in, rec, content}
		return nil
	}
	if d.srv.Message == nil {
		d.srv.Message = func(_ context.Context, from transport.Conn, m transport.Message) error {
			d.messages <- note{m, from}
			return nil
		}
	}
	l, err := tr.Listen(within(t))
	if err != nil {
		t.Fatal("listen:", err)
	}
	go func() { d.ended <- d.srv.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		if err := d.srv.Shutdown(within(t)); err != nil {
			t.Error("shutdown:", err)
		}
	})
	return d
}

func dial(t testing.TB, b testbroker.Broker, tr *Transport) transport.Conn {
	t.Helper()
	tr.Broker = b.URL()
	if tr.Serials == nil {
		tr.Serials = []string{"SN1"}
	}
	c, err := tr.Dial(within(t))
	if err != nil {
		t.Fatal("dial:", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

const up, down = "fungxi_SN1_upLink", "fungxi_SN1_downLink"

// element is a record as the field writes it.
func element(num string, picture []byte) string {
	return fmt.Sprintf(`{"num": %s, "name": "Ann", "liveImageBase64": "%s", "verifiedCode": 0, "time": "2024-02-29 12:34:56", "personType": "1"}`,
		num, base64.StdEncoding.EncodeToString(picture))
}

func verified(elements ...string) string {
	return `{"cmd": "verifiedRecordU", "data": [` + strings.Join(elements, ", ") + `]}`
}

func (d *desk) expect(t testing.TB, num string, picture []byte) arrival {
	t.Helper()
	got := await(t, "the record of "+num, d.images)
	if string(got.record.Num) != num || !bytes.Equal(got.body, picture) {
		t.Fatalf("got the record of %s with %d bytes; want that of %s with %d, identical", got.record.Num, len(got.body), num, len(picture))
	}
	return got
}

func (d *desk) nothing(t testing.TB) {
	t.Helper()
	select {
	case got := <-d.images:
		t.Errorf("an image came that should not: num %s, %d bytes", got.record.Num, len(got.body))
	default:
	}
}
