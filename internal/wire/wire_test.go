package wire_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/framing"
	"github.com/pixferry/pixferry/internal/wire"
)

// frame is what all frames have in common.
type frame interface {
	Append([]byte) []byte
	Len() int
	Parse([]byte) error
}

// ack makes a frame of an Ack, which is written from a set of packet numbers.
type ack struct {
	wire.Ack
	received chunk.Ranges
}

func newAck(a wire.Ack, ranges ...chunk.Range) *ack {
	f := &ack{Ack: a}
	for _, r := range ranges {
		f.received.Add(r.Start, r.End)
	}
	return f
}

func (f *ack) Append(b []byte) []byte {
	return f.Ack.Append(b, &f.received, wire.MaxAckRanges, 1<<16)
}

func (f *ack) Len() int { return len(f.Append(nil)) }

// Parse takes Largest as the whole number, plus 2^32 to be sure that nothing
// becomes negative.
func (f *ack) Parse(body []byte) error {
	f.received.Clear()
	err := f.Ack.Parse(body)
	if err == nil {
		for r := range f.Ranges(1<<32 + int64(f.Largest)) {
			f.received.Add(r.Start, r.End)
		}
	}
	return err
}

// other is a frame without a type of its own in the package.
type other struct {
	Body []byte
	kind wire.Type
}

func (f *other) Append(b []byte) []byte {
	return append(append(b, byte(f.kind), byte(len(f.Body)), byte(len(f.Body)>>8)), f.Body...)
}
func (f *other) Len() int { return wire.FrameHeader + len(f.Body) }
func (f *other) Parse(body []byte) error {
	f.Body = body
	return nil
}

// newFrame returns an empty frame of a type.
func newFrame(t wire.Type) frame {
	switch t {
	case wire.TypeData:
		return new(wire.Data)
	case wire.TypeParity:
		return new(wire.Parity)
	case wire.TypeAck:
		return new(ack)
	case wire.TypeHello:
		return new(wire.Hello)
	case wire.TypeOffer:
		return new(wire.Offer)
	case wire.TypeAccept:
		return new(wire.Accept)
	case wire.TypeResume:
		return new(wire.Resume)
	case wire.TypeFin:
		return new(wire.Fin)
	case wire.TypeReceipt:
		return new(wire.Receipt)
	case wire.TypeReject:
		return new(wire.Reject)
	case wire.TypeCancel:
		return new(wire.Cancel)
	case wire.TypeClose:
		return new(wire.Close)
	case wire.TypeReset:
		return new(wire.Reset)
	case wire.TypeVersions:
		return new(wire.Versions)
	case wire.TypePathChallenge, wire.TypePathResponse:
		return &wire.Path{Response: t == wire.TypePathResponse}
	}
	return &other{kind: t}
}

// build returns a message.
func build(h wire.Header, frames ...frame) []byte {
	b := h.Append(nil)
	for _, f := range frames {
		b = f.Append(b)
	}
	return wire.Seal(b)
}

// buildReliable is build for an ordered reliable link.
func buildReliable(h wire.Header, frames ...frame) []byte {
	msg, payload := build(h, frames...), 0
	if len(frames) > 0 {
		if d, ok := frames[len(frames)-1].(*wire.Data); ok {
			payload = len(d.Payload)
		}
	}
	return wire.SealReliable(msg[:len(msg)-wire.Trailer], payload)
}

// decode parses a message whole.
func decode(msg []byte) (h wire.Header, types []wire.Type, frames []frame, err error) {
	return decodeBy(wire.Parse, msg)
}

func decodeBy(parse func([]byte) (wire.Header, []byte, error), msg []byte) (h wire.Header, types []wire.Type, frames []frame, err error) {
	h, rest, err := parse(msg)
	if err != nil {
		return h, nil, nil, err
	}
	r := wire.NewReader(rest)
	for r.Next() {
		f := newFrame(r.Type)
		if err := f.Parse(r.Body); err != nil {
			return h, types, frames, err
		}
		types, frames = append(types, r.Type), append(frames, f)
	}
	return h, types, frames, r.Err()
}

