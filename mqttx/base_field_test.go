package mqttx

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
)

const fieldWait = 5 * time.Second

// TestBaseTakesFromField is BASE with the sender of the field. Its last package never
// comes but with LastFirst.
func TestBaseTakesFromField(t *testing.T) {
	for _, n := range []int{1, 1399, 1400, 1401, 2800, 35_000, 35_935} {
		for _, lastFirst := range []bool{false, true} {
			for _, deaf := range []time.Duration{0, 10 * time.Millisecond} {
				for _, stubborn := range []bool{false, true} {
					for _, latency := range []time.Duration{time.Millisecond, 300 * time.Millisecond} {
						t.Run(fmt.Sprint(n, lastFirst, deaf, stubborn, latency), func(t *testing.T) {
							base := &simBase{baseReceiver: (&Base{LastFirst: lastFirst}).newReceiver()}
							server := &fieldServer{TB: t, name: "image.jpg", image: pattern(1, n), wait: fieldWait, deaf: deaf, stubborn: stubborn}
							s := newBaseSim(t, server, base)
							s.latency = latency
							s.put(true, server.start(s.now))
							s.run(3 * time.Minute)
							checkField(t, s, server, base, lastFirst)
						})
					}
				}
			}
		}
	}
}

func checkField(t *testing.T, s *baseSim, server *fieldServer, base *simBase, lastFirst bool) {
	t.Helper()
	if !server.over || base.overs == 0 {
		t.Errorf("the field's sender was not told that the transfer is over")
	}
	if base.state != baseIdle {
		t.Errorf("BASE has not ended")
	}
	n := server.count()
	if most := n*len(server.streams) + 2*maxAsks + 20; server.packages > most || server.finishes > maxAsks+1+len(server.streams) {
		t.Errorf("%d packages and %d times finished for an image of %d packages", server.packages, server.finishes, n)
	}
	if len(server.streams) != 1 {
		t.Errorf("%d streams were started: begin was answered too often", len(server.streams))
	}
	if lastFirst {
		if len(base.kept) != 1 || !bytes.Equal(base.kept[0], server.image) || len(base.lost) > 0 {
			t.Errorf("kept %d, lost %v", len(base.kept), base.lost)
		}
		return
	}
	if len(base.kept) > 0 || len(base.lost) != 1 {
		t.Fatalf("kept %d, lost %v", len(base.kept), base.lost)
	}
	size, have := len(server.image), (n-1)*1400
	want := fmt.Sprintf("%d of %d bytes are missing (%d-%d)", size-have, size, have, size-1)
	refused := (*transport.RejectedError)(nil)
	if err := base.lost[0]; !strings.Contains(err.Error(), want) || !errors.As(err, &refused) || refused.Reason != transport.ReasonIncomplete {
		t.Errorf("the error is %q, want %q in it", err, want)
	}
	if !bytes.Equal(base.prefix[0], server.image[:have]) {
		t.Errorf("the truncated image has %d bytes, or wrong ones; want %d", len(base.prefix[0]), have)
	}
	tail := base.asks
	if len(tail) != maxAsks {
		t.Errorf("BASE asked %d times for what was missing, want %d", len(tail), maxAsks)
	}
	for i := range tail[1:] {
		if pause := tail[i+1].Sub(tail[i]); pause < fieldWait {
			t.Errorf("BASE asked again after %v", pause)
		}
	}
}

// TestBaseTakesFromDoubledField has the sender of the field begin several streams, which
// a BASE of old has brought about: package after package comes twice, in two orders.
func TestBaseTakesFromDoubledField(t *testing.T) {
	for streams := 2; streams <= 5; streams++ {
		base := &simBase{baseReceiver: (&Base{LastFirst: true}).newReceiver()}
		server := &fieldServer{TB: t, name: "image.jpg", image: pattern(1, 35_935), wait: fieldWait}
		s := newBaseSim(t, server, base)
		copies := streams
		s.fault = func(toBase bool, n int, p []byte) (int, time.Duration, []byte) {
			if !toBase && n == 0 {
				return copies, 0, p // the answer to begin
			}
			return 1, 0, p
		}
		s.put(true, server.start(s.now))
		s.run(3 * time.Minute)
		if len(server.streams) != streams || server.packages < streams*20 {
			t.Fatalf("%d streams, %d packages", len(server.streams), server.packages)
		}
		if !server.over || len(base.kept) != 1 || !bytes.Equal(base.kept[0], server.image) || len(base.lost) > 0 {
			t.Errorf("%d streams: over %v, kept %d, lost %v", streams, server.over, len(base.kept), base.lost)
		}
	}
}

