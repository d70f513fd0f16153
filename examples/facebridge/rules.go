package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/pixferry/pixferry/mqttx/face"
)

// An event is something that a terminal has reported: a verified record, a stranger, an
// open door, ...
type event struct {
	terminal string
	cmd      string
	fields   map[string]json.RawMessage // of the record, or of the report
	when     time.Time                  // of a record; zero: unknown
}

// A hook turns events into commands, as a program instead of a rule file: nil is none.
// Assign one in a file of your own beside this one. A command is published as it is.
var hook func(e event) (commands [][]byte)

// A rule says what command a report leads to.
type rule struct {
	// When is what the report must have: cmd, terminal, and fields of the record.
	When map[string]json.RawMessage `json:"when"`
	// Send is the command: an object as it stands, or the content of a string.
	Send json.RawMessage `json:"send"`
	// Within is how old the record may be, "10s" for example: what the broker has kept
	// for the bridge must not open a door. Empty: any age.
	Within string `json:"within"`

	within time.Duration
}

// readRules reads a rule file: a JSON list of rules.
func readRules(path string) ([]rule, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rules []rule
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rules); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: there is more after the list of rules", path)
	}
	for i, r := range rules {
		if len(r.When) == 0 {
			return nil, fmt.Errorf(`%s: rule %d: "when" is empty, so that everything would lead to %s`, path, i, r.Send)
		}
		if rules[i].Send, err = command(r.Send); err != nil {
			return nil, fmt.Errorf(`%s: rule %d: "send": %w`, path, i, err)
		}
		if r.Within != "" {
			if rules[i].within, err = time.ParseDuration(r.Within); err != nil || rules[i].within <= 0 {
				return nil, fmt.Errorf(`%s: rule %d: "within": %q is no duration`, path, i, r.Within)
			}
		}
	}
	return rules, nil
}

// command returns what is published for a JSON value: the text of an object, the content
// of a string.
func command(v []byte) ([]byte, error) {
	v = bytes.TrimSpace(v)
	var s string
	switch {
	case !json.Valid(v):
		return nil, errors.New("this is not JSON")
	case v[0] == '{':
		return v, nil
	case json.Unmarshal(v, &s) == nil && v[0] == '"':
		return []byte(s), nil
	}
	return nil, fmt.Errorf("%.40s is neither an object nor a string", v)
}

// commands returns what an event leads to.
func commands(rules []rule, e event, now time.Time) (all [][]byte) {
	for _, r := range rules {
		if r.matches(e, now) {
			all = append(all, r.Send)
		}
	}
	if hook != nil {
		all = append(all, hook(e)...)
	}
	return slices.DeleteFunc(all, func(c []byte) bool { return len(c) == 0 })
}

func (r *rule) matches(e event, now time.Time) bool {
	if r.within > 0 && (e.when.IsZero() || now.Sub(e.when).Abs() > r.within) {
		return false
	}
	for key, want := range r.When {
		got := e.fields[key]
		switch key {
		case "terminal":
			got = quote(e.terminal)
		case "cmd":
			got = quote(e.cmd)
		}
		if got == nil || plain(got) != plain(want) {
			return false
		}
	}
	return true
}

// plain is a JSON value for comparison: "1" and 1 are the same, as terminals differ.
func plain(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	var b bytes.Buffer
	if json.Compact(&b, v) == nil {
		return b.String()
	}
	return string(v)
}

func quote(s string) json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		return json.RawMessage(`""`) // cannot be: every string can be marshalled
	}
	return b
}

// recordEvent is the event of a record.
func recordEvent(terminal, cmd string, r face.Record) event {
	e := event{terminal: terminal, cmd: cmd, when: r.When()}
	if json.Unmarshal(r.Raw, &e.fields) == nil {
		delete(e.fields, "liveImageBase64")
	}
	return e
}
