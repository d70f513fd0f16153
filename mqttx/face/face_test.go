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
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"go.uber.org/goleak"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/internal/testimage"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

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
		body, err := in.Image.Body.Open(ctx)
		if err != nil {
			return err
		}
		defer body.Close()
		content := make([]byte, body.Size)
		if _, err := body.ReaderAt.ReadAt(content, 0); err != nil && int64(len(content)) != in.Size {
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

// Both sides with the field's program at the other end, byte for byte.
func TestFieldTerminal(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		d := serve(t, b, &Transport{}, nil)
		p := newPeer(t, b, down)
		before := time.Now().Truncate(time.Second)
		p.publish(up, `{"cmd": "heartU"}`)
		var answer struct{ Cmd, Time string }
		said := await(t, "heartD", p.got)
		if err := json.Unmarshal([]byte(said), &answer); err != nil || answer.Cmd != "heartD" {
			t.Fatalf("the answer to a heartbeat is %s", said)
		}
		if at, err := time.ParseInLocation("2006-01-02 15:04:05", answer.Time, time.Local); err != nil || at.Before(before) || at.After(time.Now()) {
			t.Errorf("heartD has the time %q (%v)", answer.Time, err)
		}
		if sn := await(t, "OnHeartbeat", d.beats); sn != "SN1" {
			t.Errorf("OnHeartbeat(%q)", sn)
		}

		picture := testimage.JPEG(1, 64, 48)
		p.publish(up, verified(element(`"0042"`, picture)))
		got := d.expect(t, `"0042"`, picture)
		img := got.Image
		if img.Source != "SN1" || img.MediaType != "image/jpeg" || !got.record.Verified || got.Conn.Info().Peer != "SN1" {
			t.Errorf("source %q, type %q, verified %v, peer %q", img.Source, img.MediaType, got.record.Verified, got.Conn.Info().Peer)
		}
		if want := time.Date(2024, 2, 29, 12, 34, 56, 0, time.Local); !img.Captured.Equal(want) {
			t.Errorf("Captured is %v, want %v", img.Captured, want)
		}
		for key, want := range map[string]string{"num": "0042", "name": "Ann", "verifiedCode": "0", "personType": "1", "time": "2024-02-29 12:34:56", "cmd": "verifiedRecordU"} {
			if img.Meta[key] != want {
				t.Errorf("Meta[%q] is %q, want %q", key, img.Meta[key], want)
			}
		}
		if err := got.Conn.SendMessage(within(t), transport.Message{Data: []byte("{\"cmd\": \"openDoorD\"}")}); err != nil {
			t.Error("a command:", err)
		}
		if said := await(t, "a command", p.got); said != `{"cmd": "openDoorD"}` {
			t.Errorf("the command arrived as %s", said)
		}
		p.publish(up, `{"cmd": "doorU", "data": {"open": true}}`)
		if m := await(t, "telemetry", d.messages); m.Type != "doorU" || string(m.Data) != `{"cmd": "doorU", "data": {"open": true}}` {
			t.Errorf("telemetry arrived as %q %s", m.Type, m.Data)
		}
		p.publish(up, strings.Replace(verified(element(`"1"`, picture)), "verified", "stranger", 1))
		if m := await(t, "a stranger", d.messages); m.Type != "strangerRecordU" {
			t.Errorf("a stranger arrived as %q", m.Type)
		}
		d.nothing(t)
	})
}

// num, time and Base64 are passed on verbatim, whatever their JSON type is.
func TestVerbatim(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	d := serve(t, b, &Transport{}, nil)
	p := newPeer(t, b, down)
	picture := testimage.JPEG(2, 32, 32)
	encoded := base64.StdEncoding.EncodeToString(picture)
	for i, tt := range []struct{ num, time, picture string }{
		{`"7"`, `"2024-02-29 12:34:56"`, `"` + encoded + `"`},
		{`7`, `1709206496`, `"data:image/jpeg;base64,` + encoded + `"`},
		{`12345678901234567890123`, `1709206496000`, `"` + strings.TrimRight(encoded, "=") + `"`},
		{`{"a": [1]}`, `null`, `"` + encoded[:76] + `\r\n` + encoded[76:] + `\n"`},
		{`"\u00e9"`, `1.50`, `"` + strings.NewReplacer("+", "-", "/", "_").Replace(encoded) + `"`},
		{`true`, `"today"`, `"data:;base64,` + strings.ReplaceAll(encoded, "/", `\/`) + `"`},
	} {
		p.publish(up, fmt.Sprintf(`{"cmd":"verifiedRecordU","data":[{"num":%s,"time":%s,"liveImageBase64":%s}]}`, tt.num, tt.time, tt.picture))
		got := d.expect(t, tt.num, picture)
		if string(got.record.Time) != tt.time || string(got.record.Picture) != tt.picture {
			t.Errorf("%d: time and picture are %s and %.60s...", i, got.record.Time, got.record.Picture)
		}
		if got.Image.MediaType != "image/jpeg" || got.record.Verified || got.record.Name != nil {
			t.Errorf("%d: type %q, verified %v, name %s", i, got.Image.MediaType, got.record.Verified, got.record.Name)
		}
	}
}

