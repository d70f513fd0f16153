package arq

import (
	"errors"
	"strings"
	"testing"

	"github.com/pixferry/pixferry/internal/wire"
)

// "The initiator believes it only if both IDs are its own, no other answer came, and the list lacks its version": then
// the session ends, and nothing is sent any more.
func TestVersions(t *testing.T) {
	for name, c := range map[string]struct {
		dest, source wire.ConnID
		spoken       string
		known        bool // the peer has answered before
		forged, ends bool
	}{
		"of another version":       {11, 99, "\x02\x03", false, false, true},
		"of this version too":      {11, 99, "\x02\x01", false, false, false},
		"for another":              {12, 99, "\x02", false, true, false},
		"for nobody":               {0, 99, "\x02", false, true, false},
		"for another of ours":      {11, 98, "\x02", false, true, false},
		"once the peer has spoken": {11, 22, "\x02", true, false, false},
	} {
		for _, reliable := range []bool{false, true} {
			if reliable && c.dest == 12 {
				continue // what is for another session ends this one
			}
			a, b := couple(t, func(ca, cb *Config) {
				ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = reliable, reliable, reliable, reliable
			})
			h := a.send(pattern(100), nil)
			buf := make([]byte, 1400)
			a.run()
			first := append([]byte{}, buf[:a.Poll(start, buf)]...)
			if c.known {
				b.Receive(start, first)
				exchange(start, a, b)
			}
			header := wire.Header{Long: true, Version: wire.VersionNone, Dest: c.dest, Source: c.source}
			err := a.Receive(start, wire.Seal((&wire.Versions{Spoken: []byte(c.spoken)}).Append(header.Append(nil))))
			a.run()
			closed := (*CloseError)(nil)
			switch {
			case c.forged && err == nil:
				t.Errorf("%s: it is taken", name)
			case !c.ends && a.closed != nil:
				t.Errorf("%s: closed: %v", name, a.closed)
			case !c.ends && !c.known:
				b.Receive(start, first)
				if settleUntil(start, a, b, func() bool { return a.receipts[h] }); !a.receipts[h] {
					t.Errorf("%s: no receipt: %v %v", name, a.closed, b.closed)
				}
			case c.ends && (!errors.As(a.closed, &closed) || closed.Code != wire.CodeVersion || !closed.Remote || !strings.Contains(closed.Text, "[2 3]")):
				t.Errorf("%s: closed: %v", name, a.closed)
			case c.ends && a.Poll(start, buf) > 0:
				t.Errorf("%s: it is answered", name)
			}
		}
	}
}

// A responder has been answered in its version already.
func TestVersionsToAResponder(t *testing.T) {
	_, b := couple(t, nil)
	header := wire.Header{Long: true, Version: wire.VersionNone, Dest: 22, Source: 11}
	b.Receive(start, wire.Seal((&wire.Versions{Spoken: []byte{2}}).Append(header.Append(nil))))
	if b.run(); b.closed != nil {
		t.Error(b.closed)
	}
}
