package arq

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"unsafe"

	"github.com/pixferry/pixferry/internal/parity"
	"github.com/pixferry/pixferry/internal/wire"
)

// repairers returns both ends of a session over a link that has lost something, the handshake over.
func repairers(t *testing.T, coder Coder) (a, b *end) {
	a, b = couple(t, func(ca, cb *Config) {
		ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = false, false, false, false
		ca.Coder, cb.Coder = &alignedCoder{t: t}, coder
	})
	settleUntil(start, a, b, func() bool { return a.Quiet() && b.Quiet() && b.Newest() > 0 })
	a.recovery.loss = lossRate{lost: 10, all: 100}
	return a, b
}

// alignedCoder fails where symbols are not aligned.
type alignedCoder struct {
	t *testing.T
	parity.Coder
}

func (c *alignedCoder) check(data, parity [][]byte) {
	for i, symbol := range slices.Concat(data, parity) {
		if len(symbol) > 0 && uintptr(unsafe.Pointer(&symbol[0]))%8 != 0 {
			c.t.Errorf("symbol %d of %d bytes is not aligned", i, len(symbol))
		}
	}
}

func (c *alignedCoder) Encode(data, parity [][]byte) error {
	c.check(data, parity)
	return c.Coder.Encode(data, parity)
}

func (c *alignedCoder) Repair(data, parity [][]byte) error {
	c.check(data, parity)
	return c.Coder.Repair(data, parity)
}

// flight sends an image and returns its messages.
func (x *end) flight(image []byte) (msgs [][]byte) {
	x.send(image, nil)
	now := start
	for range 100 {
		x.run()
		buf := make([]byte, 1400)
		n := x.Poll(now, buf)
		if n == 0 && x.recovery.wake == 0 {
			break
		}
		if n == 0 {
			now = x.epoch.Add(x.recovery.wake)
			x.Advance(now)
			continue
		}
		msgs = append(msgs, buf[:n])
	}
	return msgs
}

// An image arrives whole, and right, whichever messages are lost, if they are not more than its parity; not with more,
// nor without parity. The messages come in any order.
func TestParityRepairsAnImage(t *testing.T) {
	image := pattern(9_999)
	for _, coder := range []Coder{&alignedCoder{t: t}, nil} {
		for lost := range 7 {
			for first := range 8 {
				a, b := repairers(t, coder)
				msgs := a.flight(image)
				from := min(first, len(msgs)-lost)
				kept := append(append([][]byte{}, msgs[:from]...), msgs[from+lost:]...)
				if first%2 == 1 { // late: but the offer stays first
					for i, j := 1, len(kept)-1; i < j; i, j = i+1, j-1 {
						kept[i], kept[j] = kept[j], kept[i]
					}
				}
				for _, m := range kept {
					b.Receive(start, bytes.Clone(m))
					b.run()
				}
				parities := 0
				if coder != nil {
					parities = a.recovery.loss.parities(8)
				}
				if whole := len(b.kept) == 1; whole != (lost <= parities) || whole && !bytes.Equal(b.kept[0], image) {
					t.Fatalf("%d of %d messages lost from %d on, %d of parity: kept %d", lost, len(msgs), from, parities, len(b.kept))
				}
			}
		}
	}
}

func TestParityFollowsTheLoss(t *testing.T) {
	for _, c := range []struct{ lost, all, n, want int }{
		{0, 1000, 8, 0}, {0, 0, 8, 0}, {5, 100, 8, 3}, {1, 100, 8, 1}, {50, 100, 8, 4}, {100, 100, 1, 0}, {5, 100, 50, 8}, {-1, 9, 8, 0},
	} {
		if got := (&lossRate{c.lost, c.all}).parities(c.n); got != c.want {
			t.Errorf("%d of %d lost: %d for %d symbols, want %d", c.lost, c.all, got, c.n, c.want)
		}
	}
	var l lossRate
	l.lose()
	for range 3 * lossMemory {
		l.arrived()
	}
	if l.parities(10) != 0 {
		t.Error("one loss long ago still asks for parity")
	}
}

