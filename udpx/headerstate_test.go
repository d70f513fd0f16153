package udpx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/framing"
)

// long is a header as a 64-bit system writes it.
func long(n int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }

// say tells steps in short.
func say(steps []headerStep) string {
	var words []string
	for _, s := range steps {
		switch s.kind {
		case headerBegins:
			words = append(words, fmt.Sprintf("begin %d", s.at))
		case headerData:
			words = append(words, fmt.Sprintf("data %d+%d", s.at, len(s.data)))
		case headerWhole:
			words = append(words, "whole")
		case headerLost:
			words = append(words, "lost")
		case headerBad:
			words = append(words, "bad")
		}
	}
	return strings.Join(words, ", ")
}

func TestHeaderState(t *testing.T) {
	type event struct {
		after time.Duration // what came before
		d     []byte        // nil: the deadline
		want  string
	}
	piece := func(n int) []byte { return bytes.Repeat([]byte{0xd9}, n) }
	const idle = 2 * time.Second
	for _, tt := range []struct {
		name   string
		events []event
	}{
		{"an image, and the next one", []event{
			{0, long(1500), "begin 1500"}, {0, piece(1024), "data 0+1024"}, {0, piece(476), "data 1024+476, whole"},
			{time.Hour, long(1), "begin 1"}, {0, piece(1), "data 0+1, whole"},
		}},
		{"an empty datagram after an image of 1,024 bytes, twice", []event{
			{0, long(1024), "begin 1024"}, {0, piece(1024), "data 0+1024, whole"}, {0, []byte{}, ""}, {0, []byte{}, ""}, {0, long(5), "begin 5"},
		}},
		{"a loss in the middle is told by the end, and soon", []event{
			{0, long(3000), "begin 3000"}, {0, piece(1024), "data 0+1024"}, {0, piece(952), "lost"}, {settled, nil, "bad"},
			{0, long(7), "begin 7"}, {0, piece(7), "data 0+7, whole"},
		}},
		{"the end is lost", []event{{0, long(1025), "begin 1025"}, {0, piece(1024), "data 0+1024"}, {idle, nil, "lost, bad"}, {0, long(7), "begin 7"}}},
		{"the next header comes after a loss, without a wait for the answer", []event{
			{0, long(3000), "begin 3000"}, {0, piece(1024), "data 0+1024"}, {0, long(5), "lost, begin 5"}, {0, piece(5), "data 0+5, whole"},
		}},
		{"the next header comes late, before the deadline was looked at", []event{
			{0, long(3000), "begin 3000"}, {idle + 1, long(5), "lost, bad, begin 5"}, {0, piece(5), "data 0+5, whole"},
		}},
		{"an end that looks like a header", []event{
			{0, long(1032), "begin 1032"}, {0, piece(1024), "data 0+1024"}, {0, long(4000), ""}, {settled, nil, "data 1024+8, whole"},
		}},
		{"an end that looks like a header, after a loss", []event{
			{0, long(2056), "begin 2056"}, {0, piece(1024), "data 0+1024"}, {0, long(4000), ""}, {settled, nil, "lost, bad"},
		}},
		{"a header that looks like the end that was lost", []event{
			{0, long(1032), "begin 1032"}, {0, piece(1024), "data 0+1024"}, {0, long(4000), ""}, {0, piece(1024), "lost, begin 4000, data 0+1024"},
		}},
		{"four bytes at the end are no header of a sender with eight", []event{
			{0, long(1028), "begin 1028"}, {0, piece(1024), "data 0+1024"}, {0, []byte{9, 0, 0, 0}, "data 1024+4, whole"},
		}},
		{"a lost header", []event{
			{0, piece(1024), "lost"}, {0, piece(1024), ""}, {0, piece(30), ""}, {settled, nil, "bad"}, {0, long(5), "begin 5"},
		}},
		{"a lost header, and an end that looks like one", []event{
			{0, piece(1024), "lost"}, {0, long(9), ""}, {settled, nil, "bad"}, {0, long(5), "begin 5"},
		}},
		{"a lost header, and the next one", []event{
			{0, piece(1024), "lost"}, {0, long(9), ""}, {0, piece(9), "begin 9, data 0+9, whole"},
		}},
		{"a doubled datagram", []event{
			{0, long(1500), "begin 1500"}, {0, piece(1024), "data 0+1024"}, {0, piece(1024), "lost"}, {0, piece(476), ""}, {settled, nil, "bad"},
		}},
		{"a doubled header", []event{{0, long(1500), "begin 1500"}, {0, long(1500), "lost, begin 1500"}, {0, piece(1024), "data 0+1024"}}},
		{"a negative header", []event{{0, long(-5), "lost"}, {settled, nil, "bad"}, {0, long(5), "begin 5"}}},
		{"a huge header, and what it announces", []event{
			{0, long(1 << 50), "lost"}, {0, piece(1024), ""}, {idle, nil, "bad"}, {0, long(5), "begin 5"},
		}},
		{"a header of no bytes", []event{{0, long(0), "lost"}, {settled, nil, "bad"}, {0, long(5), "begin 5"}}},
		{"a header of five bytes", []event{{0, piece(5), "lost"}, {settled, nil, "bad"}, {0, long(5), "begin 5"}}},
		{"answers are never answered", []event{
			{0, []byte(AnswerImage), ""}, {0, []byte(AnswerBad), ""}, {0, []byte(AnswerMessage), ""}, {0, []byte(AnswerError + "x"), ""},
		}},
		{"an image whose content is an answer", []event{{0, long(14), "begin 14"}, {0, []byte(AnswerImage), "data 0+14, whole"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := headerState{most: 64 << 20, idle: idle}
			now := time.Unix(1000, 0)
			for i, e := range tt.events {
				now = now.Add(e.after)
				var got string
				if e.d == nil {
					if s.deadline.IsZero() || s.deadline.After(now) {
						t.Fatalf("event %d: the deadline is %v after it", i, s.deadline.Sub(now))
					}
					got = say(s.expire())
				} else {
					got = say(s.take(now, e.d))
				}
				if got != e.want {
					t.Errorf("event %d: %q, want %q", i, got, e.want)
				}
				if idle := s.phase == headerIdle; idle != s.deadline.IsZero() {
					t.Errorf("event %d: idle is %v, and the deadline %v", i, idle, s.deadline)
				}
			}
		})
	}
}

func TestHeaderStateWithoutIdleTime(t *testing.T) {
	s := headerState{most: 64 << 20, idle: -1}
	now := time.Unix(1000, 0)
	s.take(now, long(2000))
	if !s.deadline.IsZero() {
		t.Error("there is a deadline without an idle time")
	}
	if got := say(s.take(now.Add(time.Hour), bytes.Repeat([]byte{1}, 1024))); got != "data 0+1024" {
		t.Errorf("an hour later: %q", got)
	}
}

// Whatever comes, an image is whole only if as many bytes came for it as its header
// said, one after the other, and each header is answered at most once.
func FuzzHeaderState(f *testing.F) {
	f.Add([]byte{0, 8, 1, 24, 2, 30}, true)
	f.Add(slices.Repeat([]byte{3, 8, 0, 8, 5, 200}, 5), false)
	f.Fuzz(func(t *testing.T, script []byte, big bool) {
		s := headerState{most: 5000, idle: time.Second}
		if big {
			s.order = framing.BigEndian
		}
		now := time.Unix(1000, 0)
		left, open := int64(-1), false
		for len(script) >= 2 {
			what, n := script[0], int(script[1])
			script = script[2:]
			now = now.Add(time.Duration(what%8) * 40 * time.Millisecond)
			var steps []headerStep
			switch what / 64 {
			case 0:
				steps = s.take(now, framing.AppendUint(nil, s.order, 4+4*(n%2), uint64(n)*37))
			case 1:
				steps = s.take(now, make([]byte, 1024))
			case 2:
				steps = s.take(now, bytes.Repeat(script[:min(1, len(script))], n))
			case 3:
				if d := s.deadline; !d.IsZero() && !d.After(now) {
					steps = s.expire()
				}
			}
			for _, step := range steps {
				switch step.kind {
				case headerBegins:
					if open {
						t.Fatal("an image begins within another one")
					}
					open, left = true, step.at
				case headerData:
					if !open || len(step.data) == 0 || int64(len(step.data)) > left {
						t.Fatalf("%d bytes, %d are missing", len(step.data), left)
					}
					left -= int64(len(step.data))
				case headerWhole:
					if !open || left != 0 {
						t.Fatalf("whole, and %d bytes are missing", left)
					}
					open = false
				case headerLost, headerBad:
					open = false
				}
			}
		}
	})
}

func FuzzSizeHeader(f *testing.F) {
	f.Add(long(35935), uint8(0))
	f.Add([]byte{0, 0, 140, 95}, uint8(1))
	f.Add(long(-1), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, order uint8) {
		h := SizeHeader{Order: framing.Order(order % 2)}
		if h.Parse(b) != nil {
			if h.Size != 0 || h.Width != 0 {
				t.Errorf("a failed Parse left %+v", h)
			}
			return
		}
		if again, err := h.Append(nil); err != nil || !bytes.Equal(again, b) {
			t.Errorf("% x became %+v and % x, %v", b, h, again, err)
		}
	})
}

