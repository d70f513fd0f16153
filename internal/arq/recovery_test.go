package arq

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// RFC 9002, section 6.1: "The packet was sent kPacketThreshold packets before an acknowledged packet"
func TestPacketThresholdDeclaresLoss(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	first, end := x.flight(20_000)
	if end-first < 10 {
		t.Fatalf("only %d messages sent", end-first)
	}
	n := int64(first)
	x.wait(100 * time.Millisecond)
	x.acks(0, n, n+1, n+3) // two newer ones: not enough
	if lost := x.Stats().LostMessages; lost != 0 {
		t.Fatalf("%d lost after two newer messages were acknowledged", lost)
	}
	x.acks(0, n, n+1, n+4)
	if lost := x.Stats().LostMessages; lost != 1 {
		t.Fatalf("%d lost after three newer messages were acknowledged", lost)
	}
	_, lost := x.frames(first)
	again, _ := x.poll()
	if _, offset := x.frames(again); offset != lost {
		t.Errorf("the lost bytes at %d are not sent next, but those at %d", lost, offset)
	}
}

// RFC 9002, section 6.1.2: "Once a later packet within the same packet number space has been acknowledged, an
// endpoint SHOULD declare an earlier packet lost if it was sent a threshold amount of time in the past."
func TestTimeThresholdDeclaresLoss(t *testing.T) {
	x := newLossy(t, 80*time.Millisecond, nil)
	first, end := x.flight(1_500) // two messages
	if end-first != 2 {
		t.Fatalf("%d messages", end-first)
	}
	x.wait(80 * time.Millisecond)
	x.acks(int64(first+1), int64(end))
	if x.Stats().LostMessages != 0 {
		t.Fatal("lost at once")
	}
	if passed := x.fire(); passed < 9*time.Millisecond || passed > 11*time.Millisecond {
		t.Errorf("lost %v after the acknowledgement: an eighth of 80 ms expected", passed)
	}
	if x.Stats().LostMessages != 1 {
		t.Error("not lost after 9/8 of a round trip")
	}
}

// RFC 9002, section 6.2.1: "PTO = smoothed_rtt + max(4*rttvar, kGranularity) + max_ack_delay", and
// NATIVE.md: "it never turns outstanding data into lost data at once"
func TestProbeTimeoutSendsProbesAndLosesNothing(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	first, end := x.flight(3_000)
	// smoothed = 100 ms, variance = 50 ms.
	want := 100*time.Millisecond + 4*50*time.Millisecond + maxAckDelay
	passed := x.fire()
	if (passed - want).Abs() > 10*time.Millisecond {
		t.Errorf("probe after %v, %v expected", passed, want)
	}
	probe, probes := x.poll()
	if probes-probe != 2 {
		t.Errorf("%d probes", probes-probe)
	}
	if types, offset := x.frames(probe); offset < 0 || types[0] != wire.TypeAck {
		t.Errorf("the first probe carries %v, not an ACK and data", types)
	}
	if s := x.Stats(); s.LostMessages != 0 {
		t.Errorf("%d lost", s.LostMessages)
	}
	// "When a PTO timer expires, the PTO period MUST be doubled" (6.2.1)
	if passed := x.fire(); (passed - 2*want).Abs() > 10*time.Millisecond {
		t.Errorf("second probe after %v, %v expected", passed, 2*want)
	}
	// A path that is back is noticed soon.
	for range 2 {
		x.poll()
		passed = x.fire()
	}
	if passed != maxPTO {
		t.Errorf("after some probes the next waits for %v, %v expected", passed, maxPTO)
	}
	// The original, acknowledged late, is not sent again.
	x.acks(int64(first), int64(end))
	if got := x.Acked(0); got != 3_000 {
		t.Errorf("%d bytes acknowledged", got)
	}
}

// The first messages of an image repeat its offer, without which the peer cannot use them: those of a large
// image more often.
func TestOfferGoesAlong(t *testing.T) {
	for _, c := range []struct{ size, offers int }{{20_000, offerCopies}, {100_000, moreCopies}} {
		x := newLossy(t, 100*time.Millisecond, nil)
		offers := 0
		for n, end := x.flight(c.size); n < end; n++ {
			if types, _ := x.frames(n); slices.Contains(types, wire.TypeOffer) {
				offers++
			}
		}
		if offers != c.offers {
			t.Errorf("%d bytes: %d offers, %d expected", c.size, offers, c.offers)
		}
	}
}