// Defects: the field's service dies of each of these.
func TestGarbage(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	d := serve(t, b, &Transport{MaxPayload: 64 << 10}, nil)
	p := newPeer(t, b, down)
	picture := []byte("\xff\xd8\xff picture")
	good := element(`"1"`, picture)
	for n, tt := range []struct {
		payload, trouble string
		records          int // that come nevertheless
		messages         int
	}{
		{"", "not a JSON object", 0, 0},
		{"{}", "does not say what it is", 0, 0},
		{"\xff\xfe", "not a JSON object", 0, 0},
		{"[]", "not a JSON object", 0, 0},
		{`"heartU"`, "not a JSON object", 0, 0},
		{`{"cmd": 7}`, "does not say what it is", 0, 0},
		{`{"cmd": null}`, "does not say what it is", 0, 0},
		{`{"cmd": "verifiedRecordU"`, "not the JSON of a report", 0, 0},
		{`{"cmd": "verifiedRecordU"}`, "data is not a list", 0, 0},
		{`{"cmd": "verifiedRecordU", "data": null}`, "data is not a list", 0, 0},
		{`{"cmd": "verifiedRecordU", "data": {}}`, "data is not a list", 0, 0},
		{`{"cmd": "verifiedRecordU", "data": []}`, "data is empty", 0, 0},
		{verified("7", good, "null", good), "not an object", 1, 0},
		{verified("{}", good), "no picture", 1, 1},
		{verified(strings.Replace(good, "liveImageBase64", "image", 1)), "no picture", 0, 1},
		{verified(`{"num": "1", "liveImageBase64": ""}`), "no picture", 0, 1},
		{verified(`{"num": "1", "liveImageBase64": 5}`), "not a JSON string", 0, 1},
		{verified(`{"num": "1", "liveImageBase64": "!!!!"}`), "not Base64", 0, 1},
		{verified(`{"num": "1", "liveImageBase64": "data:image/jpeg,xxxx"}`), "not a data: prefix", 0, 1},
		{verified(strings.Replace(good, "Ann", "Ann\xff", 1)), "", 1, 0},
		{"\ufeff " + verified(good), "", 1, 0},
		{verified(good) + strings.Repeat(" ", 64<<10), "limit", 0, 0},
		{strings.Repeat("[", 10000), "not a JSON object", 0, 0},
		{`{"cmd":` + strings.Repeat("[", 20000), "not the JSON", 0, 0},
		{`{"cmd": "heartD", "time": "2024-02-29 12:34:56"}`, "", 0, 0},
	} {
		unique := strings.ReplaceAll(tt.payload, "2024-02-29", fmt.Sprintf("2024-02-%02d", n))
		p.publish(up, unique)
		if tt.trouble != "" {
			if err := await(t, fmt.Sprintf("trouble with %.60q", tt.payload), d.trouble); !strings.Contains(err.Error(), tt.trouble) {
				t.Errorf("%.60q: %v; want an error about %q", tt.payload, err, tt.trouble)
			}
		}
		for range tt.records {
			d.expect(t, `"1"`, picture)
		}
		for range tt.messages {
			if m := await(t, "a record without a picture", d.messages); m.Type != "verifiedRecordU" || m.Data[0] != '{' {
				t.Errorf("a record without a picture is %q %s", m.Type, m.Data)
			}
		}
		num := fmt.Sprint(n)
		p.publish(up, verified(element(num, picture)))
		d.expect(t, num, picture)
	}
	select {
	case err := <-d.trouble:
		t.Error("more trouble:", err)
	case m := <-d.messages:
		t.Errorf("a message came: %s", m.Data)
	default:
	}
}

// Defect: the field's service drops all elements but the first.
func TestEveryElement(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	d := serve(t, b, &Transport{}, nil)
	p := newPeer(t, b, down)
	var all []string
	for n := range 50 {
		all = append(all, element(fmt.Sprint(n), []byte{byte(n)}))
	}
	p.publish(up, verified(all...))
	for n := range 50 {
		d.expect(t, fmt.Sprint(n), []byte{byte(n)})
	}
	all = nil
	for range maxRecords + 1 {
		all = append(all, "0")
	}
	p.publish(up, verified(all...))
	if err := await(t, "trouble", d.trouble); !strings.Contains(err.Error(), "more than 4096 records") {
		t.Errorf("too many records: %.200v", err)
	}
}

