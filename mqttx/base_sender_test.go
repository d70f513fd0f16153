package mqttx

import (
	"testing"
	"time"
)

// A heard is an answer that a sender hears some time after the last one, and what it
// then sends: nothing, or a step.
type heard struct {
	after  time.Duration
	answer []byte // nil: none, it is time that passes
	want   string // "", "0" to "3" (packages), "begin", "finished", "over"
}

// TestBaseSenderFilters tells answers from their doubles and those that are late.
func TestBaseSenderFilters(t *testing.T) {
	const ms = time.Millisecond
	yes := func(number int) []byte { return fieldAnswer(2, number, 1) }
	for name, tt := range map[string][]heard{
		"begin is answered twice": {
			{ms, fieldAnswer(1, 0, 1), "0"}, {ms, fieldAnswer(1, 0, 1), ""}, {ms, yes(0), "1"},
		},
		"a BASE that does not count answers twice": {
			{ms, fieldAnswer(1, 0, 1), "0"}, {4 * ms, yes(0), "1"}, {ms, yes(0), ""}, {3 * ms, yes(0), "2"}, {0, yes(0), ""}, {4 * ms, yes(0), "3"}, {4 * ms, yes(0), "finished"}, {0, yes(0), ""}, {ms, fieldAnswer(3, 0, 0), "over"},
		},
		"it has become faster": {
			{ms, fieldAnswer(1, 0, 1), "0"}, {400 * ms, yes(0), "1"}, {ms, yes(0), ""}, {799 * ms, nil, "2"}, {ms, yes(0), "3"}, {ms, yes(0), "finished"},
		},
		"a BASE that counts answers twice, late": {
			{ms, fieldAnswer(1, 0, 1), "0"}, {ms, yes(0), "1"}, {ms, yes(1), "2"}, {3 * time.Second, yes(0), ""}, {time.Second, yes(1), ""}, {ms, yes(2), "3"}, {ms, yes(2), ""}, {ms, yes(3), "finished"},
		},
		"it does not count after all": {
			{ms, fieldAnswer(1, 0, 1), "0"}, {ms, yes(0), "1"}, {ms, yes(1), "2"}, {ms, yes(1), ""}, {4999 * ms, nil, "2"}, {ms, yes(1), ""}, {2 * ms, nil, "3"}, {ms, yes(1), "finished"},
		},
		"both copies are answered": {
			{ms, fieldAnswer(1, 0, 1), "0"}, {ms, yes(0), "1"}, {5 * time.Second, nil, "1"}, {time.Second, yes(0), ""}, {ms, yes(0), "2"}, {ms, yes(0), "3"},
		},
		"the first was lost": {
			{ms, fieldAnswer(1, 0, 1), "0"}, {ms, yes(0), "1"}, {5 * time.Second, nil, "1"}, {ms, yes(0), ""}, {2 * ms, nil, "2"}, {ms, yes(0), "3"},
		},
		"a request comes twice": {
			{ms, fieldAnswer(1, 0, 1), "0"}, {4 * ms, yes(0), "1"}, {4 * ms, fieldAnswer(2, 1, 0), "0"}, {ms, fieldAnswer(2, 1, 0), ""}, {3 * ms, yes(0), "2"},
		},
		"and again": {
			{ms, fieldAnswer(1, 0, 1), "0"}, {4 * ms, yes(0), "1"}, {4 * ms, fieldAnswer(2, 1, 0), "0"}, {4 * ms, fieldAnswer(2, 1, 0), "0"}, {4 * ms, yes(0), "2"},
		},
		"over, from the transfer before": {
			{ms, fieldAnswer(3, 0, 1), ""}, {ms, fieldAnswer(1, 0, 1), "0"}, {ms, yes(0), "1"},
		},
		"data, from the transfer before": {
			{ms, yes(7), ""}, {ms, fieldAnswer(2, 2, 0), ""}, {ms, fieldAnswer(1, 0, 1), "0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1e9, 0)
			s := (&Base{}).newSender(4, now)
			for i, h := range tt {
				now = now.Add(h.after)
				sent := false
				if h.answer == nil {
					sent = s.tick(now)
				} else if sent = s.tick(now); !sent {
					sent = s.receive(h.answer, now)
				}
				got := ""
				switch {
				case s.ended():
					got = "over"
				case sent && s.newest.function == BaseData:
					got = string(rune('0' + s.newest.index))
				case sent:
					got = map[BaseFunction]string{BaseBegin: "begin", BaseFinished: "finished"}[s.newest.function]
				}
				if got != h.want || s.err != nil {
					t.Fatalf("answer %d: %q is sent (%v), want %q", i, got, s.err, h.want)
				}
			}
		})
	}
}
