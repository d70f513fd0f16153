package face

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"cmd": "heartU"}`, verified(element(`"7"`, []byte("x"))), verified("1", "null", "{}"), `{}`, "\xff", `{"cmd": 5, "data": {}}`,
		`{"cmd": "verifiedRecordU", "data": []}`, `{"operator": "RecPush", "info": {"RecordID": 7, "SanpPic": "eA==", "persionName": "n"}}`,
		`{"operator": "StrSnapPush", "SanpPic": "data:image/jpeg;base64,eA==", "info": {"SnapID": "x"}}`, `{"operator": "PushAck", "info": {"SnapOrRecordID": 3}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, d := range []Dialect{Fungxi, HFSecurity} {
			r, err := d.Parse(payload)
			if err != nil {
				continue
			}
			if !json.Valid(r.Payload) || !utf8.Valid(r.Payload) || r.Payload[0] != '{' {
				t.Fatalf("%q was taken for a JSON object", payload)
			}
			parsePushAck(r)
			for rec, err := range r.Records() {
				if err != nil {
					continue
				}
				for key, v := range rec.meta(r.Cmd) {
					if !utf8.ValidString(v) {
						t.Errorf("%s is %q", key, v)
					}
				}
				rec.When()
				if ack := appendPushAck(nil, r, rec.Number); len(rec.Number) > 0 && !json.Valid(ack) {
					t.Errorf("the acknowledgement of %q is %s", payload, ack)
				}
				picture, err := rec.Decode()
				if err != nil {
					continue
				}
				again, err := d.Parse(d.AppendRecord(nil, r.Kind == Stranger, rec))
				if err != nil {
					t.Fatalf("a record of %q cannot be written: %v", payload, err)
				}
				for same, err := range again.Records() {
					if b, err2 := same.Decode(); err != nil || err2 != nil || !bytes.Equal(b, picture) || same.ID("s", b) != rec.ID("s", picture) {
						t.Errorf("a record of %q is another when it is written and read: %v, %v", payload, err, err2)
					}
				}
			}
		}
	})
}

func TestRecordID(t *testing.T) {
	base := Record{Num: json.RawMessage(`"1"`), Time: json.RawMessage(`"2"`)}
	ids := map[string]string{base.ID("sn", []byte("p")).String(): "base"}
	for name, r := range map[string]Record{
		"num": {Num: json.RawMessage(`1`), Time: base.Time}, "time": {Num: base.Num, Time: json.RawMessage(`"3"`)},
		"moved": {Num: json.RawMessage(`"1""2"`)}, "none": {},
	} {
		id := r.ID("sn", []byte("p")).String()
		if other, taken := ids[id]; taken {
			t.Errorf("%s has the ID of %s", name, other)
		}
		ids[id] = name
	}
	if id := base.ID("sm", []byte("p")); ids[id.String()] != "" {
		t.Error("the terminal does not count")
	}
	if id := base.ID("sn", []byte("q")); ids[id.String()] != "" {
		t.Error("the picture does not count")
	}
	same := base
	same.Name, same.PersonType = json.RawMessage(`"other"`), json.RawMessage(`2`)
	if ids[same.ID("sn", []byte("p")).String()] != "base" {
		t.Error("the same record has another ID")
	}
}

func TestWhen(t *testing.T) {
	for s, want := range map[string]time.Time{
		`"2024-02-29 12:34:56"`:  time.Date(2024, 2, 29, 12, 34, 56, 0, time.Local),
		`"2024-02-29T12:34:56Z"`: time.Date(2024, 2, 29, 12, 34, 56, 0, time.UTC),
		`1709206496`:             time.Unix(1709206496, 0), `"1709206496000"`: time.Unix(1709206496, 0),
		`"today"`: {}, `0`: {}, `-5`: {}, `null`: {}, ``: {}, `{}`: {},
	} {
		if got := (&Record{Time: json.RawMessage(s)}).When(); !got.Equal(want) {
			t.Errorf("%s is %v, want %v", s, got, want)
		}
	}
}

func TestHeartbeatAnswer(t *testing.T) {
	if got := string(AppendHeartbeat(nil, time.Date(2006, 1, 2, 15, 4, 5, 9, time.Local))); got != `{"cmd": "heartD", "time": "2006-01-02 15:04:05"}` {
		t.Error(got)
	}
}

// A picture of any length comes back, in every way of writing Base64.
func TestDecode(t *testing.T) {
	for n := 1; n < 70; n++ {
		want := bytes.Repeat([]byte{0xfb, 0xff, byte(n)}, 24)[:n]
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
			for _, prefix := range []string{"", "data:image/jpeg;base64,", " \n"} {
				r := Record{Picture: quote(prefix + e.EncodeToString(want))}
				if got, err := r.Decode(); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%s is %v (%v)", r.Picture, got, err)
				}
			}
		}
	}
}