// TestBaseFieldFaults has each message between BASE and the sender of the field suffer
// faults in turn, and then another image.
func TestBaseFieldFaults(t *testing.T) {
	image, other := pattern(1, 9000), pattern(2, 9000) // of one size and name
	for at := range 12 {
		for _, toBase := range []bool{true, false} {
			for _, fault := range []struct {
				copies int
				late   time.Duration
			}{{0, 0}, {2, 0}, {1, 7 * time.Second}} {
				base := &simBase{baseReceiver: (&Base{LastFirst: true}).newReceiver()}
				server := &fieldServer{TB: t, name: "image.jpg", image: image, wait: fieldWait}
				s := newBaseSim(t, server, base)
				s.fault = func(dir bool, n int, p []byte) (int, time.Duration, []byte) {
					if dir == toBase && n == at {
						return fault.copies, fault.late, p
					}
					return 1, 0, p
				}
				s.put(true, server.start(s.now))
				s.run(3 * time.Minute)
				if !server.over || len(base.kept)+len(base.lost) == 0 {
					t.Errorf("%v, to BASE %v, message %d: over %v, kept %d, lost %v", fault, toBase, at, server.over, len(base.kept), base.lost)
				}
				s.fault = nil
				next := &fieldServer{TB: t, name: "image.jpg", image: other, wait: fieldWait}
				s.server = next
				s.put(true, next.start(s.now))
				s.run(3 * time.Minute)
				if !next.over || !bytes.Equal(base.kept[len(base.kept)-1], other) {
					t.Errorf("%v, to BASE %v, message %d: the next image: over %v, kept %d", fault, toBase, at, next.over, len(base.kept))
				}
				for _, got := range base.kept {
					if !bytes.Equal(got, image) && !bytes.Equal(got, other) {
						t.Errorf("%v, to BASE %v, message %d: a mixed image", fault, toBase, at)
					}
				}
			}
		}
	}
}

// TestBaseForeign has messages of others come before each message of the field's sender.
func TestBaseForeign(t *testing.T) {
	foreign := [][]byte{
		nil, {0}, []byte("hello"), fieldAnswer(1, 0, 1), fieldMessage(2, 0, nil)[:8], fieldMessage(9, 0, nil), fieldMessage(0, 0, nil), fieldMessage(-1, 0, nil),
		append(fieldMessage(2, 1, nil), 1), {0xee, 0xee, 0xff, 0xff, 2, 0, 0, 0xff, 0xff}, {0xee, 0xee, 0xff, 0xff, 2, 0, 0, 0x00, 0x80, 1, 2, 3},
	}
	outside := [][]byte{ // these are answered, as each message of the sender is
		fieldMessage(2, -1, nil), fieldMessage(2, 26, make([]byte, 1400)), fieldMessage(2, 32767, make([]byte, 1400)), fieldMessage(2, -32768, make([]byte, 3)),
	}
	base := &simBase{baseReceiver: (&Base{LastFirst: true}).newReceiver()}
	server := &fieldServer{TB: t, name: "image.jpg", image: pattern(1, 35_935), wait: fieldWait}
	s := newBaseSim(t, server, base)
	s.put(true, server.start(s.now))
	for i := 0; !server.over; i++ {
		if i > 1000 {
			t.Fatal("no end")
		}
		for _, p := range foreign {
			if out := base.receive(p, s.now); out != nil {
				t.Fatalf("%x was answered with %x", p, out)
			}
		}
		if base.state == baseReceiving {
			for _, p := range outside {
				if out := base.receive(p, s.now); len(out) != 1 || len(out[0]) != 8 {
					t.Fatalf("%x was answered with %x", p, out)
				}
			}
		}
		s.run(0)
		s.now = s.now.Add(time.Millisecond)
	}
	if len(base.kept) != 1 || !bytes.Equal(base.kept[0], server.image) {
		t.Errorf("kept %d, lost %v", len(base.kept), base.lost)
	}
}