func TestSeveralTerminals(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	sns := []string{"A", "B", "C"}
	d := serve(t, b, &Transport{Serials: sns}, nil)
	var all sync.WaitGroup
	for _, sn := range sns {
		c := dial(t, b, &Transport{Serials: []string{sn}})
		all.Go(func() {
			for n := range 10 {
				img := &transport.Image{Body: transport.Bytes([]byte{1, byte(n)}), Meta: map[string]string{"num": fmt.Sprint(n)}}
				if _, err := c.Send(within(t), img, nil); err != nil {
					t.Error("send:", err)
				}
			}
		})
	}
	all.Wait()
	next := make(map[string]int)
	for range 30 {
		got := await(t, "a record", d.images)
		sn := got.Conn.Info().Peer
		if got.Image.Source != sn || got.Image.Meta["num"] != fmt.Sprint(next[sn]) {
			t.Errorf("num %s of %s came when %d of %s was next", got.Image.Meta["num"], got.Image.Source, next[sn], sn)
		}
		next[sn]++
	}
}

// Records are told apart by terminal, num, time and picture, also over restarts.
func TestDuplicates(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	dir := t.TempDir()
	for round := range 2 {
		store := &transport.DirStore{Dir: dir}
		d := serve(t, b, &Transport{Serials: []string{"SN1", "SN2"}}, func(s *transport.Server) { s.Store = store })
		p := newPeer(t, b, down)
		a, other := []byte("\xff\xd8\xffA"), []byte("\xff\xd8\xffB")
		base := element(`"1"`, a)
		if round == 1 {
			p.publish(up, verified(base)) // known from before the restart
		} else {
			p.publish(up, verified(base, base))
			d.expect(t, `"1"`, a)
			p.publish(up, verified(base))
			p.publish(up, verified(element(`1`, a)))
			d.expect(t, `1`, a)
			p.publish(up, verified(strings.Replace(base, "12:34", "12:35", 1)))
			d.expect(t, `"1"`, a)
			p.publish(up, verified(element(`"1"`, other)))
			d.expect(t, `"1"`, other)
			p.publish("fungxi_SN2_upLink", verified(base))
			d.expect(t, `"1"`, a)
		}
		last := fmt.Sprintf(`"last %d"`, round)
		p.publish(up, verified(element(last, a)))
		d.expect(t, last, a)
		d.nothing(t)
		if err := d.srv.Shutdown(within(t)); err != nil {
			t.Error(err)
		}
		p.client.Disconnect(50)
		store.Close()
	}
}

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

// One topic for everything: own messages come back.
func TestOneTopic(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	d := serve(t, b, &Transport{Topic: "face", Raw: true}, nil)
	p := newPeer(t, b, "face")
	record := verified(element(`"1"`, []byte("x")))
	var conn transport.Conn
	for _, payload := range []string{record, `{}`, `{"cmd": "heartU"}`, `{"any": ["thing"]}`} {
		p.publish("face", payload)
		m := await(t, "a raw object", d.messages)
		if conn = m.from; string(m.Data) != payload {
			t.Errorf("%s was handed on as %s", payload, m.Data)
		}
	}
	p.publish("face", `not JSON`)
	if err := await(t, "trouble", d.trouble); !strings.Contains(err.Error(), "not a JSON object") {
		t.Error(err)
	}
	command := `{"cmd": "openDoorD"}`
	if err := conn.SendMessage(within(t), transport.Message{Data: []byte(command)}); err != nil {
		t.Fatal(err)
	}
	p.publish("face", `{"cmd": "end"}`)
	if m := await(t, "the end", d.messages); m.Type != "end" {
		t.Errorf("what was sent from here came back: %s", m.Data)
	}
	p.publish("face", command) // somebody else's
	if m := await(t, "another's command", d.messages); string(m.Data) != command {
		t.Errorf("got %s", m.Data)
	}
	d.nothing(t)
}

// The terminal as the field's service sees it.
func TestFieldService(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	p := newPeer(t, b, up)
	c := dial(t, b, &Transport{})
	commands := make(chan transport.Message, 10)
	srv := &transport.Server{Message: func(_ context.Context, _ transport.Conn, m transport.Message) error { commands <- m; return nil }}
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
	for _, want := range []transport.Message{{Type: "openDoorD", Data: []byte(`{"cmd": "openDoorD"}`)}, {Data: []byte("open\xff")}} {
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
					return &Transport{Broker: b.URL(), Serials: []string{"SN1"}, Dialect: tt.dialect, MaxPayload: most, AckTimeout: 2500 * time.Millisecond, Retry: &transport.RetryPolicy{MaxAttempts: 1}}
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
		"set Serials":       {Broker: b.URL()},
		"without / + #":     {Broker: b.URL(), Serials: []string{"a/b"}},
		"there twice":       {Broker: b.URL(), Serials: []string{"a", "a"}},
		"put {sn} into":     {Broker: b.URL(), Serials: []string{"a", "b"}, Topic: "t"},
		"cannot be publish": {Broker: b.URL(), Serials: []string{"a"}, Topic: "t/#"},
		"set Broker":        {Serials: []string{"a"}},
		"begins with":       {Broker: "http://x", Serials: []string{"a"}},
		"has no host":       {Broker: "mqtt:", Serials: []string{"a"}},
		"does not let":      {Broker: b.URL(), Serials: []string{"secret"}},
		"Dialect 9":         {Broker: b.URL(), Serials: []string{"a"}, Dialect: 9},
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
