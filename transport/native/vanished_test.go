package native_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// On a link that does not tell when its other end is gone, as there are brokers and serial lines between, an idle session
// is given up after a while: each peer that is restarted would leave one behind. A peer that lives does not notice.
func TestSessionOfAVanishedPeerIsGivenUp(t *testing.T) {
	for name, ordered := range map[string]bool{"ordered": true, "datagrams": false} {
		t.Run(name, func(t *testing.T) {
			var gone atomic.Bool
			var open atomic.Int32
			bubble(t, func(s *transport.Server, m *medium) {
				m.info = native.LinkInfo{Protocol: "mem", Peer: "peer", Ordered: ordered, MaxMessage: 1200}
				m.wrap = func(l native.Link) native.Link { return hole{l, &gone, make(chan struct{})} }
				s.Hooks.ConnOpened = func(transport.Info) { open.Add(1) }
				s.Hooks.ConnClosed = func(transport.Info, error) { open.Add(-1) }
			}, func(t *testing.T, e *ends) {
				send := func() {
					t.Helper()
					if _, err := e.conn.Send(t.Context(), image("a", make([]byte, 1000)), nil); err != nil {
						t.Fatal(err)
					}
				}
				send()
				time.Sleep(4 * time.Minute)
				if open.Load() != 1 {
					t.Error("the session is given up before 5 minutes")
				}
				gone.Store(true)
				time.Sleep(3 * time.Minute)
				if n := open.Load(); n != 0 {
					t.Errorf("%d Conns after 7 minutes in silence, want none", n)
				}
				gone.Store(false)
				send()
			})
		})
	}
}
