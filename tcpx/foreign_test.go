package tcpx_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/framing"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// foreign is a peer that somebody wrote from SPEC.md, with mistakes.
type foreign struct {
	t    *testing.T
	conn *net.TCPConn
}

var foreignPrefix = framing.Prefix{Width: 4, Order: framing.LittleEndian, Max: 1 << 20}

func newForeign(t *testing.T) *foreign {
	r := receive(t, func(s *transport.Server, _ *tcpx.Transport) {
		s.Message = func(context.Context, transport.Conn, transport.Message) error { return nil }
	})
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &foreign{t, conn.(*net.TCPConn)}
}

// say sends HELLO and frames in the first message, the last of them DATA if there is a payload.
func (f *foreign) say(payload string, frames ...interface{ Append([]byte) []byte }) {
	h := wire.Header{Long: true, Dest: 5, Version: wire.Version1, Source: 7}
	hello := wire.Hello{MaxMessage: 1 << 16, Window: 1 << 20, Messages: wire.NoMessageLimit, AckRanges: 1, IdleMillis: 30_000}
	msg := hello.Append(h.Append(nil))
	for _, frame := range frames {
		msg = frame.Append(msg)
	}
	if err := framing.NewWriter(f.conn, foreignPrefix).WriteFrames(wire.SealReliable(append(msg, payload...), len(payload))); err != nil {
		f.t.Fatal(err)
	}
}

// hear returns the body of the next frame of a type.
func (f *foreign) hear(want wire.Type) []byte {
	f.t.Helper()
	for {
		msg, err := foreignPrefix.ReadFrame(f.conn, nil)
		if err != nil {
			f.t.Fatalf("no frame of type %v: %v", want, err)
		}
		_, frames, err := wire.ParseReliable(msg)
		if err != nil {
			f.t.Fatal(err)
		}
		for r := wire.NewReader(frames); r.Next(); {
			if r.Type == want {
				return r.Body
			}
		}
	}
}

// A peer with a mistake is told which: SPEC.md, sections 5 and 9.
func TestForeignOffersAreRefusedByTheirMistake(t *testing.T) {
	name := []byte{1, 1, 0, 'a'}
	for what, c := range map[string]struct {
		algorithm uint8
		meta      []byte
		digest    int // bytes
		reason    transport.Reason
		says      string
	}{
		"algorithm 0":       {0, nil, 16, transport.ReasonMalformed, "algorithm 0: use 1 (XXH3-128) or 2 (SHA-256)"},
		"unknown algorithm": {3, nil, 32, transport.ReasonMalformed, "algorithm 3: use 1 (XXH3-128) or 2 (SHA-256)"},
		"a name twice":      {1, append(name, name...), 16, transport.ReasonMeta, ""},
		"a cut field":       {1, name[:3], 16, transport.ReasonMeta, ""},
		"a short digest":    {2, nil, 16, transport.ReasonMalformed, "digest"},
	} {
		for _, kind := range []uint8{wire.KindImage, wire.KindMessage} {
			f := newForeign(t)
			f.say("x", &wire.Offer{Handle: 1, Attempt: 1, ID: [16]byte{1}, Kind: kind, Algorithm: c.algorithm, Size: 1, MetaSize: uint16(len(c.meta)), Meta: c.meta},
				&wire.Fin{Handle: 1, Attempt: 1, Size: 1, Algorithm: c.algorithm, Digest: make([]byte, c.digest)},
				&wire.Data{Handle: 1})
			var reject wire.Reject
			if err := reject.Parse(f.hear(wire.TypeReject)); err != nil {
				t.Fatal(err)
			}
			if got := transport.Reason(reject.Reason); got != c.reason || reject.Flags&wire.RejectRetryable != 0 || !strings.Contains(reject.Text, c.says) {
				t.Errorf("%s, kind %d: %v, flags %d, %q", what, kind, got, reject.Flags, reject.Text)
			}
		}
	}
}

// A peer whose stream is wrong hears why the session ends: SPEC.md, section 12.
func TestForeignStreamEndsWithItsReason(t *testing.T) {
	for what, c := range map[string]struct {
		end  func(*net.TCPConn) error
		code wire.Code
		says string
	}{
		"a length that is too long": {func(c *net.TCPConn) error { _, err := c.Write([]byte{0, 0, 5, 0}); return err }, wire.CodeLimit, "327680"},
		"no CLOSE before the end":   {(*net.TCPConn).CloseWrite, wire.CodeInternal, "without CLOSE"},
	} {
		f := newForeign(t)
		f.say("")
		f.hear(wire.TypeHello)
		if err := c.end(f.conn); err != nil {
			t.Fatal(err)
		}
		var end wire.Close
		if err := end.Parse(f.hear(wire.TypeClose)); err != nil {
			t.Fatal(err)
		}
		if end.Code != c.code || !strings.Contains(end.Text, c.says) {
			t.Errorf("%s: code %d, %q", what, end.Code, end.Text)
		}
	}
}
