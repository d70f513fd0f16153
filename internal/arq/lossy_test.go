package arq

import (
	"slices"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// lossy is a sender on a link without promises whose peer is the test: it answers with the ACKs
// it likes.
type lossy struct {
	*end
	now    time.Time
	number uint32 // of the peer's next message
	buf    [9000]byte
	sent   [][]byte // the messages, in order of their numbers
}

// newLossy returns a sender after the handshake, with rtt as its only sample.
func newLossy(t *testing.T, rtt time.Duration, change func(*Config)) *lossy {
	cfg := Config{Initiator: true, MaxMessage: 1200, Local: hello(), LocalCID: 11, RemoteCID: 99}
	if change != nil {
		change(&cfg)
	}
	x := &lossy{end: newEnd(t, New(cfg, start)), now: start}
	x.poll()
	peer := hello()
	x.wait(rtt)
	h := wire.Header{Long: true, Dest: 11, Number: x.number, Version: wire.Version1, Source: 22}
	x.number++
	msg := peer.Append(h.Append(nil))
	msg = append(msg, ack(0, 1)...)
	x.receive(msg)
	x.run()
	return x
}

// ack returns an ACK of the ranges start, end, start, end ..., in ascending order.
func ack(ranges ...int64) []byte {
	var a ackTracker
	for i := 0; i < len(ranges); i += 2 {
		a.got.Add(ranges[i], ranges[i+1])
	}
	f := wire.Ack{Window: 1 << 24, Messages: wire.NoMessageLimit}
	return f.Append(nil, &a.got, 256, 1000)
}

func (x *lossy) receive(msg []byte) {
	x.t.Helper()
	if err := x.Receive(x.now, wire.Seal(msg)); err != nil {
		x.t.Fatal(err)
	}
	x.Deadline() // settles
	x.run()
}

// acks hands the sender an ACK.
func (x *lossy) acks(ranges ...int64) {
	x.t.Helper()
	h := wire.Header{Dest: 11, Number: x.number}
	x.number++
	x.receive(append(h.Append(nil), ack(ranges...)...))
}

// poll sends what the engine has, and returns the numbers of the new messages.
func (x *lossy) poll() (first, end int) {
	first = len(x.sent)
	x.run()
	for {
		n := x.Poll(x.now, x.buf[:])
		if n == 0 {
			return first, len(x.sent)
		}
		x.sent = append(x.sent, slices.Clone(x.buf[:n]))
		x.run()
	}
}

func (x *lossy) wait(d time.Duration) { x.now = x.now.Add(d) }

// fire lets time pass to the deadline.
func (x *lossy) fire() time.Duration {
	d := x.Deadline()
	passed := d.Sub(x.now)
	x.now = d
	x.Advance(d)
	return passed
}

// frames returns the types of a message's frames, and its DATA's offset, -1 without.
func (x *lossy) frames(number int) (types []wire.Type, offset int64) {
	_, frames, err := wire.Parse(x.sent[number])
	if err != nil {
		x.t.Fatal(err)
	}
	offset = -1
	for r := wire.NewReader(frames); r.Next(); {
		types = append(types, r.Type)
		if r.Type == wire.TypeData {
			var d wire.Data
			d.Parse(r.Body)
			offset = d.Offset
		}
	}
	return types, offset
}

// flight offers an image and sends it whole, in a window large enough.
func (x *lossy) flight(size int) (first, end int) {
	x.send(pattern(size), nil)
	return len(x.sent), x.pollAll()
}

// pollAll sends what the engine has, as the pacer lets it go.
func (x *lossy) pollAll() (end int) {
	_, end = x.poll()
	for i := 0; i < 100 && x.recovery.wake != 0; i++ {
		x.fire()
		_, end = x.poll()
	}
	return end
}
