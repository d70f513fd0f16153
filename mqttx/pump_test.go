package mqttx

import (
	"testing"
	"time"
)

type sink struct{}

func (sink) send(*slot) {}

// A client at rest has no memory for messages: of many most are idle.
func TestPumpAtRest(t *testing.T) {
	now := time.Unix(1000, 0)
	p := newPump(newSizes(0, false))
	slots := make([]*slot, inFlight)
	for i := range slots {
		slots[i] = <-p.free
		slots[i].size(firstSize)
		p.free <- slots[i]
	}
	held := func() (n int) {
		for _, s := range slots {
			n += len(s.buf)
		}
		return n
	}
	p.used = now
	if again := p.rest(now.Add(restTime-1), time.Time{}); !again.Equal(now.Add(restTime)) || held() == 0 {
		t.Errorf("within the time: again at %v, %d bytes are left", again, held())
	}
	early := now.Add(restTime / 2)
	if again := p.rest(now, early); !again.Equal(early) {
		t.Errorf("again at %v, what is due comes before", again)
	}
	now = now.Add(restTime)
	busy := <-p.free
	if again := p.rest(now, time.Time{}); !again.Equal(now.Add(restTime)) || held() == 0 {
		t.Errorf("with one under way: again at %v, %d bytes are left", again, held())
	}
	p.free <- busy
	now = now.Add(restTime)
	if again := p.rest(now, time.Time{}); !again.IsZero() || held() != 0 {
		t.Errorf("after the time: again at %v, %d bytes are left", again, held())
	}
	if again := p.rest(now.Add(time.Hour), time.Time{}); !again.IsZero() {
		t.Errorf("at rest it wakes at %v", again)
	}
	full := make(chan *slot, inFlight) // of sessions of which the last has ended
	for range slots {
		s := <-p.free
		s.size(firstSize)
		s.medium = sink{}
		full <- s
	}
	close(full)
	if p.publish(full); len(p.free) != inFlight || held() != 0 {
		t.Errorf("without sessions %d bytes are left", held())
	}
}
