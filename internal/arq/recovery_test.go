package arq

import (
	"errors"
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

// A path that was silent for a while takes large messages again soon.
func TestMessageSizeComesBackAfterAnOutage(t *testing.T) {
	s := newSizer(1200, []int{1400}, 1<<16)
	s.acked(1400)
	now := time.Second
	for n := range 5 {
		now += maxPTO
		s.timeout(now, n)
	}
	if s.current != 1200 {
		t.Errorf("messages of %d in an outage", s.current)
	}
	if got := s.probe(now + time.Minute); got != 1400 {
		t.Errorf("a probe of %d a minute after", got)
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

// "Only the ACK with the highest own packet number sets the window."
func TestOlderACKDoesNotSetTheWindow(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	window := func(number uint32, bytes uint32) {
		h := wire.Header{Dest: 11, Number: number}
		var a ackTracker
		a.got.Add(0, 1)
		f := wire.Ack{Window: bytes, Messages: wire.NoMessageLimit}
		x.receive(f.Append(h.Append(nil), &a.got, 1, 1000))
	}
	window(9, 0)
	window(8, 1<<20)
	x.send(pattern(5_000), nil)
	first, end := x.poll()
	for ; first < end; first++ {
		if _, offset := x.frames(first); offset >= 0 {
			t.Fatal("data against a window of nothing")
		}
	}
}

// "a sender with data but no window and nothing in flight PINGs (persist timer)"
func TestPersistTimerAsksForTheWindow(t *testing.T) {
	x := newLossy(t, 100*time.Millisecond, nil)
	h := wire.Header{Dest: 11, Number: x.number}
	x.number++
	var a ackTracker
	a.got.Add(0, 1)
	x.receive((&wire.Ack{Messages: wire.NoMessageLimit}).Append(h.Append(nil), &a.got, 1, 1000))
	x.send(pattern(5_000), nil)
	_, end := x.poll()
	n := int64(end)
	x.number++
	h.Number = x.number
	x.number++
	a.got.Add(0, n) // the offer has arrived, the window is shut
	x.receive((&wire.Ack{Messages: wire.NoMessageLimit}).Append(h.Append(nil), &a.got, 1, 1000))
	if f, e := x.poll(); f != e {
		t.Fatalf("%d messages against a shut window", e-f)
	}
	if passed := x.fire(); passed > time.Second {
		t.Errorf("asked for the window after %v", passed)
	}
	first, end := x.poll()
	if types, _ := x.frames(first); end-first != 1 || !slices.Equal(types, []wire.Type{wire.TypePing}) {
		t.Fatalf("%d messages, the first of %v", end-first, types)
	}
	x.acks(0, int64(end))
	if _, e := x.poll(); e == end {
		t.Error("nothing is sent after the window has opened")
	}
}

// "responder sends at most 3x of what it received until it sees a short message with its CID"
func TestUnprovenPeerGetsThreeTimesItsBytes(t *testing.T) {
	cfg := Config{MaxMessage: 1200, Local: hello(), LocalCID: 22, RemoteCID: 11, FirstCID: 99, Unproven: true}
	b := newEnd(t, New(cfg, start))
	peer := hello()
	h := wire.Header{Long: true, Dest: 99, Version: wire.Version1, Source: 11}
	msg := wire.Seal(wire.AppendPadding(peer.Append(h.Append(nil)), 600))
	if err := b.Receive(start, msg); err != nil {
		t.Fatal(err)
	}
	b.run()
	b.send(pattern(100_000), nil)
	now, sent := start, 0
	buf := make([]byte, 1200)
	for range 40 {
		b.run()
		for {
			n := b.Poll(now, buf)
			if n == 0 {
				break
			}
			sent += n
		}
		if d := b.Deadline(); !d.IsZero() {
			now = d
			b.Advance(now)
		}
	}
	if sent > 3*len(msg) || sent < len(msg) {
		t.Errorf("%d bytes sent to an unproven peer that sent %d", sent, len(msg))
	}
}

// RFC 8899: a probe that arrives raises the size, three that do not leave it.
func TestProbesFindTheMessageSize(t *testing.T) {
	for _, fits := range []int{1200, 1400, 8000} {
		x := newLossy(t, 20*time.Millisecond, func(c *Config) { c.Sizes = []int{1400, 4000, 8900} })
		x.send(pattern(3<<20), nil)
		var seen int64 // every message before it is acknowledged or known to be too large
		largest := 0
		for range 3000 {
			first, end := x.poll()
			x.wait(20 * time.Millisecond)
			var ranges []int64
			for n := first; n < end; n++ {
				if len(x.sent[n]) > fits {
					largest = max(largest, len(x.sent[n]))
					continue
				}
				if k := len(ranges); k > 0 && ranges[k-1] == int64(n) {
					ranges[k-1]++
				} else {
					ranges = append(ranges, int64(n), int64(n+1))
				}
			}
			if len(ranges) > 0 {
				x.acks(ranges...)
			}
			seen = int64(end)
			if d := x.Deadline(); !d.IsZero() && !d.After(x.now) {
				x.Advance(x.now)
			}
			if x.Acked(0) == 3<<20 {
				break
			}
		}
		want := map[int]int{1200: 1200, 1400: 1400, 8000: 4000}[fits]
		if got := x.MaxMessage(); got != want {
			t.Errorf("path of %d: messages of %d, %d expected (%d sent, largest refused %d)", fits, got, want, seen, largest)
		}
		if got := x.Acked(0); got != 3<<20 {
			t.Errorf("path of %d: %d bytes arrived", fits, got)
		}
	}
}

func TestHandshakeTimeoutEndsTheSession(t *testing.T) {
	x := newEnd(t, New(Config{Initiator: true, MaxMessage: 1200, PadHello: 1200, Local: hello(), LocalCID: 1, RemoteCID: 2}, start))
	now, sizes := start, []int(nil)
	buf := make([]byte, 1200)
	for x.closed == nil && now.Before(start.Add(time.Minute)) {
		for {
			n := x.Poll(now, buf)
			if n == 0 {
				break
			}
			sizes = append(sizes, n)
		}
		now = x.Deadline()
		x.Advance(now)
		x.run()
	}
	if !errors.Is(x.closed, ErrHandshake) || now.Sub(start) != 30*time.Second {
		t.Errorf("closed with %v after %v", x.closed, now.Sub(start))
	}
	if len(sizes) < 8 || slices.Min(sizes) < 1200 {
		t.Errorf("HELLO sent %d times, the smallest message of %d bytes", len(sizes), slices.Min(sizes))
	}
}
