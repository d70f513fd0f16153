package session

import (
	"math"
	"testing"
)

func TestCreditPoolShares(t *testing.T) {
	queue := Config{Settings: Settings{Window: 4 << 20}, Messages: 512} // of a broker
	memory := Config{Settings: Settings{Window: 8 << 20}}
	for _, c := range []struct {
		cfg                       Config
		sessions, bytes, messages int
	}{
		{queue, 1, 4 << 20, 512},
		{queue, 16, 256 << 10, 32},
		{queue, 17, 128 << 10, 16},
		{queue, 1000, leastBytes, leastMessages},
		{memory, 1, 8 << 20, math.MaxUint16},
		{memory, 32, 8 << 20, math.MaxUint16},
		{memory, 33, 4 << 20, math.MaxUint16},
		{memory, 1000, 256 << 10, math.MaxUint16},
		// The default grows, but all sessions together take no more.
		{Config{}, 1, largestWindow, math.MaxUint16},
		{Config{}, 17, 8 << 20, math.MaxUint16},
		{Config{}, 1000, 256 << 10, math.MaxUint16},
	} {
		cfg := c.cfg.withDefaults()
		p := newCreditPool(&cfg)
		sessions := make([]*Session, c.sessions)
		for i := range sessions {
			sessions[i] = &Session{ended: true} // nothing to tell an engine
			sessions[i].pooled.Store(true)
			p.set(sessions[i])
		}
		for _, s := range sessions {
			if bytes, messages := p.window(s); bytes != c.bytes || messages != c.messages {
				t.Fatalf("%d sessions: one has %d bytes and %d messages, want %d and %d", c.sessions, bytes, messages, c.bytes, c.messages)
			}
		}
		for _, s := range sessions[1:] {
			s.pooled.Store(false)
			p.set(s)
		}
		if bytes, _ := p.window(sessions[0]); bytes != cfg.largest {
			t.Errorf("the last of %d sessions has %d bytes, want the whole window of %d", c.sessions, bytes, cfg.largest)
		}
	}
}

// Who noted that a session needs a share tells the pool after who noted that it has ended.
func TestEndedSessionLeavesThePool(t *testing.T) {
	cfg := Config{}.withDefaults()
	p := newCreditPool(&cfg)
	s := &Session{ended: true}
	s.pooled.Store(true)
	s.pooled.Store(false)
	p.set(s)
	p.set(s)
	if len(p.active) != 0 {
		t.Error("an ended session keeps its share")
	}
}

func TestHelloBeginsWithTheFirstWindow(t *testing.T) {
	e := NewEndpoint(Config{Settings: Settings{Window: 4 << 20}, Messages: 512})
	if hello := e.hello(LinkInfo{MaxMessage: 1200}); hello.Window != largePiece || hello.Messages != 8 {
		t.Errorf("a session of a broker's pool begins with %d bytes and %d messages", hello.Window, hello.Messages)
	}
	e = NewEndpoint(Config{})
	if hello := e.hello(LinkInfo{MaxMessage: 1200}); hello.Window != 4<<20 || hello.Messages != math.MaxUint16 {
		t.Errorf("a session begins with %d bytes and %d messages", hello.Window, hello.Messages)
	}
}
