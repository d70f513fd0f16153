package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const up, down = "fungxi_SN1_upLink", "fungxi_SN1_downLink"

func TestBridge(t *testing.T) {
	mqtt, call := broker(t), newCallback(t)
	url, _ := start(t, "-broker", mqtt, "-sn", "SN1", "-callback", call.URL+"/api")
	p := newTerminal(t, mqtt, up, down)

	p.publish(`{"cmd": "heartU"}`)
	if said := await(t, "heartD", p.got); !strings.HasPrefix(said, `{"cmd": "heartD", "time": "`) {
		t.Errorf("a heartbeat is answered with %s", said)
	}
	// Values are passed on verbatim, and every element is.
	p.publish(verified(person(`"007"`), person("8"), strings.Replace(person("12345678901234567890"), `"2024-02-29 12:34:56"`, "1709206496", 1)))
	const form = `{"user_id": %s, "name": "Ann", "img": "data:image/jpeg;base64,/9j/AAAA", "verifiedCode": 0, "bot_time": %s, "personType": "1"}`
	for _, want := range []string{
		fmt.Sprintf(form, `"007"`, `"2024-02-29 12:34:56"`), fmt.Sprintf(form, "8", `"2024-02-29 12:34:56"`), fmt.Sprintf(form, "12345678901234567890", "1709206496"),
	} {
		if said := await(t, "a record", call.taken); said != want {
			t.Errorf("posted was %s, want %s", said, want)
		}
	}
	// Only those who are enrolled and have passed.
	p.publish(verified(strings.Replace(person("1"), `Code": 0`, `Code": 1`, 1), strings.Replace(person("2"), `Type": "1"`, `Type": "2"`, 1), person("3")))
	p.publish(strings.Replace(verified(person("4")), "verified", "stranger", 1))
	p.publish(`{"cmd": "doorU", "open": true}`)
	p.publish(verified(person("3"), person("5"))) // 3 is a duplicate
	call.expect(t, "3", "5")
	call.nothing(t)
	status(t, url, "all that came", func(s map[string]any) bool {
		return at(s, "terminals", "SN1", "strangers") == "1" && at(s, "terminals", "SN1", "reports", "doorU") == "1" &&
			at(s, "terminals", "SN1", "reports", "verifiedRecordU") == "7" && at(s, "callback", "taken") == "5" && at(s, "outbox", "waiting") == "0"
	})
}

// A terminal from which nothing has come is in the status, and no time since when nothing fails.
func TestStatusOfSilence(t *testing.T) {
	url, _ := start(t, "-broker", broker(t), "-sn", "SN1", "-sn", "SN2", "-callback", newCallback(t).URL)
	status(t, url, "both terminals", func(s map[string]any) bool {
		return at(s, "terminals", "SN2", "commands") == "0" && at(s, "callback", "failing_since") == "<nil>"
	})
}

// Defects: each of these kills the field's service.
func TestGarbage(t *testing.T) {
	mqtt, call := broker(t), newCallback(t)
	url, _ := start(t, "-broker", mqtt, "-sn", "SN1", "-callback", call.URL+"/api")
	p := newTerminal(t, mqtt, up, down)
	for n, payload := range []string{
		"{}", "\xff", "", "[]", "7", `{"cmd": 1}`, `{"cmd": "verifiedRecordU"}`, `{"cmd": "verifiedRecordU", "data": []}`,
		`{"cmd": "verifiedRecordU", "data": [{}]}`, `{"cmd": "verifiedRecordU", "data": [[]]}`, verified(strings.Replace(person("1"), `"num": 1, `, "", 1) + `]`),
		strings.Repeat(`{"cmd":`, 100), `{"cmd": "heartU"`,
	} {
		p.publish(payload)
		p.publish(verified(person(fmt.Sprint(n))))
		call.expect(t, fmt.Sprint(n))
	}
	call.nothing(t)
	status(t, url, "each trouble", func(s map[string]any) bool { return at(s, "terminals", "SN1", "troubles") == "13" })
}

