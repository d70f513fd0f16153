package face

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/internal/testimage"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/transporttest"
)

func TestSizes(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		const most = 8 << 20
		d := serve(t, b, &Transport{MaxPayload: most}, nil)
		c := dial(t, b, &Transport{MaxPayload: most})
		largest := c.Info().MaxImage
		for _, n := range []int64{1, 2, 3, 35_935, 2_000_000, largest} {
			content := bytes.Repeat([]byte{byte(n), 3, 5}, int(n)/3+1)[:n]
			r, err := c.Send(within(t), &transport.Image{Body: transport.Bytes(content)}, nil)
			if err != nil || r.Level != transport.Sent || r.Bytes != n {
				t.Fatalf("%d bytes: %+v, %v", n, r, err)
			}
			if got := await(t, "an image", d.images); !bytes.Equal(got.body, content) {
				t.Errorf("%d bytes arrived as %d, or changed", n, len(got.body))
			}
		}
		seen := newPeer(t, b, up)
		for _, size := range []int64{0, largest + 1, -1} {
			img := &transport.Image{Body: transport.Bytes(make([]byte, max(size, 1)))}
			want := any(new(*transport.TooLargeError))
			switch size {
			case 0:
				img.Body, want = transport.Bytes(nil), nil
			case -1:
				img.Body = transport.Stream(bytes.NewReader(make([]byte, largest+1)))
			}
			_, err := c.Send(within(t), img, nil)
			if want == nil && !errors.Is(err, errors.ErrUnsupported) || want != nil && !errors.As(err, want) {
				t.Errorf("Send of %d bytes: %v", size, err)
			}
		}
		_, err := c.Send(within(t), &transport.Image{Body: transport.Bytes(make([]byte, largest)), Meta: map[string]string{"name": strings.Repeat("n", 2*fieldsSize)}}, nil)
		if large := (*transport.TooLargeError)(nil); !errors.As(err, &large) {
			t.Errorf("Send of a record that is too large with its fields: %v", err)
		}
		c.SendMessage(within(t), transport.Message{Type: "end"})
		if said := await(t, "the end", seen.got); !strings.Contains(said, "end") {
			t.Errorf("%d bytes were sent that should not be", len(said))
		}
	})
}

// The terminal as the field's service sees it.
func TestFieldService(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	p := newPeer(t, b, up)
	c := dial(t, b, &Transport{})
	commands := make(chan transport.Message, 10)
	srv := &transport.Server{Message: func(_ context.Context, _ transport.Conn, m transport.Message) error { commands <- m; return nil }}
	p.publish(down, `{"cmd": "early"}`)
	await(t, "what comes before Serve", c.(*terminal).lane.more)
	go srv.ServeConn(context.Background(), c)
	t.Cleanup(func() { srv.Shutdown(within(t)) })

	if err := c.SendMessage(within(t), transport.Message{Type: "heartU"}); err != nil {
		t.Fatal(err)
	}
	if said := await(t, "heartU", p.got); said != `{"cmd": "heartU"}` {
		t.Errorf("a heartbeat is %s", said)
	}
	picture := testimage.JPEG(3, 16, 16)
	for cmd, meta := range map[string]map[string]string{
		"verifiedRecordU": {"num": "7", "name": `"Ann"`, "verifiedCode": "3", "time": "2024-02-29 12:34:56", "personType": "2"},
		"strangerRecordU": {"cmd": "strangerRecordU"},
	} {
		if _, err := c.Send(within(t), &transport.Image{Body: transport.Bytes(picture), Meta: meta}, nil); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Cmd  string
			Data []struct {
				Num, Name, LiveImageBase64, Time, PersonType string
				VerifiedCode                                 int
			}
		}
		said := await(t, cmd, p.got)
		if err := json.Unmarshal([]byte(said), &got); err != nil || got.Cmd != cmd || len(got.Data) != 1 {
			t.Fatalf("%s is %s (%v)", cmd, said, err)
		}
		e := got.Data[0]
		if e.LiveImageBase64 != base64.StdEncoding.EncodeToString(picture) {
			t.Errorf("the picture is %s", e.LiveImageBase64)
		}
		if at, err := time.ParseInLocation(timeLayout, e.Time, time.Local); err != nil || cmd == "strangerRecordU" && time.Since(at) > time.Minute {
			t.Errorf("the time is %q", e.Time)
		}
		if e.LiveImageBase64 = ""; cmd == "verifiedRecordU" && fmt.Sprint(e) != `{7 "Ann"  2024-02-29 12:34:56 2 3}` {
			t.Errorf("the record is %v", e)
		}
	}
	p.publish(down, `{"cmd": "openDoorD"}`)
	p.publish(down, "open\xff")
	for _, want := range []transport.Message{{Type: "early", Data: []byte(`{"cmd": "early"}`)}, {Type: "openDoorD", Data: []byte(`{"cmd": "openDoorD"}`)}, {Data: []byte("open\xff")}} {
		if m := await(t, "a command", commands); m.Type != want.Type || !bytes.Equal(m.Data, want.Data) {
			t.Errorf("the command %q %s came as %q %s", want.Type, want.Data, m.Type, m.Data)
		}
	}
	if err := c.SendMessage(within(t), transport.Message{Data: []byte("text")}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a message that is not JSON: %v", err)
	}
}