// NATIVE.md: "Undo spurious loss."
func TestLateAcknowledgementUndoesLoss(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	first, _ := x.flight(20_000)
	n := int64(first)
	x.wait(100 * time.Millisecond)
	x.acks(0, n, n+4, n+5)
	if lost := x.Stats().LostMessages; lost != 2 {
		t.Fatalf("%d lost", lost)
	}
	before := x.Acked(0)
	x.acks(n, n+5) // they were only late
	if s := x.Stats(); s.SpuriousLosses != 2 {
		t.Errorf("%d spurious losses noticed", s.SpuriousLosses)
	}
	if got := x.Acked(0); got <= before {
		t.Error("what arrived late does not count as acknowledged")
	}
	again, end := x.poll()
	for ; again < end; again++ {
		if _, offset := x.frames(again); offset >= 0 && offset < 4000 {
			t.Errorf("bytes at %d are sent again", offset)
		}
	}
	// Three newer messages do not make one lost any more.
	x.wait(10 * time.Millisecond)
	x.acks(n, n+5, n+8, n+9)
	if lost := x.Stats().LostMessages; lost != 2 {
		t.Errorf("%d lost after reordering was seen", lost)
	}
}

// What is lost of the end of an image goes twice, but not what is lost before the end, nor on an ordered link.
func TestEndOfAnImageGoesTwiceIfItIsLost(t *testing.T) {
	for _, c := range []struct {
		ordered, whole bool
		copies         int
	}{{false, true, 2}, {false, false, 1}, {true, true, 1}} {
		x := newLossy(t, 100*time.Millisecond, func(cfg *Config) { cfg.Ordered = c.ordered })
		h := x.send(pattern(20_000), nil)
		if !c.whole { // the rest comes later
			delete(x.images, h)
			x.run()
			if err := x.Supply(h, 0, pattern(19_000)); err != nil {
				t.Fatal(err)
			}
		}
		n := int64(len(x.sent))
		x.pollAll()
		_, lost := x.frames(int(n) + 2)
		x.wait(100 * time.Millisecond)
		x.acks(0, n+2, n+3, int64(len(x.sent)))
		first := len(x.sent)
		end := x.pollAll()
		copies := 0
		for ; first < end; first++ {
			if _, offset := x.frames(first); offset == lost {
				copies++
			}
		}
		if copies != c.copies {
			t.Errorf("%+v: %d copies of the bytes at %d", c, copies, lost)
		}
	}
}

// A HELLO that is not acknowledged soon goes twice: the session would wait a second for its loss.
func TestHelloGoesTwice(t *testing.T) {
	for _, lost := range []bool{true, false} {
		x := &lossy{end: newEnd(t, New(Config{Initiator: true, MaxMessage: 1200, PadHello: 1200, Local: hello(), LocalCID: 11, RemoteCID: 99}, start)), now: start}
		x.poll()
		if !lost {
			x.wait(20 * time.Millisecond)
			peer := hello()
			h := wire.Header{Long: true, Dest: 11, Version: wire.Version1, Source: 22}
			x.receive(append(peer.Append(h.Append(nil)), ack(0, 1)...))
			x.poll()
		}
		sent := len(x.sent)
		if at := x.Deadline(); !at.IsZero() && at.Before(start.Add(200*time.Millisecond)) {
			x.fire()
			x.poll()
		}
		if again := len(x.sent) > sent; again != lost {
			t.Errorf("lost %v, sent again within 200 ms %v", lost, again)
		}
	}
}

// "on an ordered link a gap is definite loss; the probe timer sends a small PING, never data"
func TestOrderedLinkTakesAGapForLoss(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, func(c *Config) { c.Ordered = true })
	first, _ := x.flight(20_000)
	n := int64(first)
	x.wait(100 * time.Millisecond)
	x.acks(n, n+1, n+2, n+3)
	if lost := x.Stats().LostMessages; lost != 1 {
		t.Errorf("%d lost after one gap", lost)
	}
	x.poll()
	x.fire()
	probe, end := x.poll()
	if types, _ := x.frames(probe); end-probe != 1 || !slices.Equal(types, []wire.Type{wire.TypeAck, wire.TypePing}) {
		t.Errorf("%d probes, the first of %v", end-probe, types)
	}
}

// "a range not reported means unknown, not lost"
func TestUnreportedRangeIsUnknown(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	first, _ := x.flight(20_000)
	n := int64(first)
	x.wait(100 * time.Millisecond)
	x.acks(n+8, n+9) // a peer that reports its newest range only
	if lost := x.Stats().LostMessages; lost != 0 {
		t.Errorf("%d lost though nothing is known of them", lost)
	}
}

// The copy of a receipt takes the ACK along, which the first may have been lost with. Then a sender waits for
// neither, and the ACK is not sent again by itself.
func TestCopyOfAReceiptTakesTheAckAlong(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, nil)
	x.wait(time.Second)
	x.poll()
	image := pattern(500)
	d := digest(image)
	m := (&wire.Header{Dest: 11, Number: x.number}).Append(nil)
	m = (&wire.Offer{ID: [16]byte{1}, Attempt: 1, Size: 500, Algorithm: 2}).Append(m)
	m = (&wire.Fin{Attempt: 1, Size: 500, Algorithm: 2, Digest: d.Append(nil)}).Append(m)
	m = append((&wire.Data{}).Append(m), image...)
	x.receive(m)
	end := x.now.Add(100 * time.Millisecond) // before the probe timer
	for next, copies := len(x.sent), 0; ; {
		for x.poll(); next < len(x.sent); next++ {
			types, _ := x.frames(next)
			if len(types) != 2 || types[0] != wire.TypeAck || types[1] != wire.TypeReceipt {
				t.Errorf("message %d at %v: %v", next, x.now.Sub(start), types)
			}
			copies++
		}
		if x.Deadline().After(end) {
			if copies != 2 {
				t.Errorf("the receipt was sent %d times", copies)
			}
			return
		}
		x.fire()
	}
}