// A record is forwarded although a field is missing, is no text, or has a bad letter.
func TestDamagedRecords(t *testing.T) {
	mqtt, call := broker(t), newCallback(t)
	start(t, "-broker", mqtt, "-sn", "SN1", "-callback", call.URL+"/api", "-all")
	p := newTerminal(t, mqtt, up, down)
	for record, want := range map[string]string{
		`{"num": 1, "verifiedCode": 0}`:                          `{"user_id": 1, "name": null, "img": null, "verifiedCode": 0, "bot_time": null, "personType": null}`,
		`{"num": 2, "liveImageBase64": "AAAA"}`:                  `{"user_id": 2, "name": null, "img": "AAAA", "verifiedCode": null, "bot_time": null, "personType": null}`,
		`{"num": 3, "liveImageBase64": "!"}`:                     `{"user_id": 3, "name": null, "img": "!", "verifiedCode": null, "bot_time": null, "personType": null}`,
		`{"num": 4, "name": "` + "\xff" + `", "personType": 1}`:  `{"user_id": 4, "name": "` + "\ufffd" + `", "img": null, "verifiedCode": null, "bot_time": null, "personType": 1}`,
		`{"num": {"a": 5}, "liveImageBase64": null, "time": []}`: `{"user_id": {"a": 5}, "name": null, "img": null, "verifiedCode": null, "bot_time": [], "personType": null}`,
	} {
		for range 2 { // the second one is a duplicate
			p.publish(verified(record))
		}
		if said := await(t, record, call.taken); said != strings.ReplaceAll(want, "null, \"time", "null, \"time") {
			t.Errorf("%s was posted as %s", record, said)
		}
	}
	p.publish(verified(person("6")))
	call.expect(t, "6")
}

// Defects: the field's service blocks while it posts, and loses the record if the
// callback is down or answers 500.
func TestCallbackDown(t *testing.T) {
	mqtt, call := broker(t), newCallback(t)
	dir := t.TempDir()
	url, _ := start(t, "-broker", mqtt, "-sn", "SN1", "-sn", "SN2", "-callback", call.URL+"/api", "-outbox", dir)
	p, other := newTerminal(t, mqtt, up, down), newTerminal(t, mqtt, "fungxi_SN2_upLink", "none")
	call.set(true)
	for n := range 5 {
		p.publish(verified(person(fmt.Sprint(n))))
	}
	other.publish(verified(person("50")))
	for range 3 {
		await(t, "a failure", call.refuse)
	}
	p.publish(`{"cmd": "heartU"}`)
	await(t, "heartD while the callback is down", p.got)
	status(t, url, "what waits", func(s map[string]any) bool {
		return at(s, "outbox", "waiting") == "6" && strings.Contains(at(s, "callback", "last_error"), "500")
	})
	if files, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(files) != 6 {
		t.Errorf("%v are in the outbox", files)
	}
	call.set(false)
	next := 0
	for range 6 {
		said := await(t, "a record", call.taken)
		if strings.Contains(said, `"user_id": 50,`) {
			continue
		}
		if !strings.Contains(said, fmt.Sprintf(`"user_id": %d,`, next)) {
			t.Errorf("%s was posted when %d was next", said, next)
		}
		next++
	}
	status(t, url, "an empty outbox", func(s map[string]any) bool { return at(s, "outbox", "waiting") == "0" })
	if files, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(files) != 0 {
		t.Errorf("%v stay in the outbox", files)
	}
}

// A redirect is no answer of the callback, whatever is behind it.
func TestRedirectIsARefusal(t *testing.T) {
	for _, code := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
		followed := false
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if followed = r.URL.Path == "/login"; !followed {
				http.Redirect(w, r, "/login", code)
			}
		}))
		b := &bridge{config: config{callback: srv.URL}, client: newClient()}
		if err := b.tryPost(t.Context(), []byte("{}")); err == nil || followed || !strings.Contains(err.Error(), fmt.Sprint(code)) {
			t.Errorf("%d: followed %v, %v", code, followed, err)
		}
		b.client.CloseIdleConnections()
		srv.Close()
	}
}

// Whoever may ask for the status is told no password and no token.
func TestStatusHasNoSecrets(t *testing.T) {
	b := &bridge{config: config{callback: "http://ann:secret@127.0.0.1:1/api?token=secret"}, client: newClient(), log: slog.New(slog.DiscardHandler)}
	b.outbox = open(t, t.TempDir(), 1, nil)
	defer b.outbox.close(t.Context())
	if err := b.post(t.Context(), []byte("{}")); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	w := httptest.NewRecorder()
	b.getStatus(w, nil)
	if said := w.Body.String(); strings.Contains(said, "secret") || !strings.Contains(said, `"http://127.0.0.1:1/api"`) {
		t.Error(said)
	}
}

// A restart in good order loses nothing and repeats nothing.
func TestRestart(t *testing.T) {
	mqtt, call := broker(t), newCallback(t)
	dir := t.TempDir()
	args := []string{"-broker", mqtt, "-sn", "SN1", "-callback", call.URL + "/api", "-outbox", dir}
	_, stop := start(t, args...)
	p := newTerminal(t, mqtt, up, down)
	p.publish(verified(person("1")))
	call.expect(t, "1")
	call.set(true)
	p.publish(verified(person("2"), person("3")))
	await(t, "a failure", call.refuse)
	stop()
	p.publish(verified(person("4"))) // the broker keeps it
	call.set(false)
	start(t, args...)
	p.publish(verified(person("1"), person("2"), person("3"), person("5")))
	call.expect(t, "2", "3", "4", "5")
	call.nothing(t)
}

