package session

import (
	"testing"
	"time"

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

// A session that is not known is told so once for all its messages, which come at once: other sessions wait for theirs.
func TestRefusalsAreShared(t *testing.T) {
	var r Refusals
	now := time.Now()
	told := make(map[wire.ConnID]int)
	for range 2 {
		for id := range wire.ConnID(2 * refusalsPerSecond) {
			for n := range uint32(40) {
				h := wire.Header{Dest: id, Number: n}
				if r.Allowed(now, wire.Seal(wire.AppendPing(h.Append(nil)))) {
					told[id]++
				}
			}
		}
		if len(told) != refusalsPerSecond || told[0] != 1 {
			t.Errorf("%d sessions are told, the first %d times; want %d, once", len(told), told[0], refusalsPerSecond)
		}
		now = now.Add(time.Second)
		clear(told)
	}
}
