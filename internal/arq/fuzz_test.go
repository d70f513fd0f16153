package arq

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/parity"
	"github.com/pixferry/pixferry/internal/wire"
)

// FuzzReceive lets a hostile peer send any frames, properly sealed and numbered, in both roles and on
// every kind of link. Nothing panics, no memory grows without bound, and after every message the engine can still
// be polled to silence.
//
// The input is a list of messages: number 1, flags 1, length 2, frames.
func FuzzReceive(f *testing.F) {
	hello := hello()
	frames := [][]byte{
		hello.Append(nil),
		(&wire.Offer{Handle: 1, ID: [16]byte{1}, Size: 100, MetaSize: 4, Meta: []byte("meta")}).Append(nil),
		(&wire.Data{Handle: 1, Offset: 0, Payload: make([]byte, 100)}).Append(nil),
		(&wire.Fin{Handle: 1, Size: 100, Digest: []byte{1}}).Append(nil),
		(&wire.Cancel{Handle: 1}).Append(nil),
		(&wire.Accept{Held: 2, First: 0, DigestLength: 1, Digests: []byte{1, 2}}).Append(nil),
		(&wire.Resume{Handle: 1, First: 0, Count: 2, Agree: []byte{3}}).Append(nil),
		(&wire.Receipt{ID: [16]byte{9}, Level: 3, Digest: []byte{1}}).Append(nil),
		(&wire.Reject{ID: [16]byte{9}, Text: "no"}).Append(nil),
		ack(0, 2), ack(0, 1, 2, 3),
		wire.AppendPing(nil),
		(&wire.Close{Text: "bye"}).Append(nil),
		(&wire.Parity{Handle: 1, Size: 100, Count: 2, Index: 1, Symbol: make([]byte, 40)}).Append(nil),
	}
	var all []byte
	for i, b := range frames {
		one := binary.LittleEndian.AppendUint16([]byte{byte(i), 1}, uint16(len(b)))
		all = append(append(all, one...), b...)
		f.Add(append(one, b...), byte(0))
	}
	for kind := range byte(8) {
		f.Add(all, kind)
	}
	f.Fuzz(func(t *testing.T, input []byte, kind byte) {
		cfg := Config{Initiator: kind&1 != 0, Ordered: kind&2 != 0, Reliable: kind&4 != 0, MaxMessage: 1200, Local: hello,
			LocalCID: 11, RemoteCID: 22, FirstCID: 99, Sizes: []int{1400}, Linger: time.Minute, Coder: &parity.Coder{}}
		e := New(cfg, start)
		x := newEnd(t, e)
		x.answer = false
		h, err := e.Offer(&wire.Offer{ID: [16]byte{9}, Size: 5000, Meta: []byte("meta")})
		if err != nil {
			t.Fatal(err)
		}
		x.images[h] = make([]byte, 5000)
		now := start
		buf := make([]byte, 2000)
		for len(input) >= 4 {
			n := min(int(binary.LittleEndian.Uint16(input[2:])), len(input)-4)
			hd := wire.Header{Long: input[1]&1 != 0, Dest: 11, Number: uint32(input[0]), Version: input[1] >> 1 & 1, Source: 22}
			hd.Version ^= 1
			e.Receive(now, wire.Seal(append(hd.Append(nil), input[4:4+n]...)))
			input = input[4+n:]
			hostile(x)
			for polls := 0; e.Poll(now, buf) > 0; polls++ {
				if polls > 10_000 {
					t.Fatal("Poll does not end")
				}
				hostile(x)
			}
			now = now.Add(time.Duration(n) * time.Millisecond)
			e.Advance(now)
			if d := e.Deadline(); !d.IsZero() && !d.After(now) {
				t.Fatalf("the deadline is not after now once Advance has run: %v", now.Sub(d))
			}
		}
		if waiting := e.window.waiting; waiting > int64(hello.Window) {
			t.Fatalf("%d bytes wait", waiting)
		}
	})
}

// hostile handles events as an owner would that does not check what arrives.
func hostile(x *end) {
	for {
		ev := x.NextEvent()
		if ev == nil {
			return
		}
		switch ev.Kind {
		case Wanted:
			x.supply(ev.Handle)
		case Received:
			x.Consumed(len(ev.Data), 1)
		case Offered:
			x.Accept(ev.Handle, nil)
		case Accepted:
			if n := ev.Accept.Count(); n > 0 && n < 1<<15 {
				x.Resume(ev.Handle, &wire.Resume{First: ev.Accept.First, Count: uint16(n), Agree: make([]byte, (n+7)/8)})
			}
		case Finished:
			x.Receipt(ev.Handle, &wire.Receipt{Level: 3, Digest: []byte{1}})
		}
	}
}
