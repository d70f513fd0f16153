package face

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/internal/testimage"
	"github.com/pixferry/pixferry/transport"
)

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
	err := await(t, "trouble", d.trouble)
	if !strings.Contains(err.Error(), "more than 4096 records") {
		t.Errorf("too many records: %.200v", err)
	}
	if n := testing.AllocsPerRun(1, func() { _ = err.Error() }); n > 100 {
		t.Errorf("the text about %d records takes %v allocations: with one for each it is made in quadratic time", maxRecords, n)
	}
}

// What a terminal says of itself has no say in how long a line of the log gets.
func TestTroubleIsShort(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	d := serve(t, b, &Transport{}, func(srv *transport.Server) {
		srv.Handler = func(context.Context, *transport.Incoming) error { return transport.Reject("no") }
	})
	p := newPeer(t, b, down)
	long := strings.Repeat("x", 100_000)
	for _, payload := range []string{
		verified(strings.Replace(element(`"`+long+`"`, nil), "2024", long, 1)),
		verified(strings.Replace(element(`"`+long+`"`, []byte{1}), "2024", long, 1)),
		`{"cmd": "` + long + `"}`,
	} {
		p.publish(up, payload)
		if err := await(t, "trouble", d.trouble); len(err.Error()) > 1000 {
			t.Errorf("trouble of %d bytes: %.300v", len(err.Error()), err)
		}
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
