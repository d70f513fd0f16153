package mqttx

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/pixferry/pixferry/framing"
)

func TestBaseCodec(t *testing.T) {
	for _, tt := range []struct {
		m BaseMessage
		p []byte
	}{
		{BaseMessage{BaseBegin, 0, []byte("image.jpg;35935")}, fieldMessage(1, 0, []byte("image.jpg;35935"))},
		{BaseMessage{BaseData, 32766, []byte{1, 2, 3}}, fieldMessage(2, 32766, []byte{1, 2, 3})},
		{BaseMessage{BaseData, -1, []byte{}}, fieldMessage(2, -1, nil)},
		{BaseMessage{BaseFinished, 0, []byte{}}, []byte{0xee, 0xee, 0xff, 0xff, 3, 0, 0, 0, 0}},
	} {
		p, err := tt.m.Append([]byte("x"))
		if err != nil || !bytes.Equal(p[1:], tt.p) {
			t.Errorf("%+v: % x, %v; want % x", tt.m, p, err, tt.p)
		}
		var m BaseMessage
		if err := m.Parse(tt.p); err != nil || m.Function != tt.m.Function || m.Number != tt.m.Number || !bytes.Equal(m.Data, tt.m.Data) {
			t.Errorf("% x: %+v, %v", tt.p, m, err)
		}
		for n := range tt.p {
			if err := m.Parse(tt.p[:n]); !errors.Is(err, framing.ErrShort) {
				t.Errorf("% x: %v", tt.p[:n], err)
			}
		}
	}
	if p, err := (&BaseMessage{Function: BaseData, Data: make([]byte, 32768)}).Append([]byte("x")); err == nil || string(p) != "x" {
		t.Errorf("32,768 bytes of data: %d, %v", len(p), err)
	}
	for _, p := range [][]byte{fieldAnswer(1, 0, 1), fieldMessage(0, 0, nil), fieldMessage(4, 0, nil), append(fieldMessage(3, 0, nil), 0), {0xee, 0xee, 0xff, 0xff, 2, 0, 0, 0xff, 0xff}} {
		if err := new(BaseMessage).Parse(p); err == nil {
			t.Errorf("% x is taken for a message", p)
		}
	}
	for _, a := range []BaseAnswer{{BaseBegin, 0, true}, {BaseData, -2, false}, {BaseFinished, 32767, true}} {
		status := 0
		if a.Whole {
			status = 1
		}
		p := a.Append(nil)
		if want := fieldAnswer(int(a.Function), a.Number, status); !bytes.Equal(p, want) {
			t.Errorf("%+v: % x, want % x", a, p, want)
		}
		var got BaseAnswer
		if err := got.Parse(p); err != nil || got != a {
			t.Errorf("% x: %+v, %v", p, got, err)
		}
	}
	for _, p := range [][]byte{nil, fieldAnswer(1, 0, 2), fieldAnswer(2, 0, -1), fieldAnswer(4, 0, 1), fieldAnswer(0, 0, 1), fieldAnswer(1, 0, 1)[:7], append(fieldAnswer(1, 0, 1), 0), fieldMessage(1, 0, nil)} {
		if err := new(BaseAnswer).Parse(p); err == nil {
			t.Errorf("% x is taken for an answer", p)
		}
	}
	if err := new(BaseAnswer).Parse(fieldAnswer(3, 0, 77)); err != nil {
		t.Errorf("the status of an answer to finished means nothing: %v", err)
	}
}

func TestBaseHead(t *testing.T) {
	for text, want := range map[string]BaseHead{"image.jpg;35935": {"image.jpg", 35935}, "a;b;1": {"a;b", 1}, ";7": {"", 7}, "ünï;9223372036854775807": {"ünï", 1<<63 - 1}} {
		var h BaseHead
		if err := h.Parse([]byte(text)); err != nil || h != want {
			t.Errorf("%q: %+v, %v", text, h, err)
		}
		if got := want.Append(nil); string(got) != text {
			t.Errorf("%+v: %q", want, got)
		}
	}
	for _, text := range []string{"", "a", "a;", "a;-1", "a;+1", "a;1x", "a; 1", "a;9223372036854775808"} {
		if err := new(BaseHead).Parse([]byte(text)); err == nil {
			t.Errorf("%q is taken for a head", text)
		}
	}
}

// FuzzBase feeds both state machines with anything.
func FuzzBase(f *testing.F) {
	f.Add([]byte{9, 1, 0, 0, 'a', ';', '5'}, true)
	f.Add(fieldMessage(1, 0, []byte("a;5000")), true)
	f.Add(fieldMessage(2, 3, make([]byte, 800)), false)
	f.Add(fieldMessage(3, 0, nil), true)
	f.Add(fieldAnswer(1, 4, 0), false)
	f.Add(fieldAnswer(2, 0, 1), true)
	f.Fuzz(func(t *testing.T, p []byte, lastFirst bool) {
		b := &Base{LastFirst: lastFirst}
		now := time.Unix(1e9, 0)
		base := &simBase{baseReceiver: b.newReceiver()}
		server := newSimServer(b, "a", pattern(1, 5000), now)
		parties := []baseParty{base, server}
		for _, q := range [][]byte{p, fieldMessage(1, 0, []byte("a;5000")), p, fieldAnswer(1, 0, 1), p, fieldMessage(3, 0, nil), p} {
			for _, party := range parties {
				out := party.receive(q, now)
				if party == baseParty(base) && len(out) > 1 {
					t.Fatalf("%d answers to one message", len(out))
				}
				now = now.Add(time.Second)
				if at := party.deadline(); !at.IsZero() {
					now = at
					party.tick(now)
				}
			}
			if base.state == baseReceiving && (base.head.Size < 1 || base.packages > maxNumber) {
				t.Fatalf("BASE takes %+v", base.head)
			}
		}
		if len(base.kept) > 0 && !bytes.HasPrefix(p, []byte{0xee, 0xee, 0xff, 0xff}) {
			t.Fatal("an image of nothing was kept")
		}
	})
}