func TestConformance(t *testing.T) {
	for _, tt := range []struct {
		name     string
		dialect  Dialect
		confirms transport.Level
	}{{"fungxi", Fungxi, transport.Sent}, {"hfsecurity", HFSecurity, transport.Received}} {
		t.Run(tt.name, func(t *testing.T) {
			const most = 8 << 20
			transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
				b := testbroker.Embedded(t, testbroker.Options{})
				make := func() *Transport {
					return &Transport{Broker: b.URL(), Serials: []string{"SN1"}, Dialect: tt.dialect, MaxPayload: most, AckTimeout: 6 * time.Second, Retry: &transport.RetryPolicy{MaxAttempts: 1}}
				}
				return make(), func(net.Addr) transport.Transport { return make() }
			}, transporttest.Properties{
				Confirms: tt.confirms, MinSize: 1, MaxSize: (&Transport{MaxPayload: most}).maxImage(), Large: 2_000_000, Boundaries: []int64{3, 35_935},
				UnknownSize: true, Aborts: true, Live: true,
			})
		})
	}
}

func TestConfiguration(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{Deny: func(_, topic string, write bool) bool { return !write && strings.Contains(topic, "secret") }})
	for want, tr := range map[string]*Transport{
		"set Serials":         {Broker: b.URL()},
		"without / + #":       {Broker: b.URL(), Serials: []string{"a/b"}},
		"there twice":         {Broker: b.URL(), Serials: []string{"a", "a"}},
		"put {sn} into":       {Broker: b.URL(), Serials: []string{"a", "b"}, Topic: "t"},
		"cannot be publish":   {Broker: b.URL(), Serials: []string{"a"}, Topic: "t/#"},
		"set Broker":          {Serials: []string{"a"}},
		"begins with":         {Broker: "http://x", Serials: []string{"a"}},
		"begins with mqtt://": {Broker: "127.0.0.1:1883", Serials: []string{"a"}},
		"has no host":         {Broker: "mqtt:", Serials: []string{"a"}},
		"does not let":        {Broker: b.URL(), Serials: []string{"secret"}},
		"Dialect 9":           {Broker: b.URL(), Serials: []string{"a"}, Dialect: 9},
	} {
		_, err := tr.Listen(within(t))
		if err == nil || !strings.Contains(err.Error(), want) || transport.Retryable(err) {
			t.Errorf("Listen: %v (retryable %v); want one about %q", err, transport.Retryable(err), want)
		}
		if want == "does not let" {
			continue // the other direction's topic is denied, too
		}
		if _, err := tr.Dial(within(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Dial: %v; want an error about %q", err, want)
		}
	}
	b.Stop()
	_, err := (&Transport{Broker: b.URL(), Serials: []string{"a"}}).Listen(within(t))
	if err == nil || !transport.Retryable(err) {
		t.Errorf("Listen without a broker: %v; want one that may be retried", err)
	}
}
