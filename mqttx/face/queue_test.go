package face

import (
	"fmt"
	"testing"
)

func TestQueue(t *testing.T) {
	q := newQueue(3 * (10 + overhead))
	a, b := q.lane("a"), q.lane("b")
	put := func(l *lane, n byte, wantDropped string) {
		t.Helper()
		gone, ok := l.put(packet{payload: append(make([]byte, 9), n)})
		dropped := []string{}
		for _, p := range gone {
			dropped = append(dropped, p.lane.sn)
		}
		if !ok || fmt.Sprint(dropped) != wantDropped {
			t.Errorf("packet %d: dropped %v, %v; want %s", n, dropped, ok, wantDropped)
		}
	}
	put(b, 0, "[]")
	put(a, 1, "[]")
	put(a, 2, "[]")
	put(a, 3, "[b]") // the oldest of all, not of this lane
	put(b, 4, "[a]")
	for _, want := range []byte{2, 3} {
		if p := a.take(); p == nil || p.payload[9] != want {
			t.Errorf("got %v, want packet %d", p, want)
		}
	}
	if p := a.take(); p != nil {
		t.Errorf("got %v from an empty lane", p)
	}
	a.seal()
	if _, ok := a.put(packet{}); ok {
		t.Error("a sealed lane takes a packet")
	}
	if big, ok := b.put(packet{payload: make([]byte, 5000)}); !ok || len(big) != 1 {
		t.Errorf("a packet larger than the queue: dropped %v, %v; want it alone", big, ok)
	}
	b.close()
	if q.bytes != 0 || q.order.Len() != 0 {
		t.Errorf("%d bytes in %d packets are left", q.bytes, q.order.Len())
	}
}

// What was published is an echo once: the same from a terminal is its own.
func TestEchoes(t *testing.T) {
	var e echoes
	for n := range maxEchoes + 1 {
		e.sent(up, []byte{byte(n)})
	}
	for n := range maxEchoes + 1 {
		payload := []byte{byte(n)}
		if e.came(down, payload) || e.came(up, payload) != (n > 0) || e.came(up, payload) {
			t.Errorf("message %d of %d", n, maxEchoes+1)
		}
	}
}
