package mqttx

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRandomNames(t *testing.T) {
	one, other := randomName(), randomName()
	if one == other || len(one) > 23 || encodeName(one) != one {
		t.Errorf("%q and %q", one, other)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		"dev-17":       "dev-17",
		"A_b-9":        "A_b-9",
		"192.0.2.7":    "192%2E0%2E2%2E7",
		"a/b+c#d%":     "a%2Fb%2Bc%23d%25",
		"Gerät":        "Ger%C3%A4t",
		"\x00 \xff":    "%00%20%FF",
		"$SYS":         "%24SYS",
		"..":           "%2E%2E",
		"%41":          "%2541",
		"\U0001f4f7":   "%F0%9F%93%B7",
		"space inside": "space%20inside",
	} {
		if got := encodeName(name); got != want {
			t.Errorf("%q is %s, want %s", name, got, want)
		}
		if got, ok := sender(inboxTopic("me", name)); !ok || got != name {
			t.Errorf("%q comes back as %q, %v", name, got, ok)
		}
	}
	for _, level := range []string{"", "%", "%4", "%4x", "%41", "%2f", "a%", "+", "a b", "%-1", "% 1", "%0x1", "a.b", strings.Repeat("x", maxName+1), strings.Repeat("%C3%A9", 60)} {
		if name, ok := sender("pf/i/me/" + level); ok {
			t.Errorf("%q is taken as the name %q", level, name)
		}
	}
}

func FuzzSender(f *testing.F) {
	f.Add("pf/i/me/a%2Fb")
	f.Add("%")
	f.Fuzz(func(t *testing.T, topic string) {
		if name, ok := sender(topic); ok && encodeName(name) != topic[strings.LastIndexByte(topic, '/')+1:] {
			t.Errorf("%q is a second way to write %q", topic, name)
		}
	})
}

func TestSizesOfAConnection(t *testing.T) {
	now := time.Now()
	z := newSizes(0, false)
	if first, larger := z.begin(now); first != firstSize || !slices.Equal(larger, ladder) {
		t.Errorf("begins with %d, %v", first, larger)
	}
	z.sent(1000, now)
	if z.lost(now) {
		t.Error("a connection that carried small messages has ended because of their size")
	}
	z.sent(64<<10, now)
	z.sent(240<<10-100, now.Add(time.Second))
	if !z.lost(now.Add(2*time.Second)) || z.largest() != 120<<10 {
		t.Errorf("the limit is %d after a connection ended at 240 KiB", z.largest())
	}
	z.sent(64<<10, now)
	if z.lost(now.Add(trialTime)) {
		t.Error("a size that was used for a while has ended a connection")
	}
	for range 5 { // a broker that takes ever less does not loop
		_, larger := z.begin(now)
		for _, size := range larger {
			z.sent(size, now)
		}
		z.lost(now)
	}
	if first, larger := z.begin(now); first != firstSize || larger != nil || z.room(firstSize) != firstSize {
		t.Errorf("in the end there are %d, %v", first, larger)
	}
	z.begin(now.Add(guessTime))
	if now = now.Add(10 * guessTime); z.largest() != firstSize {
		t.Error("a guess was forgotten at once")
	}
	if _, larger := z.begin(now); !slices.Equal(larger, ladder) {
		t.Errorf("after a while there are %v, as the broker may have had other reasons", larger)
	}
	if z := newSizes(0, true); z.largest() != sharedSize {
		t.Errorf("%d bytes on a shared client", z.largest())
	}
	if z := newSizes(5000, false); z.room(5000) != 5000 {
		t.Errorf("room for %d with a limit of 5,000", z.room(5000))
	}
}

func TestTrial(t *testing.T) {
	const small, large = 16 << 10, 64 << 10
	now := time.Now()
	var p trial
	for range maxTries {
		if p.sent(large, small, small, now) != 0 {
			t.Error("given up at once")
		}
		now = now.Add(time.Second)
	}
	if p.sent(small, small, small, now) != 0 {
		t.Error("given up before the last try was lost")
	}
	if got := p.sent(small, small, small, now.Add(trialTime)); got != large {
		t.Errorf("%d after %d lost tries, want %d", got, maxTries, large)
	}
	p.sent(large, small, small, now)
	p.sent(small, small, large, now) // it was acknowledged
	if p != (trial{}) {
		t.Errorf("%+v after a success", p)
	}
}

// Sessions that peers begin and do not go on with are bounded, each counts once, and they make room when they are
// established or over.
func TestSessionsBeingOpenedAreBounded(t *testing.T) {
	var open sessions
	open.init(nil)
	var carriers []*carrier
	for range maxOpening {
		c := new(carrier)
		if carriers = append(carriers, c); !open.open(c) {
			t.Fatalf("no room behind %d", len(carriers)-1)
		}
	}
	if late := new(carrier); open.open(late) {
		t.Error("more than there is room for")
	}
	for range 2 { // established, and later over
		open.opened(carriers[0])
	}
	if !open.open(new(carrier)) || open.open(new(carrier)) {
		t.Error("one that is open makes room for one")
	}
}