// TestBaseSendsToField is the sender with hardware of several kinds.
func TestBaseSendsToField(t *testing.T) {
	lcg := uint32(1)
	numbers := map[string]func(i int) int{
		"zero": func(int) int { return 0 }, "echo": func(i int) int { return i }, "next": func(i int) int { return i + 2 },
		"random":  func(int) int { lcg = lcg*1664525 + 1013904223; return int(int16(lcg >> 16)) },
		"toggles": func(i int) int { return i & 1 }, "minus": func(int) int { return -1 }, "slow": func(i int) int { return i / 3 },
	}
	for kind, number := range numbers {
		for _, first := range []int{0, 1} {
			for _, copies := range []int{1, 2, 3} {
				for _, n := range []int{1, 1400, 1401, 35_935} {
					image := pattern(uint64(n), n)
					base := &fieldBase{TB: t, number: number, first: first, askHead: -1, copies: copies}
					s := newBaseSim(t, nil, base)
					server := s.transfer(&Base{ZeroBased: first == 0}, "image.jpg", image, 10*time.Minute)
					what := fmt.Sprintf("%s, counts from %d, %d answers each, %d bytes", kind, first, copies, n)
					if server.err != nil || base.name != "image.jpg" || !bytes.Equal(base.image, image) {
						t.Errorf("%s: %v", what, server.err)
					}
					if copies == 1 && kind != "random" && kind != "toggles" && kind != "slow" { // these may look as if they repeated themselves
						for i, got := range base.order {
							if got != i {
								t.Errorf("%s: packages came in the order %v", what, base.order)
								break
							}
						}
					}
					if sorted := slices.Compact(slices.Clone(base.order)); !slices.IsSorted(sorted) || base.ends != 1 || base.begins != 1 {
						t.Errorf("%s: %d times begin, %d times finished, packages %v", what, base.begins, base.ends, base.order)
					}
					if took := s.now.Sub(time.Unix(1e9, 0)); copies == 1 && took > time.Minute {
						t.Errorf("%s: it took %v", what, took)
					}
				}
			}
		}
	}
}

// TestBaseRequests has hardware ask for packages: again, others, first of all the last.
func TestBaseRequests(t *testing.T) {
	image := pattern(1, 10*1400)
	for _, tt := range []struct {
		askHead int
		ask     map[int]int
		want    []int
	}{
		{-1, map[int]int{3: 3}, []int{0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9}},
		{-1, map[int]int{3: 1, 7: 0}, []int{0, 1, 2, 3, 1, 4, 5, 6, 7, 0, 8, 9}},
		{-1, map[int]int{9: 8, 8: 2}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 2, 9, 8}},
		{9, nil, []int{9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
	} {
		for _, first := range []int{0, 1} {
			for _, b := range []*fieldBase{{number: func(int) int { return 0 }}, {number: func(i int) int { return i }}} {
				b.TB, b.first, b.askHead, b.ask = t, first, tt.askHead, make(map[int]int)
				for k, v := range tt.ask {
					b.ask[k] = v
				}
				s := newBaseSim(t, nil, b)
				server := s.transfer(&Base{ZeroBased: first == 0}, "a", image, time.Minute)
				if server.err != nil || !slices.Equal(b.order, tt.want) || !bytes.Equal(b.image, image) {
					t.Errorf("asked %v: %v, %v; want %v", tt.ask, server.err, b.order, tt.want)
				}
			}
		}
	}
}

// answers is a BASE that gives the same answer to everything.
type answers struct {
	silent
	p []byte
}

func (a answers) receive([]byte, time.Time) [][]byte { return [][]byte{a.p} }

// TestBaseNonsense has hardware answer nonsense, for ever. The sender ends in time.
func TestBaseNonsense(t *testing.T) {
	for _, p := range [][]byte{
		nil, {1}, []byte("eight by"), fieldAnswer(1, 0, 0), fieldAnswer(1, -5, 0), fieldAnswer(1, 32767, 0), fieldAnswer(1, 1, 0), fieldAnswer(2, 0, 1), fieldAnswer(2, 1, 0),
		fieldAnswer(2, 0, 0), fieldAnswer(3, 0, 1), fieldAnswer(4, 0, 1), fieldAnswer(0, 0, 1), fieldAnswer(1, 0, 2), fieldAnswer(1, 0, -1), fieldAnswer(1, 0, 1),
		fieldAnswer(1, 0, 1)[:7], append(fieldAnswer(1, 0, 1), 0), fieldMessage(1, 0, nil),
	} {
		for _, first := range []int{0, 1} {
			s := newBaseSim(t, nil, answers{p: p})
			server := s.transfer(&Base{ZeroBased: first == 0}, "a", pattern(1, 5000), 2*time.Minute)
			if server.err == nil {
				t.Errorf("%x for an answer: the sender is content", p)
			}
			if s.said[1] > 100 {
				t.Errorf("%x for an answer: %d messages", p, s.said[1])
			}
		}
	}
	// One that asks for the same package for ever.
	s := newBaseSim(t, nil, &stuckBase{})
	server := s.transfer(&Base{}, "a", pattern(1, 5000), 2*time.Minute)
	if server.err == nil || !strings.Contains(server.err.Error(), "package 2 of 4 for the 13th time") {
		t.Errorf("a BASE that is never content: %v", server.err)
	}
}

type stuckBase struct{ silent }

func (*stuckBase) receive(p []byte, _ time.Time) [][]byte {
	if p[4] == 1 {
		return [][]byte{fieldAnswer(1, 0, 1)}
	}
	return [][]byte{fieldAnswer(2, 2, 0)}
}
