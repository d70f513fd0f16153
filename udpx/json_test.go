package udpx_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// text is a JSON text of n bytes.
func text(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }

func TestJSONFromFieldPeer(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.JSON{Socket: n.sockets})
		peer := fieldCamera{PacketConn: n.socket()}
		for _, m := range []string{`{"id": 7, "name": "Köln"}`, `[]`, `1`, `{}`, text(1024)} {
			peer.WriteTo([]byte(m), addrs[0])
			if answer := peer.answer(); answer != "get the msg" {
				t.Errorf("%.40s: %q", m, answer)
			}
			if m != <-got.messages {
				t.Errorf("%.40s has changed", m)
			}
		}
		for _, m := range []string{"", "{", "hello", "{\"a\": \"\xff\"}", text(1025), text(60_000), "{}{}"} {
			peer.WriteTo([]byte(m), addrs[0])
			if answer := peer.answer(); !strings.HasPrefix(answer, "error: ") || len(answer) > 1024 || !strings.HasSuffix(answer, "UTF-8") && len(m) < 1025 {
				t.Errorf("%.40q: %q", m, answer)
			}
		}
		refusal := transport.Reject("no such command: %s", strings.Repeat("ü", 2000))
		got.refuse.Store(&refusal)
		peer.WriteTo([]byte(`{}`), addrs[0])
		if answer := peer.answer(); !strings.HasPrefix(answer, "error: ") || !strings.Contains(answer, "no such command") || 28+len(answer) > 3*(28+2) {
			t.Errorf("a message that is refused: %q", answer)
		}
		peer.WriteTo([]byte(text(1000)), addrs[0])
		if answer := peer.answer(); len(answer) > 1024 || len(answer) < 1000 {
			t.Errorf("a long message that is refused: %q", answer)
		}
		got.refuse.Store(nil)
		peer.WriteTo([]byte(`{}`), addrs[0])
		if answer := peer.answer(); answer != "get the msg" || <-got.messages != "{}" {
			t.Errorf("after errors: %q", answer)
		}
		got.nothing(t)
	})
}

func TestJSONBothSides(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.JSON{Socket: n.sockets})
		c := dialDevice(t, &udpx.JSON{Socket: n.sockets, Addr: addrs[0].String()})
		if i := c.Info(); !i.Messages || i.Protocol != "udp+json" || i.Concurrency != 1 {
			t.Errorf("%+v", i)
		}
		say := func(m string) error {
			return c.SendMessage(t.Context(), transport.Message{Type: "application/json", Data: []byte(m)})
		}
		for _, m := range []string{`{"a": [1, 2]}`, text(1024)} {
			if err := say(m); err != nil || <-got.messages != m {
				t.Errorf("%.40s: %v", m, err)
			}
		}
		tooLarge := (*transport.TooLargeError)(nil)
		if err := say(text(1025)); !errors.As(err, &tooLarge) || outcomeOf(err) != transport.NotKept {
			t.Errorf("1,025 bytes: %v", err)
		}
		for _, m := range []string{"", "hello", "\"\xff\""} {
			if err := say(m); err == nil || outcomeOf(err) != transport.NotKept {
				t.Errorf("%q: %v", m, err)
			}
		}
		refusal := transport.Reject("no such command")
		got.refuse.Store(&refusal)
		refused := (*transport.RejectedError)(nil)
		if err := say(`{}`); !errors.As(err, &refused) || !strings.Contains(refused.Text, "no such command") || outcomeOf(err) != transport.Rejected {
			t.Errorf("a message that is refused: %v", err)
		}
		got.refuse.Store(nil)
		if err := say(`{}`); err != nil || <-got.messages != `{}` {
			t.Errorf("after errors: %v", err)
		}
		if _, err := c.Send(t.Context(), &transport.Image{Body: transport.Bytes(photo)}, nil); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("an image: %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.SendMessage(ended, transport.Message{Data: []byte(`{}`)}); !errors.Is(err, context.Canceled) || outcomeOf(err) != transport.NotKept {
			t.Errorf("an ended context: %v", err)
		}
		c.Close()
		if err := say(`{}`); !errors.Is(err, transport.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		got.nothing(t)
	})
}

// Close frees a SendMessage that waits for its answer.
func TestJSONClose(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		c := dialDevice(t, &udpx.JSON{Socket: n.sockets, Addr: n.socket().LocalAddr().String()})
		time.AfterFunc(time.Second, func() { c.Close() })
		err := c.SendMessage(t.Context(), transport.Message{Data: []byte(`{}`)})
		if !errors.Is(err, transport.ErrClosed) || outcomeOf(err) != transport.Unknown {
			t.Error(err)
		}
	})
}