// On an ordered reliable link the checksum is of every byte but DATA's payload.
func TestChecksumOnAReliableLink(t *testing.T) {
	for _, v := range messages() {
		msg, payload := buildReliable(v.header, v.frames...), 0
		h, frames, err := wire.ParseReliable(msg)
		if _, plain, _ := wire.Parse(build(v.header, v.frames...)); err != nil || h != v.header || !bytes.Equal(frames, plain) {
			t.Errorf("%s: %+v, %v", v.name, h, err)
			continue
		}
		if n := len(v.frames); n > 0 {
			if d, ok := v.frames[n-1].(*wire.Data); ok {
				payload = len(d.Payload)
			}
		}
		for i := range msg {
			in := i >= len(msg)-wire.Trailer-payload && i < len(msg)-wire.Trailer
			msg[i] ^= 0x40
			if _, _, err := wire.ParseReliable(msg); (err == nil) != in {
				t.Errorf("%s, byte %d of %d is changed: %v", v.name, i, len(msg), err)
			}
			msg[i] ^= 0x40
		}
		for n := range msg { // a length that is too short by mistake; of an empty payload a part may look whole
			if _, _, err := wire.ParseReliable(msg[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes are taken", v.name, n, len(msg))
			}
		}
	}
}

// Every frame is as long as it says, and cut anywhere it is an error.
func TestLengthsAndTruncation(t *testing.T) {
	for _, v := range messages() {
		for _, f := range v.frames {
			b := f.Append([]byte("before"))
			if !bytes.HasPrefix(b, []byte("before")) || len(b)-len("before") != f.Len() {
				t.Errorf("%s: %T appends %d bytes and says %d", v.name, f, len(b)-len("before"), f.Len())
			}
			b = b[len("before"):]
			r := wire.NewReader(b)
			if !r.Next() || r.Next() || r.Err() != nil {
				t.Fatalf("%s: %T: its own bytes are not one frame: %v", v.name, f, r.Err())
			}
			testPrefixes(t, v.name, b)
		}
	}
}

// testPrefixes cuts a frame at every byte: outside its body, and inside with the
// length corrected, which must not be taken for the whole.
func testPrefixes(t *testing.T, name string, b []byte) {
	kind := wire.Type(b[0])
	header := wire.FrameHeader
	if kind == wire.TypeData {
		header = 1
	}
	for n := 1; n < len(b); n++ {
		r := wire.NewReader(b[:n])
		if more := r.Next(); kind != wire.TypeData && (more || !isCode(r.Err(), wire.CodeTruncated, kind)) {
			t.Fatalf("%s: %v cut to %d of %d bytes: %v", name, kind, n, len(b), r.Err())
		}
		if n < header {
			continue
		}
		f := newFrame(kind)
		if err := f.Parse(b[header:n:n]); err == nil {
			short := f.Append(nil)
			if !bytes.Equal(short[header:], b[header:n]) && !bytes.HasSuffix(short, []byte("?")) { // a split character
				t.Errorf("%s: %v cut to a body of %d bytes is taken for % x", name, kind, n-header, short)
			}
		} else if e := (*wire.Error)(nil); !errors.As(err, &e) || e.Frame != kind {
			t.Errorf("%s: %v cut to a body of %d bytes: %v", name, kind, n-header, err)
		}
	}
}

func isCode(err error, code wire.Code, t wire.Type) bool {
	e := (*wire.Error)(nil)
	return errors.As(err, &e) && e.Code == code && e.Frame == t
}

// A message that was cut or changed anywhere is not obeyed.
func TestDamage(t *testing.T) {
	msg := build(wire.Header{Long: true, Dest: 7, Number: 1, Version: 1, Source: 8}, &wire.Close{Text: "bye"})
	if _, _, err := wire.Parse(msg); err != nil {
		t.Fatal(err)
	}
	for n := range len(msg) {
		if _, frames, err := wire.Parse(msg[:n]); err == nil || frames != nil {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for i := range 8 * len(msg) {
		b := bytes.Clone(msg)
		b[i/8] ^= 1 << (i % 8)
		if _, frames, err := wire.Parse(b); err == nil || frames != nil {
			t.Errorf("bit %d of byte %d turned over: %v", i%8, i/8, err)
		}
	}
}

// What a VERSIONS answer needs is known of a message of any version.
func TestUnknownVersionKeepsHeader(t *testing.T) {
	want := wire.Header{Long: true, Dest: 1 << 63, Number: 5, Version: 9, Source: 6}
	msg := build(want)
	msg[0] |= 0x5e // sealed in some way that version 1 does not know
	h, frames, err := wire.Parse(msg)
	if !isCode(err, wire.CodeVersion, wire.NoFrame) || h != want || frames != nil {
		t.Errorf("%+v %v", h, err)
	}
	if id, long, ok := wire.PeekDest(msg); id != want.Dest || !long || !ok {
		t.Errorf("PeekDest: %x %v %v", id, long, ok)
	}
	if _, _, ok := wire.PeekDest(msg[:wire.ShortHeader+wire.Trailer-1]); ok {
		t.Error("PeekDest of too few bytes")
	}
}

func TestEliciting(t *testing.T) {
	for kind, want := range map[wire.Type]bool{
		wire.TypePadding: false, wire.TypeAck: false, wire.TypeClose: false, wire.TypeReset: false, wire.TypeVersions: false,
		wire.TypeData: true, wire.TypePing: true, wire.TypeHello: true, wire.TypeReceipt: true, 0x80: true,
	} {
		if kind.Eliciting() != want {
			t.Errorf("%v: eliciting is %v", kind, !want)
		}
	}
}

func TestExpandNumber(t *testing.T) {
	for _, v := range packetNumbers() {
		if got := wire.ExpandNumber(v.Truncated, v.Largest); got != v.Number {
			t.Errorf("%d after %d: %d, want %d", v.Truncated, v.Largest, got, v.Number)
		}
	}
	// Every number near the expected one survives.
	for _, largest := range []int64{-1, 0, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 5<<32 + 77, 1 << 60} {
		for _, d := range []int64{-1<<31 + 2, -70000, -1, 0, 1, 2, 70000, 1<<31 + 1} {
			if n := largest + d; n >= 0 && wire.ExpandNumber(uint32(n), largest) != n {
				t.Errorf("%d after %d: %d", n, largest, wire.ExpandNumber(uint32(n), largest))
			}
		}
	}
}

func TestCutText(t *testing.T) {
	for _, v := range []struct {
		in    string
		limit int
		want  string
	}{
		{"short", 10, "short"}, {"short", 5, "short"}, {"short", 3, "sho"}, {"short", 0, ""}, {"short", -1, ""},
		{"Größe", 3, "Gr"}, {"Größe", 4, "Grö"}, {strings.Repeat("x", 2000), 5000, strings.Repeat("x", wire.MaxText)},
	} {
		if got := wire.CutText(v.in, v.limit); got != v.want {
			t.Errorf("%.20q cut to %d: %.20q", v.in, v.limit, got)
		}
	}
}

// A peer's text goes into errors, and so to logs and terminals: it is one line, and controls nothing.
func TestTextsControlNothing(t *testing.T) {
	const said, want = "no\x1b[2J\r\nroom\u009b\xff ü", "no [2J  room ? ü"
	var reject wire.Reject
	if err := reject.Parse((&wire.Reject{ID: [16]byte{1}, Text: said}).Append(nil)[wire.FrameHeader:]); err != nil || reject.Text != want {
		t.Errorf("REJECT says %q, %v", reject.Text, err)
	}
	var closing wire.Close
	if err := closing.Parse((&wire.Close{Text: said}).Append(nil)[wire.FrameHeader:]); err != nil || closing.Text != want {
		t.Errorf("CLOSE says %q, %v", closing.Text, err)
	}
}

// Texts and metadata that lie about their lengths take no memory.
func TestNoMemoryForLies(t *testing.T) {
	lies := map[string]func() error{
		"metadata": func() error { return new(wire.Metadata).Parse([]byte{1, 0xff, 0xff, 'x'}) },
		"pair":     func() error { return new(wire.Metadata).Parse([]byte{5, 3, 0, 0xff, 0xff, 'x'}) },
		"resume":   func() error { return new(wire.Resume).Parse([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1}) },
		"reject":   func() error { return new(wire.Reject).Parse(make([]byte, 28+wire.MaxText+1)) },
	}
	for name, lie := range lies {
		if err := lie(); err == nil {
			t.Errorf("%s: no error", name)
		}
		if n := testing.AllocsPerRun(100, func() { lie() }); n > 5 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestMetadata(t *testing.T) {
	for _, v := range metadata() {
		b := v.meta.Append([]byte("before"))[len("before"):]
		if len(b) != v.meta.Len() {
			t.Errorf("%s: %d bytes, Len says %d", v.name, len(b), v.meta.Len())
		}
		for n := range b {
			var m wire.Metadata
			if err := m.Parse(b[:n]); err == nil && !bytes.Equal(m.Append(nil), b[:n]) {
				t.Errorf("%s: cut to %d bytes it is taken for %+v", v.name, n, m)
			}
		}
	}
}

// Messages to the wire name their framing error through *Error alone.
func TestErrorsAreTyped(t *testing.T) {
	err := new(wire.Cancel).Parse([]byte{1})
	if !isCode(err, wire.CodeTruncated, wire.TypeCancel) || errors.Is(err, framing.ErrShort) {
		t.Errorf("%#v", err)
	}
	if got, want := err.Error(), "CANCEL frame (truncated): the body ends inside a field"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
