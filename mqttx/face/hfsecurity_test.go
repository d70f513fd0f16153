package face

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/internal/testimage"
	"github.com/pixferry/pixferry/transport"
)

const hfDown = "mqtt/face/SN1"

// A record is acknowledged when it is kept and not before, whatever its keys are called,
// and a doubled one is acknowledged again.
func TestPushAck(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		entered, open := make(chan struct{}, 10), make(chan struct{}, 10)
		d := serve(t, b, &Transport{Dialect: HFSecurity}, func(s *transport.Server) {
			s.Handler = func(context.Context, *transport.Incoming) error { entered <- struct{}{}; <-open; return nil }
		})
		p := newPeer(t, b, hfDown)
		picture := testimage.JPEG(4, 32, 32)
		encoded := "data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(picture)
		push := fmt.Sprintf(`{"messageId": "m-1", "operator": "RecPush", "info": {"customId": "7", "persionName": "Ann", "RecordID": "389", "VerifyStatus": "1",
			"PersonType": "0", "time": "2024-02-29 12:34:56", "pic": "%s", "scene": "data:image/jpeg;base64,AAAA"}}`, encoded)
		p.publish(hfDown+"/Rec", push)
		await(t, "the Handler", entered)
		p.publish(hfDown, "marker")
		if said := await(t, "the marker", p.got); said != "marker" {
			t.Errorf("%s was said before the record was kept", said)
		}
		open <- struct{}{}
		got := d.expect(t, `"7"`, picture)
		if !got.record.Verified || got.Image.Meta["name"] != "Ann" || string(got.record.Number) != `"389"` {
			t.Errorf("the record is %v, number %s, verified %v", got.Image.Meta, got.record.Number, got.record.Verified)
		}
		const ack = `{"operator": "PushAck", "messageId": "m-1", "info": {"PushAckType": 2, "SnapOrRecordID": 389}}`
		if said := await(t, "PushAck", p.got); said != ack {
			t.Errorf("the record is acknowledged with %s", said)
		}
		p.publish(hfDown+"/Rec", push) // as if that was lost
		if said := await(t, "PushAck of a duplicate", p.got); said != ack {
			t.Errorf("the duplicate is acknowledged with %s", said)
		}
		open <- struct{}{}
		p.publish(hfDown+"/Rec", fmt.Sprintf(`{"operator": "VerifyPush", "SanpPic": "%s", "info": {"PersonID": 8, "personName": "Bo", "RecordID": 390, "VerfyStatus": 2, "CreateTime": "2024-02-29 12:34:57"}}`, encoded))
		if got := d.expect(t, "8", picture); got.record.Verified || got.Image.Meta["name"] != "Bo" || got.Image.Captured.Second() != 57 {
			t.Errorf("the misspelt record is %v, %v, verified %v", got.Image.Meta, got.Image.Captured, got.record.Verified)
		}
		if said := await(t, "PushAck", p.got); !strings.Contains(said, `"messageId": "PushAck-390"`) || !strings.Contains(said, `"SnapOrRecordID": 390}`) {
			t.Errorf("acknowledged with %s", said)
		}
		p.publish(hfDown+"/Snap", fmt.Sprintf(`{"operator": "StrSnapPush", "info": {"SnapID": "946", "pic": "%s"}}`, encoded))
		if m := await(t, "a stranger", d.messages); m.Type != "StrSnapPush" {
			t.Errorf("a stranger is %q", m.Type)
		}
		if said := await(t, "PushAck of a stranger", p.got); !strings.Contains(said, `"PushAckType": 1, "SnapOrRecordID": 946}`) {
			t.Errorf("the stranger is acknowledged with %s", said)
		}
		p.publish(hfDown+"/Rec", `{"operator": "RecPush", "info": {"customId": "9", "RecordID": 391, "VerifyStatus": "1"}}`)
		if m := await(t, "a record without a picture", d.messages); m.Type != "RecPush" {
			t.Errorf("a record without a picture is %q", m.Type)
		}
		if said := await(t, "PushAck of a record without a picture", p.got); !strings.Contains(said, `"SnapOrRecordID": 391}`) {
			t.Errorf("the record without a picture is acknowledged with %s", said)
		}
		p.publish(hfDown+"/Ack", `{"operator": "OpenDoor-Ack", "info": {"result": "ok"}}`)
		if m := await(t, "the answer to a command", d.messages); m.Type != "OpenDoor-Ack" {
			t.Errorf("the answer is %q", m.Type)
		}
		d.nothing(t)
	})
}

