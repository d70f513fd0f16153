package udpx_test

import (
	"crypto/rand"
	"math"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// firstMessage is what begins a session: HELLO, padded to size bytes.
func firstMessage(dest, source wire.ConnID, size int) []byte {
	h := wire.Header{Long: true, Version: wire.Version1, Dest: dest, Source: source}
	hello := wire.Hello{
		MaxMessage: 1472, Window: 1 << 20, Messages: math.MaxUint16, AckRanges: 256, Transfers: 64,
		Metadata: 1 << 10, MessageBytes: 1 << 10, Reorder: 1 << 20, IdleMillis: 30000, Instance: 1,
	}
	b := hello.Append(h.Append(nil))
	if missing := size - len(b) - wire.Trailer; missing >= wire.FrameHeader {
		b = wire.AppendPadding(b, missing)
	}
	return wire.Seal(b)
}

// shortMessage is a PING to an ID.
func shortMessage(dest wire.ConnID, number uint32) []byte {
	h := wire.Header{Dest: dest, Number: number}
	return wire.Seal(wire.AppendPing(h.Append(nil)))
}

// answersTo writes the messages to addr and returns what comes back in a while.
func answersTo(t testing.TB, from net.PacketConn, addr net.Addr, msgs ...[]byte) (answers [][]byte, bytes int) {
	t.Helper()
	for _, m := range msgs {
		if _, err := from.WriteTo(m, addr); err != nil {
			t.Error(err)
		}
	}
	from.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 64<<10)
	for {
		n, _, err := from.ReadFrom(b)
		if err != nil {
			return answers, bytes
		}
		answers = append(answers, slices.Clone(b[:n]))
		bytes += n
	}
}

// hostile calls f in a bubble with a listening address, then checks that images still
// arrive there.
func hostile(t *testing.T, f func(t *testing.T, addr net.Addr, scanner net.PacketConn)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1, path{Delay: time.Millisecond})
		store := &transport.MemStore{}
		addr, _ := serve(t, &udpx.Transport{Conn: n.socket()}, store)
		f(t, addr, n.socket())
		c := dial(t, &udpx.Transport{Conn: n.socket(), Addr: addr.String()})
		b := noise(1, 100<<10)
		if _, err := c.Send(t.Context(), &transport.Image{Name: "a", Body: transport.Bytes(b)}, nil); err != nil {
			t.Fatal(err)
		}
		kept(t, store, "a", b)
		c.Close()
	})
}

func TestNoiseIsNotAnswered(t *testing.T) {
	hostile(t, func(t *testing.T, addr net.Addr, scanner net.PacketConn) {
		r := mathrand.New(mathrand.NewPCG(1, 1))
		var msgs [][]byte
		for i := range 2000 {
			var m []byte
			switch i % 4 {
			case 0:
				m = make([]byte, r.IntN(1500))
				rand.Read(m)
				if len(m) > 13 {
					m[13] &= 1 // another version's is answered
				}
			case 1: // a changed HELLO
				m = firstMessage(wire.ConnID(i), 1, 1200)
				m[r.IntN(len(m))] ^= 1 << r.IntN(8)
				m[13] &= 1
			case 2: // a cut one
				m = firstMessage(wire.ConnID(i), 1, 1200)
				m = m[:r.IntN(len(m))]
			case 3: // a long message without HELLO
				h := wire.Header{Long: true, Version: wire.Version1, Dest: wire.ConnID(i), Source: 1}
				m = wire.Seal(wire.AppendPing(h.Append(nil)))
			}
			msgs = append(msgs, m)
		}
		if answers, _ := answersTo(t, scanner, addr, msgs...); len(answers) > 0 {
			t.Errorf("%d answers to noise, the first: %x", len(answers), answers[0])
		}
	})
}

func TestUnknownSession(t *testing.T) {
	hostile(t, func(t *testing.T, addr net.Addr, scanner net.PacketConn) {
		ask := shortMessage(77, 5)
		answers, n := answersTo(t, scanner, addr, ask)
		if len(answers) != 1 || n > 3*len(ask) {
			t.Fatalf("%d answers of %d bytes to one short message of %d; want one of less than 3 times that", len(answers), n, len(ask))
		}
		h, frames, err := wire.Parse(answers[0])
		f := wire.NewReader(frames)
		var reset wire.Reset
		if err != nil || !h.Long || h.Version != wire.VersionNone || !f.Next() || f.Type != wire.TypeReset || reset.Parse(f.Body) != nil {
			t.Fatalf("the answer is not RESET: %x", answers[0])
		}
		if h.Number != 5 || reset.Dest != 77 || reset.Number != 5 {
			t.Errorf("RESET echoes %+v, %+v; want number 5 and destination 77", h, reset)
		}
		var many [][]byte
		for i := range 1000 {
			many = append(many, shortMessage(wire.ConnID(i+100), 1))
		}
		if answers, _ := answersTo(t, scanner, addr, many...); len(answers) > 100 {
			t.Errorf("%d RESETs within a second; want at most 100", len(answers))
		}
	})
}