func TestPost(t *testing.T) {
	mqtt, call := broker(t), newCallback(t)
	url, _ := start(t, "-broker", mqtt, "-sn", "SN1", "-sn", "SN2", "-callback", call.URL+"/api")
	p, q := newTerminal(t, mqtt, up, down), newTerminal(t, mqtt, "x", "fungxi_SN2_downLink")
	for _, tt := range []struct {
		path, body string
		status     int
		published  string
		to         []*terminal
	}{
		{"/", `{"cmd":  "openDoorD"}`, 200, `{"cmd":  "openDoorD"}`, []*terminal{p, q}},
		{"/", ` {"a": 1}` + "\n", 200, `{"a": 1}`, []*terminal{p, q}},
		{"/", `"{\"cmd\": \"openDoorD\"}"`, 200, `{"cmd": "openDoorD"}`, []*terminal{p, q}},
		{"/?sn=SN2", `"text \u00e9"`, 200, "text é", []*terminal{q}},
		{"/?sn=SN1&sn=SN2", `""`, 200, "", []*terminal{p, q}},
		{"/?sn=SN3", `{}`, 404, "", nil},
		{"/", `[1]`, 400, "", nil},
		{"/", `7`, 400, "", nil},
		{"/", `{"a"`, 400, "", nil},
		{"/", ``, 400, "", nil},
		{"/", `"` + strings.Repeat("x", maxCommand) + `"`, 413, "", nil},
		{"/else", `{}`, 404, "", nil},
	} {
		code, said := post(t, url+tt.path, tt.body)
		if code != tt.status || code == 200 && said != "ok" {
			t.Errorf("POST %s %.40s: %d %q, want %d", tt.path, tt.body, code, said, tt.status)
		}
		for _, p := range tt.to {
			if got := await(t, "a command", p.got); got != tt.published {
				t.Errorf("POST %s %s published %q", tt.path, tt.body, got)
			}
		}
	}
	req, _ := http.NewRequest(http.MethodPost, url, strings.NewReader(`{}`))
	req.Header.Set("Origin", "http://evil.example")
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a command from another site's page: %v, %v", resp, err)
	}
	resp.Body.Close()
	if len(p.got)+len(q.got) > 0 {
		t.Error("something else was published")
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestRules(t *testing.T) {
	mqtt, call := broker(t), newCallback(t)
	file := filepath.Join(t.TempDir(), "rules.json")
	os.WriteFile(file, []byte(`[
		{"when": {"cmd": "verifiedRecordU", "personType": 1, "verifiedCode": "0", "terminal": "SN1"}, "send": {"cmd": "openDoorD"}},
		{"when": {"cmd": "strangerRecordU"}, "send": "alarm"},
		{"when": {"num": 9}, "send": {"never": "so old"}, "within": "10s"},
		{"when": {"num": "10"}, "send": {"now": 1}, "within": "1m"},
		{"when": {"cmd": "doorU", "open": true}, "send": {"cmd": "closeDoorD"}}]`), 0o644)
	hook = func(e event) [][]byte {
		if e.cmd == "hookU" {
			return [][]byte{[]byte("hooked " + plain(e.fields["x"])), nil}
		}
		return nil
	}
	t.Cleanup(func() { hook = nil }) // when the program that start starts has ended
	start(t, "-broker", mqtt, "-sn", "SN1", "-callback", call.URL+"/api", "-rules", file)
	p := newTerminal(t, mqtt, up, down)
	const open = `{"cmd": "openDoorD"}`
	for payload, want := range map[string][]string{
		verified(person("1")): {open},
		verified(person("2"), person("2"), strings.Replace(person("3"), `Code": 0`, `Code": 4`, 1)): {open}, // a door opens once
		verified(person("9")): {open},
		verified(strings.Replace(person("10"), "2024-02-29 12:34:56", time.Now().Format("2006-01-02 15:04:05"), 1)): {open, `{"now": 1}`},
		`{"cmd": "strangerRecordU", "data": [{"liveImageBase64": "AAAA"}]}`:                                         {"alarm"},
		`{"cmd": "doorU", "open": true}`:  {`{"cmd": "closeDoorD"}`},
		`{"cmd": "doorU", "open": false}`: nil,
		`{"cmd": "hookU", "x": 5}`:        {"hooked 5"},
	} {
		p.publish(payload)
		p.publish(`{"cmd": "heartU"}`)
		for _, w := range want {
			for {
				got := await(t, w+" after "+payload, p.got)
				if strings.Contains(got, "heartD") {
					continue // overtakes
				}
				if got != w {
					t.Errorf("%s led to %s, want %s", payload, got, w)
				}
				break
			}
		}
	}
	p.publish(`{"cmd": "hookU", "x": "end"}`)
	for got := ""; got != "hooked end"; {
		if got = await(t, "the end", p.got); got != "hooked end" && !strings.Contains(got, "heartD") {
			t.Errorf("%s was sent, too", got)
		}
	}
}

// The simple installation: one topic, and every object is posted as it is.
func TestRaw(t *testing.T) {
	mqtt, call := broker(t), newCallback(t)
	url, _ := start(t, "-broker", mqtt, "-raw", "-topic", "face", "-callback", call.URL+"/api")
	p := newTerminal(t, mqtt, "face", "face")
	all := []string{verified(person("1")), `{}`, `{"any":  "thing"}`, `{"cmd": "heartU"}`, verified(person("1"))}
	for _, payload := range all {
		p.publish(payload)
		p.publish("not an object")
		if said := await(t, payload, call.taken); said != payload {
			t.Errorf("%s was posted as %s", payload, said)
		}
	}
	if code, said := post(t, url, `{"cmd": "openDoorD"}`); code != 200 || said != "ok" {
		t.Errorf("%d %s", code, said)
	}
	p.publish(`{"cmd": "end"}`)
	if said := await(t, "the end", call.taken); said != `{"cmd": "end"}` {
		t.Errorf("the bridge has posted its own command: %s", said)
	}
	seen := ""
	for !strings.Contains(seen, "openDoorD") {
		seen = await(t, "the command", p.got)
	}
	http.DefaultClient.CloseIdleConnections()
}

// Without -topic, -raw keeps the two topics.
func TestRawTwoTopics(t *testing.T) {
	mqtt, call := broker(t), newCallback(t)
	start(t, "-broker", mqtt, "-raw", "-sn", "SN1", "-callback", call.URL+"/api")
	p := newTerminal(t, mqtt, up, down)
	p.publish(verified(person("1")))
	if said := await(t, "a record", call.taken); said != verified(person("1")) {
		t.Errorf("posted was %s", said)
	}
}

func TestPictures(t *testing.T) {
	mqtt, call := broker(t), newCallback(t)
	dir := t.TempDir()
	_, stop := start(t, "-broker", mqtt, "-sn", "SN1", "-callback", call.URL+"/api", "-pictures", dir)
	p := newTerminal(t, mqtt, up, down)
	p.publish(verified(person("1"), person("1"), person("2")))
	call.expect(t, "1", "2")
	stop()
	files, _ := filepath.Glob(filepath.Join(dir, "*.jpg"))
	if len(files) != 2 {
		t.Fatalf("the pictures are %v", files)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || string(b) != "\xff\xd8\xff\x00\x00\x00" {
			t.Errorf("%s is %q (%v)", f, b, err)
		}
	}
}

func TestFlags(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	bad := filepath.Join(t.TempDir(), "rules.json")
	for _, content := range []string{"", "{}", `[{"when": {}, "send": {}}]`, `[{"when": {"a": 1}, "send": 5}]`, `[{"when": {"a": 1}, "send": {}, "within": "x"}]`, `[{"wen": {}}]`, "[] []"} {
		os.WriteFile(bad, []byte(content), 0o644)
		if _, err := readRules(bad); err == nil || !strings.Contains(err.Error(), "rules.json") {
			t.Errorf("the rules %s: %v", content, err)
		}
	}
	for want, args := range map[string][]string{
		"name the terminals": {}, "is not a flag": {"-sn", "a", "b"}, "no http URL": {"-sn", "a", "-callback", "x"},
		"not defined": {"-x"}, "rules.json": {"-sn", "a", "-rules", bad},
	} {
		args = append([]string{"-listen", "127.0.0.1:0", "-outbox", t.TempDir()}, args...)
		if err := run(ctx, args, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want an error about %q", args, err, want)
		}
	}
	secret := []string{"-sn", "a", "-listen", "127.0.0.1:0", "-outbox", t.TempDir(), "-callback", "ann:secret@host/api?token=secret"}
	if err := run(ctx, secret, io.Discard); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v: %v", secret, err)
	}
	for want, args := range map[string][]string{"without / + #": {"-sn", "a/b"}, "begins with": {"-sn", "a", "-broker", "x://y"}} {
		args = append([]string{"-listen", "127.0.0.1:0", "-outbox", t.TempDir()}, args...)
		if err := run(t.Context(), args, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want an error about %q", args, err, want)
		}
	}
}
