package session

import (
	"fmt"
	"testing"
)

func TestCreditPoolShares(t *testing.T) {
	p := &creditPool{bytes: 4 << 20, messages: 512, active: make(map[*Session]bool)}
	for _, c := range []struct{ sessions, bytes, messages int }{{0, 4 << 20, 512}, {1, 4 << 20, 512}, {16, 256 << 10, 32}, {1000, leastBytes, leastMessages}} {
		for range c.sessions - len(p.active) {
			p.active[new(Session)] = true
		}
		if bytes, messages := p.share(); bytes != c.bytes || messages != c.messages {
			t.Errorf("%d sessions: each has %d bytes and %d messages, want %d and %d", c.sessions, bytes, messages, c.bytes, c.messages)
		}
	}
	hello := (&Config{Window: 4 << 20, Messages: 512}).hello(1, LinkInfo{MaxMessage: 1200})
	if got, want := fmt.Sprint(hello.Window, hello.Messages), fmt.Sprint(firstBytes, firstMessages); got != want {
		t.Errorf("a session of a pool begins with %s, want %s", got, want)
	}
}