func TestUnknownVersion(t *testing.T) {
	hostile(t, func(t *testing.T, addr net.Addr, scanner net.PacketConn) {
		h := wire.Header{Long: true, Version: 9, Dest: 7, Source: 8, Number: 3}
		answers, _ := answersTo(t, scanner, addr, wire.Seal(h.Append(nil)))
		if len(answers) != 1 {
			t.Fatalf("%d answers to version 9; want one", len(answers))
		}
		h, frames, err := wire.Parse(answers[0])
		f := wire.NewReader(frames)
		if err != nil || h.Version != wire.VersionNone || h.Dest != 8 || h.Source != 7 || h.Number != 3 || !f.Next() || f.Type != wire.TypeVersions {
			t.Errorf("the answer is not VERSIONS: %+v, %x", h, answers[0])
		}
	})
}

// TestFloodLeavesRoom: sessions that had to make room for others with false addresses take no places.
func TestFloodLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, 1, path{Delay: time.Millisecond})
		addr, _ := serve(t, &udpx.Transport{Conn: n.socket(), MaxPeers: 1000}, &transport.MemStore{})
		flood := n.socket()
		for i := range 3000 {
			flood.WriteTo(firstMessage(wire.ConnID(1<<20+i), wire.ConnID(1<<24+i), 1200), addr)
		}
		time.Sleep(time.Second)
		c := dial(t, &udpx.Transport{Conn: n.socket(), Addr: addr.String()})
		if _, err := c.Send(t.Context(), &transport.Image{Body: transport.Bytes(noise(1, 100))}, nil); err != nil {
			t.Error(err)
		}
		c.Close()
	})
}

// TestFalseAddresses begins sessions that never prove their address.
func TestFalseAddresses(t *testing.T) {
	hostile(t, func(t *testing.T, addr net.Addr, scanner net.PacketConn) {
		for _, size := range []int{256, 600, 1200} {
			ask := firstMessage(wire.ConnID(1000+size), wire.ConnID(size+1), size)
			answers, n := answersTo(t, scanner, addr, ask)
			if len(answers) == 0 || n > 3*len(ask) {
				t.Errorf("%d answers of %d bytes to HELLO of %d bytes; want some, of at most 3 times that", len(answers), n, len(ask))
			}
		}
		before := runtime.NumGoroutine()
		var flood [][]byte
		for i := range 3000 {
			flood = append(flood, firstMessage(wire.ConnID(1<<20+i), wire.ConnID(1<<24+i), 1200))
		}
		go answersTo(t, scanner, addr, flood...)
		time.Sleep(time.Second)
		if n := runtime.NumGoroutine() - before; n > 512*4 {
			t.Errorf("%d goroutines after 3,000 beginnings: more than 512 sessions wait for proof", n)
		}
		time.Sleep(time.Minute)
		if n := runtime.NumGoroutine() - before; n > 8 {
			t.Errorf("%d goroutines a minute after", n)
		}
	})
}

// Who has to make room for others, as all of them begin at once, hears that it may try again, and who does not prove its
// address that it hears nothing.
func TestPeersWithoutASessionHearWhy(t *testing.T) {
	hostile(t, func(t *testing.T, addr net.Addr, scanner net.PacketConn) {
		var hellos [][]byte
		for i := range 600 {
			hellos = append(hellos, firstMessage(wire.ConnID(1<<20+i), wire.ConnID(1<<24+i), 1200))
		}
		answers, _ := answersTo(t, scanner, addr, hellos...)
		codes := make(map[wire.Code]int)
		for _, a := range answers {
			_, frames, err := wire.Parse(a)
			if err != nil {
				t.Fatal(err)
			}
			var end wire.Close
			for r := wire.NewReader(frames); r.Next(); {
				if r.Type == wire.TypeClose && end.Parse(r.Body) == nil {
					codes[end.Code]++
				}
			}
		}
		if codes[wire.CodeBusy] == 0 || codes[wire.CodeUnanswered] == 0 || len(codes) != 2 {
			t.Errorf("sessions ended with the codes %v", codes)
		}
	})
}

// False addresses that offer images take none of the places of those who send.
func TestOffersOfFalseAddresses(t *testing.T) {
	hostile(t, func(t *testing.T, addr net.Addr, scanner net.PacketConn) {
		for i := range 70 {
			h := wire.Header{Long: true, Version: wire.Version1, Dest: wire.ConnID(i + 1), Source: 1}
			hello := wire.Hello{MaxMessage: 1472, AckRanges: 256, IdleMillis: 30000, Instance: 1}
			b := hello.Append(h.Append(nil))
			for n := range 16 {
				offer := wire.Offer{Handle: uint16(n), ID: [16]byte{1, byte(i), byte(i >> 8), byte(n)}, Size: 1 << 20, Algorithm: 1}
				b = offer.Append(b)
			}
			scanner.WriteTo(wire.Seal(b), addr)
		}
		time.Sleep(time.Second)
	})
}