// What was not kept is not acknowledged, and the next record works.
func TestNoPushAck(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	d := serve(t, b, &Transport{Dialect: HFSecurity}, func(s *transport.Server) {
		s.Handler = func(_ context.Context, in *transport.Incoming) error {
			if in.Image.Meta["num"] == "bad" {
				return transport.Reject("refused")
			}
			return nil
		}
		s.Message = func(context.Context, transport.Conn, transport.Message) error { return transport.Reject("no") }
	})
	p := newPeer(t, b, hfDown)
	for n, payload := range []string{
		`{}`, `{"operator": "RecPush"}`, `{"operator": "RecPush", "info": []}`, `{"operator": "RecPush", "info": {"RecordID": 1}}`,
		`{"operator": "RecPush", "info": {"RecordID": 2, "pic": "%%%"}}`, `{"operator": "RecPush", "info": {"RecordID": 3, "customId": "bad", "pic": "AAAA"}}`,
		`{"operator": "StrSnapPush", "info": {"SnapID": 4, "pic": "AAAA"}}`,
	} {
		p.publish(hfDown+"/Rec", payload)
		await(t, "trouble with "+payload, d.trouble)
		p.publish(hfDown+"/Rec", fmt.Sprintf(`{"operator": "RecPush", "info": {"RecordID": %d, "customId": %d, "pic": "AAAA"}}`, 100+n, n))
		d.expect(t, fmt.Sprint(n), []byte{0, 0, 0})
		if said := await(t, "PushAck", p.got); !strings.Contains(said, fmt.Sprintf(`: %d}`, 100+n)) {
			t.Errorf("after %s this is acknowledged: %s", payload, said)
		}
	}
}

// The terminal's Send with a service whose answers are lost, late, doubled, garbled, or
// another terminal's.
func TestAnswers(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	p := newPeer(t, b, hfDown+"/Rec")
	troubles := make(chan error, 10)
	c := dial(t, b, &Transport{Dialect: HFSecurity, AckTimeout: 150 * time.Millisecond, OnTrouble: func(_ string, err error) { troubles <- err }})
	var earlier string
	for _, tt := range []struct {
		name    string
		answers []string // of {n}, the record's number, and {m}, that of the one before
		ok      bool
	}{
		{"number", []string{`{"operator": "PushAck", "info": {"PushAckType": 2, "SnapOrRecordID": {n}}}`}, true},
		{"text", []string{`{"operator": "PushAck", "info": {"PushAckType": "2", "SnapOrRecordID": "{n}"}}`}, true},
		{"doubled", []string{`{"operator": "PushAck", "info": {"SnapOrRecordID": {n}}}`, `{"operator": "PushAck", "info": {"SnapOrRecordID": {n}}}`}, true},
		{"lost", nil, false},
		{"late", []string{`{"operator": "PushAck", "info": {"PushAckType": 2, "SnapOrRecordID": {m}}}`}, false},
		{"a stranger's", []string{`{"operator": "PushAck", "info": {"PushAckType": 1, "SnapOrRecordID": {n}}}`}, false},
		{"garbled", []string{`{"operator": "PushAck", "info": {"SnapOrRec`, "\xff", `{"operator": "PushAck"}`, `{"operator": "PushAck", "info": {}}`}, false},
		{"garbled, then right", []string{`{"operator": "PushAck", "info": 7}`, `{"operator": "PushAck", "info": {"SnapOrRecordID": {n}}}`}, true},
	} {
		sent := make(chan error, 1)
		go func() {
			r, err := c.Send(within(t), &transport.Image{Body: transport.Bytes([]byte("x"))}, nil)
			if err == nil && r.Level != transport.Received {
				err = fmt.Errorf("the receipt's level is %v", r.Level)
			}
			sent <- err
		}()
		number := recordID(t, await(t, "a record", p.got))
		for _, answer := range tt.answers {
			p.publish(hfDown, strings.NewReplacer("{n}", number, "{m}", earlier).Replace(answer))
		}
		earlier = number
		switch err := await(t, "Send", sent); {
		case tt.ok && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case !tt.ok && !errors.Is(err, transport.ErrIdle):
			t.Errorf("%s: %v; want ErrIdle", tt.name, err)
		}
	}
	// Repeated, it is the same record.
	sent := make(chan error, 1)
	go func() {
		_, err := c.Send(within(t), &transport.Image{Body: transport.Bytes([]byte("x"))}, &transport.SendOptions{Retry: &transport.RetryPolicy{Initial: time.Millisecond}})
		sent <- err
	}()
	first := await(t, "a record", p.got)
	if second := await(t, "its repetition", p.got); second != first {
		t.Errorf("%s was repeated as %s", first, second)
	}
	p.publish(hfDown, `{"operator": "PushAck", "info": {"SnapOrRecordID": `+recordID(t, first)+`}}`)
	if err := await(t, "Send", sent); err != nil {
		t.Error(err)
	}
}