// Images that are large, of unknown size, or begun before anything was lost get no parity.
func TestNoParityWhereItDoesNotHelp(t *testing.T) {
	for name, c := range map[string]struct {
		size   int
		change func(a *end)
	}{
		"large":    {70_000, func(*end) {}},
		"tiny":     {500, func(*end) {}},
		"lossless": {10_000, func(a *end) { a.recovery.loss = lossRate{all: 100} }},
	} {
		a, _ := repairers(t, &parity.Coder{})
		c.change(a)
		for _, m := range a.flight(pattern(c.size)) {
			_, frames, err := wire.Parse(m)
			if err != nil {
				t.Fatal(err)
			}
			for r := wire.NewReader(frames); r.Next(); {
				if r.Type == wire.TypeParity {
					t.Fatalf("%s: parity", name)
				}
			}
		}
	}
}

// Parity that does not fit the image, or other parity, is not used; parity that nobody asked for ends the session.
func TestHostileParity(t *testing.T) {
	for _, f := range []wire.Parity{
		{Size: 10_001, Count: 3, Symbol: make([]byte, 1250)},
		{Size: 10_000, Count: 200, Symbol: make([]byte, 1250)},
		{Size: 10_000, Count: 3, Index: 1, Symbol: make([]byte, 1249)},
		{Size: 10_000, Count: 2, Index: 1, Symbol: make([]byte, 1250)},
		{Handle: 7, Size: 10_000, Count: 3, Symbol: make([]byte, 1250)},
	} {
		a, b := repairers(t, &parity.Coder{})
		msgs := a.flight(pattern(10_000))
		b.Receive(start, msgs[0])
		b.Receive(start, msgs[len(msgs)-1])
		h := wire.Header{Dest: 22, Number: uint32(len(msgs) + 50)}
		b.Receive(start, wire.Seal(f.Append(h.Append(nil))))
		if b.run(); b.closed != nil || len(b.kept) > 0 {
			t.Errorf("%d of %d: closed %v, kept %d", f.Index, f.Count, b.closed, len(b.kept))
		}
		for _, m := range msgs[1:] {
			b.Receive(start, m)
		}
		if b.run(); len(b.kept) != 1 || !bytes.Equal(b.kept[0], pattern(10_000)) {
			t.Errorf("%d of %d: the image did not arrive", f.Index, f.Count)
		}
	}
	_, b := repairers(t, nil)
	h := wire.Header{Dest: 22, Number: 99}
	b.Receive(start, wire.Seal((&wire.Parity{Size: 9, Count: 1, Symbol: []byte{1}}).Append(h.Append(nil))))
	b.run()
	var c *CloseError
	if !errors.As(b.closed, &c) || c.Code != wire.CodeUnknown {
		t.Errorf("closed with %v", b.closed)
	}
}

// Probes too keep to the bounds of the symbols.
func TestProbeStaysInASymbol(t *testing.T) {
	a, _ := repairers(t, &parity.Coder{})
	a.flight(pattern(9_999))
	symbol := int64(a.outs.list[0].value.symbol)
	now := a.Deadline()
	a.Advance(now)
	probes := 0
	for buf := make([]byte, 1400); ; {
		n := a.Poll(now, buf)
		if n == 0 {
			break
		}
		_, frames, _ := wire.Parse(buf[:n])
		for r := wire.NewReader(frames); r.Next(); {
			var d wire.Data
			if r.Type != wire.TypeData || d.Parse(r.Body) != nil {
				continue
			}
			probes++
			if last := d.Offset + int64(len(d.Payload)) - 1; d.Offset/symbol != last/symbol {
				t.Errorf("DATA from %d to %d, symbols of %d bytes", d.Offset, last, symbol)
			}
		}
	}
	if probes == 0 {
		t.Error("no probe")
	}
}

// An image of more symbols than the code has goes without parity: the peer would take it for a violation.
func TestTooManySymbolsForParity(t *testing.T) {
	for limit := 280; limit < 310; limit++ { // one of which cuts symbols as other codes of the coder want them
		a, b := repairers(t, &parity.Coder{})
		a.LimitMessage(limit)
		h := a.send(pattern(50_000), nil)
		settleUntil(start, a, b, func() bool { return a.receipts[h] || b.closed != nil })
		if !a.receipts[h] {
			t.Errorf("messages of %d: no receipt: %v", limit, b.closed)
		}
	}
}
