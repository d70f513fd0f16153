package session

import (
	"fmt"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq/cc"
)

func TestPathsAreRememberedForAWhile(t *testing.T) {
	var p paths
	now := time.Now()
	p.keep("192.0.2.1:4000", cc.Path{Rate: 1000, RTT: time.Second}, now)
	p.keep("192.0.2.1:4000", cc.Path{}, now) // a session that has learned nothing
	for _, c := range []struct {
		peer string
		age  time.Duration
		rate int64
	}{
		{"192.0.2.1:4000", 0, 1000},
		{"192.0.2.1:5000", 0, 1000},
		{"192.0.2.1:4000", -time.Hour, 1000}, // a clock that was set
		{"192.0.2.1:4000", 25 * time.Minute, 250},
		{"192.0.2.1:4000", 1000 * time.Hour, 0},
		{"192.0.2.2:4000", 0, 0},
		{"2001:db8::1", 0, 0},
	} {
		if got := p.recall(c.peer, now.Add(c.age)); got.Rate != c.rate {
			t.Errorf("%s after %v: %d, want %d", c.peer, c.age, got.Rate, c.rate)
		}
	}
	p.keep("192.0.2.1:4000", cc.Path{Rate: 2000, RTT: time.Second}, now)
	if got := p.recall("192.0.2.1:4000", now); got.Rate != 2000 || len(p.list) != 1 {
		t.Errorf("%d after a newer session, %d paths", got.Rate, len(p.list))
	}
}

func TestPathsAreBounded(t *testing.T) {
	var p paths
	now := time.Now()
	host := func(i int) string { return fmt.Sprintf("host%d:1", i) }
	for i := range 2 * maxPaths {
		p.keep(host(i), cc.Path{Rate: int64(i + 1)}, now)
		p.keep(host(0), cc.Path{Rate: 7}, now)
	}
	if len(p.list) != maxPaths {
		t.Errorf("%d paths", len(p.list))
	}
	if p.recall(host(0), now).Rate != 7 || p.recall(host(2*maxPaths-1), now).Rate == 0 || p.recall(host(1), now).Rate != 0 {
		t.Error("not the oldest was forgotten")
	}
}