func recordID(t testing.TB, said string) string {
	var record struct {
		Operator string
		Info     struct{ RecordID, CustomID, PersionName, VerifyStatus, Time, PersonType, Pic string }
	}
	if err := json.Unmarshal([]byte(said), &record); err != nil || record.Operator != "RecPush" || record.Info.RecordID == "" || record.Info.Pic != "eA==" || record.Info.VerifyStatus != "1" {
		t.Fatalf("a record is %s (%v)", said, err)
	}
	return record.Info.RecordID
}

func TestBothEnds(t *testing.T) {
	for dialect, cmds := range map[Dialect][2]string{Fungxi: {"verifiedRecordU", "strangerRecordU"}, HFSecurity: {"RecPush", "StrSnapPush"}} {
		b := testbroker.Embedded(t, testbroker.Options{})
		d := serve(t, b, &Transport{Dialect: dialect, Strangers: true}, nil)
		c := dial(t, b, &Transport{Dialect: dialect})
		for _, cmd := range cmds {
			picture := testimage.JPEG(5, 32, 32)
			meta := map[string]string{"cmd": cmd, "num": cmd, "name": "Ann"}
			r, err := c.Send(within(t), &transport.Image{Body: transport.Bytes(picture), Meta: meta}, &transport.SendOptions{Require: c.Info().Confirms})
			if err != nil || r.Level != c.Info().Confirms {
				t.Fatalf("%+v, %v", r, err)
			}
			got := d.expect(t, `"`+cmd+`"`, picture)
			if known := cmd == cmds[0]; got.Image.Meta["cmd"] != cmd || got.Image.Meta["name"] != "Ann" || got.record.Verified != known || (got.record.PersonType != nil) != known {
				t.Errorf("%v, verified %v, person type %s", got.Image.Meta, got.record.Verified, got.record.PersonType)
			}
		}
	}
}

// A stranger of whom a terminal says that they are enrolled and passed is not verified.
func TestStrangerIsNotVerified(t *testing.T) {
	for dialect, report := range map[Dialect]string{
		Fungxi:     `{"cmd": "strangerRecordU", "data": [{"num": "1", "liveImageBase64": "aGk=", "verifiedCode": 0, "personType": "1"}]}`,
		HFSecurity: `{"operator": "StrSnapPush", "info": {"customId": "1", "pic": "aGk=", "VerifyStatus": "1", "SnapID": "1"}}`,
	} {
		r, err := dialect.Parse([]byte(report))
		if err != nil {
			t.Fatal(err)
		}
		for rec, err := range r.Records() {
			if err != nil || rec.Verified {
				t.Errorf("%v: verified %v, %v", dialect, rec.Verified, err)
			}
		}
	}
}