// What acknowledges in a message that is refused for its DATA takes effect at once: not with the next message, which
// may come much later, and would be the round trip.
func TestRefusedMessageAcknowledges(t *testing.T) {
	const rtt = 50 * time.Millisecond
	x := newLossy(t, rtt, nil)
	first, end := x.flight(3_000)
	x.wait(rtt)
	h := wire.Header{Dest: 11, Number: x.number}
	x.number++
	early := wire.Data{Handle: 7}
	msg := wire.Seal(append(early.Append(append(h.Append(nil), ack(int64(first), int64(end))...)), 1))
	if err := x.Receive(x.now, msg); !errors.Is(err, errEarly) {
		t.Fatalf("%v, not %v", err, errEarly)
	}
	x.Deadline() // settles
	x.wait(5 * time.Second)
	x.acks(int64(first), int64(end))
	if got := x.rtt.smoothed; got > 2*rtt {
		t.Errorf("a round trip of %v, not %v", got, rtt)
	}
}

// An ACK is repeated ever more rarely, however many leave with nothing new to acknowledge.
func TestAckIsNotRepeatedAtOnce(t *testing.T) {
	a, now := newAckTracker(nil), time.Second
	a.add(0, now, true)
	for i := range 100 {
		a.sent(now, 10*time.Millisecond)
		if a.again != 0 && a.again <= now {
			t.Fatalf("ACK %d again after %v", i, a.again-now)
		}
		now += time.Second
	}
}

// An ACK whose delay does not fit its field, as the ones before it were lost, is no measure of the round trip: with a
// first one of many seconds the probe timer would be later than the idle time.
func TestLateAckIsNoRoundTrip(t *testing.T) {
	const rtt = 50 * time.Millisecond
	x := newLossy(t, rtt, nil)
	first, end := x.flight(3_000)
	x.wait(12 * time.Second)
	h := wire.Header{Dest: 11, Number: x.number}
	x.number++
	var got ackTracker
	got.got.Add(int64(first), int64(end))
	f := wire.Ack{Delay: mostAckDelay, Window: 1 << 24, Messages: wire.NoMessageLimit}
	x.receive(f.Append(h.Append(nil), &got.got, 256, 1000))
	if got := x.rtt.smoothed; got != rtt || x.Acked(0) != 3_000 {
		t.Errorf("a round trip of %v, not %v; %d bytes acknowledged", got, rtt, x.Acked(0))
	}
}

// A round trip of a minute, which a queue that hardly moves makes, is no reason to probe later than the peer is given up.
func TestProbeTimeoutIsBounded(t *testing.T) {
	x := newLossy(t, time.Minute, nil)
	x.flight(3_000)
	if after := x.recovery.deadline(x.Engine) - x.Engine.now; after > x.cfg.Idle/3 {
		t.Errorf("a probe after %v", after)
	}
}

// A receiver that was restarted is found as soon on a session that was attended, whose PINGs have got it no slower.
func TestAttendedSessionAsksAsSoon(t *testing.T) {
	x := newLossy(t, 50*time.Millisecond, nil)
	x.Attend(x.now, true)
	for range 10 {
		for first, end := x.poll(); first == end; first, end = x.poll() {
			x.fire()
		}
		x.wait(50 * time.Millisecond)
		x.acks(0, int64(len(x.sent)))
	}
	_, end := x.flight(3000)
	x.wait(50 * time.Millisecond)
	x.acks(0, int64(end))
	if d := x.Deadline().Sub(x.now); d > firstKeepAlive {
		t.Errorf("it asks for the receipt after %v, want %v", d, firstKeepAlive)
	}
}

// A timer that comes late finds a loss and the probe behind it due, and Advance does both: the deadline is after it.
func TestLateTimerRunsAllThatIsDue(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	first, end := x.flight(20_000)
	if end-first < 6 {
		t.Fatalf("%d messages", end-first)
	}
	x.wait(100 * time.Millisecond)
	x.acks(0, int64(first), int64(first)+1, int64(first)+2) // one is late, and those behind it unknown
	if x.recovery.lossAt == 0 {
		t.Fatal("nothing is late")
	}
	x.wait(10 * time.Second)
	x.Advance(x.now)
	if d := x.Deadline(); !d.After(x.now) {
		t.Errorf("the deadline is %v before Advance has run", x.now.Sub(d))
	}
	if x.Stats().LostMessages != 1 || x.recovery.probes != 2 {
		t.Errorf("%d messages are lost, %d probes due", x.Stats().LostMessages, x.recovery.probes)
	}
}
