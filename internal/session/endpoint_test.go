package session

import (
	"testing"

	"github.com/pixferry/pixferry/internal/wire"
)

func TestRefuse(t *testing.T) {
	message := func(h wire.Header) []byte { return wire.Seal(wire.AppendPing(h.Append(nil))) }
	for _, c := range []struct {
		name string
		msg  []byte
		want wire.Type // NoFrame: no answer
		dest wire.ConnID
	}{
		{"of an unknown session", message(wire.Header{Dest: 7, Number: 9}), wire.TypeReset, 0},
		{"of another version", message(wire.Header{Long: true, Dest: 7, Version: 99, Source: 8}), wire.TypeVersions, 8},
		{"that begins a session", message(wire.Header{Long: true, Dest: 7, Version: wire.Version1, Source: 8}), wire.NoFrame, 0},
		{"that is an answer itself", message(wire.Header{Long: true, Version: wire.VersionNone}), wire.NoFrame, 0},
		{"that is garbage", []byte("GET / HTTP/1.1\r\n\r\n"), wire.NoFrame, 0},
		{"that is empty", nil, wire.NoFrame, 0},
	} {
		answer := Refuse(c.msg)
		if c.want == wire.NoFrame {
			if answer != nil {
				t.Errorf("a message %s is answered", c.name)
			}
			continue
		}
		h, frames, err := wire.Parse(answer)
		if err != nil || h.Version != wire.VersionNone || h.Dest != c.dest {
			t.Errorf("a message %s: the answer is %+v, %v", c.name, h, err)
		}
		if r := wire.NewReader(frames); !r.Next() || r.Type != c.want {
			t.Errorf("a message %s is answered by %v, want %v", c.name, r.Type, c.want)
		}
		if Refuse(answer) != nil {
			t.Errorf("the answer to a message %s is answered", c.name)
		}
	}
}
