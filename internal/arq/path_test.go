package arq

import (
	"slices"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// path receives a PATH_CHALLENGE or PATH_RESPONSE in a message of its own.
func (x *lossy) path(f wire.Path) (size int) {
	x.t.Helper()
	h := wire.Header{Dest: 11, Number: x.number}
	x.number++
	msg := f.Append(h.Append(nil))
	x.receive(msg)
	return len(msg) + wire.Trailer
}

// polled returns how many bytes of messages leave within a while.
func (x *lossy) polled(d time.Duration) (bytes int) {
	for end := x.now.Add(d); x.now.Before(end); x.wait(10 * time.Millisecond) {
		x.Advance(x.now)
		x.run()
		first, last := x.poll()
		for _, m := range x.sent[first:last] {
			bytes += len(m)
		}
	}
	return bytes
}

func TestNewAddressIsNotFlooded(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, nil)
	x.send(pattern(1<<20), nil)
	x.run()
	size := x.path(wire.Path{Data: 7}) // any message
	first := len(x.sent)
	x.Moved(x.now, size+300, 42)
	if n := x.polled(3 * time.Second); n == 0 || n > 3*(size+300) {
		t.Fatalf("%d bytes went to an address that sent %d; want some, at most 3 times that", n, size+300)
	}
	challenged := false
	for i := first; i < len(x.sent); i++ {
		types, _ := x.frames(i)
		challenged = challenged || slices.Contains(types, wire.TypePathChallenge)
	}
	if !challenged {
		t.Fatal("the address was not asked")
	}
	if n := x.polled(3 * time.Second); n > 0 {
		t.Errorf("%d bytes more without a sign from there", n)
	}
	size = x.path(wire.Path{Response: true, Data: 41})
	if n := x.polled(3 * time.Second); n > 3*size {
		t.Errorf("%d bytes after a wrong PATH_RESPONSE; want at most %d", n, 3*size)
	}
	x.path(wire.Path{Response: true, Data: 42})
	if n := x.polled(3 * time.Second); n < 2000 {
		t.Errorf("only %d bytes after PATH_RESPONSE", n)
	}
}

// challenges moves the peer, of which size bytes have come, and checks that it is challenged within d.
func (x *lossy) challenges(size int, d time.Duration) {
	x.t.Helper()
	first := len(x.sent)
	x.Moved(x.now, size, 42)
	x.polled(d)
	for i := first; i < len(x.sent); i++ {
		if types, _ := x.frames(i); slices.Contains(types, wire.TypePathChallenge) {
			return
		}
	}
	x.t.Errorf("no challenge in %d messages", len(x.sent)-first)
}

// The challenge does not wait behind an offer that is larger than what may be sent to the new address.
func TestChallengeGoesFirst(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, nil)
	x.send(pattern(1<<20), func(o *wire.Offer) { o.Meta = make([]byte, 900) })
	x.run()
	x.path(wire.Path{Data: 7})
	x.challenges(100, time.Second)
}

// It goes although a peer that only asks whether this side lives lets it send less than the smallest message.
func TestChallengeFitsAPing(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, nil)
	size := x.path(wire.Path{Data: 7})
	x.polled(time.Second)
	x.challenges(size, 100*time.Millisecond)
}

func TestChallengeIsAnswered(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, nil)
	x.path(wire.Path{Data: 1})
	x.path(wire.Path{Data: 2}) // instead of the first
	first := len(x.sent)
	x.polled(20 * time.Millisecond)
	var got []uint64
	for _, m := range x.sent[first:] {
		_, frames, _ := wire.Parse(m)
		for r := wire.NewReader(frames); r.Next(); {
			if f := (wire.Path{Response: true}); r.Type == wire.TypePathResponse && f.Parse(r.Body) == nil {
				got = append(got, f.Data)
			}
		}
	}
	if !slices.Equal(got, []uint64{2}) {
		t.Errorf("PATH_RESPONSE with %v; want the newest challenge's 2", got)
	}
}

// A probe for larger messages does not go to an address that is not proven.
func TestNoProbeForAnUnprovenAddress(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, func(c *Config) { c.Sizes = []int{1452} })
	x.send(pattern(1<<20), nil)
	x.run()
	for range 3 {
		_, end := x.poll()
		x.wait(50 * time.Millisecond)
		x.acks(0, int64(end))
	}
	size := x.path(wire.Path{Data: 7})
	x.Moved(x.now, size, 42)
	x.Rehomed()
	if n := x.polled(3 * time.Second); n > 3*size {
		t.Errorf("%d bytes where %d came from; want at most %d", n, size, 3*size)
	}
}

// What is on its way when the peer's host changes is sent again as soon as the new address may get it, and not
// when the probe timer gives it up. That it did arrive does not count as reordering.
func TestNewHostDoesNotWaitForWhatTheOldOneGot(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, nil)
	x.send(pattern(1<<20), nil)
	x.poll()
	old := int64(len(x.sent))
	size := x.path(wire.Path{Data: 7})
	x.Moved(x.now, size, 42)
	x.Rehomed()
	x.path(wire.Path{Response: true, Data: 42})
	if n := x.polled(20 * time.Millisecond); n < 5000 {
		t.Errorf("%d bytes for the new host; want an initial window", n)
	}
	x.wait(30 * time.Millisecond)
	x.acks(old, int64(len(x.sent)))
	x.poll()
	x.acks(0, old) // late
	if x.stats.SpuriousLosses == 0 || x.recovery.threshold != packetThreshold {
		t.Errorf("%d messages came after all, and the threshold for reordering is %d", x.stats.SpuriousLosses, x.recovery.threshold)
	}
}

// A peer that moves with each message, for which nothing fits that this side has to say, takes no memory by it.
func TestChallengesOfOldAddressesAreForgotten(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, nil)
	x.send(pattern(300_000), nil)
	x.poll() // the OFFER, which is lost
	for i := range 1000 {
		size := x.path(wire.Path{Response: true})
		x.Moved(x.now, size, uint64(i))
		x.Rehomed()
		if n := x.polled(time.Millisecond); n > 3*size {
			t.Fatalf("%d bytes where %d came from", n, size)
		}
	}
	if n := cap(x.controls.due); n > 16 {
		t.Errorf("%d control frames are kept", n)
	}
}

// What was delivered over the old path does not say how fast the new one is.
func TestNewHostIsNotJudgedByTheOldOne(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, nil)
	x.send(pattern(300_000), nil)
	_, end := x.poll()
	x.wait(50 * time.Millisecond)
	h := wire.Header{Dest: 11, Number: x.number}
	msg := wire.Seal(append(h.Append(nil), ack(0, int64(end))...))
	if err := x.Receive(x.now, msg); err != nil {
		t.Fatal(err)
	}
	x.Moved(x.now, len(msg), 42)
	x.Rehomed()
	fresh := x.recovery.cc.Window()
	x.settle()
	if n := x.recovery.cc.Window(); n != fresh {
		t.Errorf("the window of the new path begins with %d and is %d for what the old one brought", fresh, n)
	}
}

// A lost message is no sign that the peer is out of reach, as long as it answers when it is asked again.
func TestUnansweredIsWhoWasAskedAgain(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, nil)
	x.send(pattern(1000), nil)
	x.poll() // is lost
	x.fire()
	if x.Unanswered() {
		t.Error("before the probe has left")
	}
	x.poll()
	x.fire()
	if !x.Unanswered() {
		t.Error("not though the probe was not answered")
	}
	_, end := x.poll()
	x.acks(0, int64(end))
	if x.Unanswered() {
		t.Error("after the answer")
	}
}