func TestSizeHeader(t *testing.T) {
	for _, tt := range []struct {
		h    SizeHeader
		want string // "" is an error
	}{
		{SizeHeader{Size: 35935}, "5f8c000000000000"},
		{SizeHeader{Size: 35935, Width: 8, Order: framing.BigEndian}, "0000000000008c5f"},
		{SizeHeader{Size: 35935, Width: 4}, "5f8c0000"},
		{SizeHeader{Size: 35935, Width: 4, Order: framing.BigEndian}, "00008c5f"},
		{SizeHeader{Size: 1<<31 - 1, Width: 4}, "ffffff7f"},
		{SizeHeader{Size: 1 << 31, Width: 4}, ""},
		{SizeHeader{Size: 1, Width: 2}, ""},
		{SizeHeader{Size: 0}, ""},
		{SizeHeader{Size: -1}, ""},
	} {
		b, err := tt.h.Append(nil)
		if got := fmt.Sprintf("%x", b); got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%+v: %s, %v; want %s", tt.h, got, err, tt.want)
		}
		if err != nil {
			continue
		}
		back := SizeHeader{Order: tt.h.Order}
		if err := back.Parse(b); err != nil || back.Size != tt.h.Size || back.Width != len(b) {
			t.Errorf("%+v came back as %+v, %v", tt.h, back, err)
		}
	}
	for _, bad := range [][]byte{nil, {1}, {1, 2, 3}, {1, 0, 0, 0, 0}, long(0), long(-3), {0, 0, 0, 0x80}, make([]byte, 9)} {
		if err := new(SizeHeader).Parse(bad); err == nil {
			t.Errorf("% x is a header", bad)
		}
	}
}

func TestPacer(t *testing.T) {
	start := time.Unix(1000, 0)
	now := start
	p := pacer{gap: 250 * time.Microsecond}
	for range 4000 { // with timers that are up to 1 ms late
		if d := p.wait(now); d > 0 {
			now = now.Add(d.Truncate(time.Millisecond) + time.Millisecond)
		}
	}
	if took := now.Sub(start); took < 990*time.Millisecond || took > 1010*time.Millisecond {
		t.Errorf("4,000 datagrams 250 µs apart took %v", took)
	}
	now = now.Add(time.Minute) // the program was stopped
	burst := 0
	for p.wait(now) <= 0 {
		burst++
	}
	if burst > 10 {
		t.Errorf("after a delay %d datagrams leave at once", burst)
	}
	p = defaultPace
	for burst = 0; p.wait(now) <= 0; burst++ {
	}
	if burst != 32 {
		t.Errorf("%d datagrams leave at once", burst)
	}
	p = pacer{gap: -1}
	for range 1000 {
		if p.wait(now) != 0 {
			t.Fatal("no gap, and a wait")
		}
	}
}
