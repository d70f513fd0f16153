package framing_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pixferry/pixferry/framing"
)

var prefixes = []struct {
	prefix framing.Prefix
	length int
	wire   string // of the length
	limit  uint64
}{
	{framing.Prefix{}, 5, "05000000", 16 << 20},
	{framing.Prefix{Order: be}, 5, "00000005", 16 << 20},
	{framing.Prefix{Width: 1}, 0, "00", 255},
	{framing.Prefix{Width: 1}, 255, "ff", 255},
	{framing.Prefix{Width: 1, Max: 70}, 70, "46", 70},
	{framing.Prefix{Width: 2}, 258, "0201", 65535},
	{framing.Prefix{Width: 2, Order: be}, 258, "0102", 65535},
	{framing.Prefix{Width: 3, Order: be}, 70000, "011170", 1<<24 - 1},
	{framing.Prefix{Width: 4, Max: math.MaxInt32}, 1, "01000000", math.MaxInt32},
	{framing.Prefix{Width: 6}, 70000, "701101000000", 16 << 20},
	{framing.Prefix{Width: 8, Order: be, Max: -1}, 3, "0000000000000003", 16 << 20},
	{framing.Prefix{Width: framing.Varint}, 0, "00", 16 << 20},
	{framing.Prefix{Width: framing.Varint}, 127, "7f", 16 << 20},
	{framing.Prefix{Width: framing.Varint, Order: be}, 300, "ac02", 16 << 20},
	{framing.Prefix{Width: framing.Varint, Max: 200_000}, 200_000, "c09a0c", 200_000},
}

func numbered(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func TestPrefix(t *testing.T) {
	for _, tt := range prefixes {
		name := fmt.Sprintf("%+v of %d bytes", tt.prefix, tt.length)
		frame := numbered(tt.length)
		wire := append(unhex(t, tt.wire), frame...)

		if got, err := framing.AppendPrefixed([]byte("x"), tt.prefix, frame); !bytes.Equal(got[1:], wire) || err != nil {
			t.Errorf("%s: appended %.20x, %v", name, got[1:], err)
		}
		var w bytes.Buffer
		if err := framing.NewWriter(&w, tt.prefix).WriteFrames(frame, frame); !bytes.Equal(w.Bytes(), append(wire[:len(wire):len(wire)], wire...)) || err != nil {
			t.Errorf("%s: wrote %.20x, %v", name, w.Bytes(), err)
		}
		c := framing.NewCursor(w.Bytes())
		if !bytes.Equal(c.Prefixed(tt.prefix), frame) || c.Len() != len(wire) || c.Err() != nil {
			t.Errorf("%s: Prefixed failed: %v", name, c.Err())
		}

		for how, r := range map[string]io.Reader{
			"at once":         bytes.NewReader(w.Bytes()),
			"byte by byte":    iotest.OneByteReader(bytes.NewReader(w.Bytes())),
			"EOF with a byte": iotest.DataErrReader(bytes.NewReader(w.Bytes())),
		} {
			var got []byte
			for n := range 3 {
				var err error
				got, err = tt.prefix.ReadFrame(r, got)
				if n < 2 && (err != nil || !bytes.Equal(got, frame)) {
					t.Fatalf("%s, %s: frame %d differs, %v", name, how, n, err)
				}
				if n == 2 && (!errors.Is(err, io.EOF) || len(got) != 0) {
					t.Fatalf("%s, %s: %d bytes, %v after the last frame", name, how, len(got), err)
				}
			}
		}
		for _, size := range []int{0, 2, 1000} {
			for n := 0; n < len(wire); n += max(1, n/9) {
				got, err := tt.prefix.ReadFrame(bytes.NewReader(wire[:n]), make([]byte, size))
				want := io.ErrUnexpectedEOF
				if n == 0 {
					want = io.EOF
				}
				if !errors.Is(err, want) || len(got) != 0 {
					t.Fatalf("%s, cut after %d: %d bytes, %v, want %v", name, n, len(got), err, want)
				}
			}
		}
	}
}

func TestPrefixLimits(t *testing.T) {
	for _, tt := range prefixes {
		if tt.limit > 1<<25 {
			continue
		}
		name := fmt.Sprintf("%+v", tt.prefix)
		fits, over := make([]byte, tt.limit), make([]byte, tt.limit+1)
		wrong := func(err error, length uint64) bool {
			var e *framing.TooLongError
			return !errors.As(err, &e) || *e != framing.TooLongError{Length: length, Max: tt.limit}
		}
		if _, err := framing.AppendPrefixed(nil, tt.prefix, fits); err != nil {
			t.Errorf("%s: %v at the limit", name, err)
		}
		if b, err := framing.AppendPrefixed([]byte("x"), tt.prefix, over); wrong(err, tt.limit+1) || string(b) != "x" {
			t.Errorf("%s: %d bytes appended, %v", name, len(b), err)
		}
		var buf bytes.Buffer
		w := framing.NewWriter(&buf, tt.prefix)
		if err := w.WriteFrames([]byte("y"), over); wrong(err, tt.limit+1) || buf.Len() != 0 {
			t.Errorf("%s: %d bytes written, %v", name, buf.Len(), err)
		}
		if err := w.WriteFrames(fits); err != nil {
			t.Errorf("%s: %v at the limit, after a refusal", name, err)
		}
		if got, err := tt.prefix.ReadFrame(&buf, nil); err != nil || len(got) != len(fits) {
			t.Errorf("%s: read %d bytes at the limit, %v", name, len(got), err)
		}
	}
}

// lies are lengths over the limit, each followed by bytes that must stay.
var lies = []struct {
	prefix      framing.Prefix
	wire        string
	length, max uint64
}{
	{framing.Prefix{Width: 1, Max: 10}, "0b", 11, 10},
	{framing.Prefix{}, "01000001", 1<<24 + 1, 16 << 20},
	{framing.Prefix{Width: 8, Max: math.MaxInt}, "ffffffffffffffff", math.MaxUint64, math.MaxInt},
	{framing.Prefix{Width: 8, Order: be, Max: math.MaxInt}, "8000000000000000", 1 << 63, math.MaxInt},
	{framing.Prefix{Width: framing.Varint}, "ffffffffffffffffff01", math.MaxUint64, 16 << 20},
}

func TestLyingLength(t *testing.T) {
	for _, tt := range lies {
		r := bytes.NewReader(append(unhex(t, tt.wire), "rest"...))
		frame, err := tt.prefix.ReadFrame(r, nil)
		var e *framing.TooLongError
		if !errors.As(err, &e) || e.Length != tt.length || e.Max != tt.max {
			t.Errorf("%s: %v", tt.wire, err)
		}
		if len(frame) != 0 || cap(frame) > 16 || r.Len() != len("rest") {
			t.Errorf("%s: took %d bytes of memory, left %d bytes unread", tt.wire, cap(frame), r.Len())
		}
	}
	for _, last := range []string{"\x02", "\x80", "\xff"} {
		varint := strings.Repeat("\xff", 9) + last
		c := framing.NewCursor([]byte(varint))
		c.Uvarint()
		frame, err := framing.Prefix{Width: framing.Varint}.ReadFrame(strings.NewReader(varint+"rest"), nil)
		if len(frame) != 0 || !strings.Contains(fmt.Sprint(err), "longer than 64 bits") || !errors.Is(err, c.Err()) {
			t.Errorf("varint %x: %d bytes, %v, %v", varint, len(frame), err, c.Err())
		}
	}
}

// offers records how much memory stands ready for bytes not yet received.
type offers struct {
	r    io.Reader
	got  int
	most func(offered, got int) bool
	fail func(offered, got int)
}

func (o *offers) Read(p []byte) (int, error) {
	if !o.most(len(p), o.got) {
		o.fail(len(p), o.got)
	}
	n, err := o.r.Read(p)
	o.got += n
	return n, err
}

func TestMemoryFollowsBytes(t *testing.T) {
	const sent = 3 << 20
	p := framing.Prefix{Max: 1 << 30}
	r := &offers{
		r:    io.MultiReader(strings.NewReader("\x00\x00\x00\x40"), bytes.NewReader(make([]byte, sent))),
		most: func(offered, got int) bool { return offered <= max(got, 64<<10) },
		fail: func(offered, got int) { t.Errorf("%d bytes of memory taken when %d had come", offered, got) },
	}
	frame, err := p.ReadFrame(r, nil)
	if !errors.Is(err, io.ErrUnexpectedEOF) || cap(frame) > 2*sent+64<<10 {
		t.Errorf("%d bytes of memory for %d received, %v", cap(frame), sent, err)
	}
}

func TestReadFrameStaysInside(t *testing.T) {
	r := strings.NewReader("\x03abcHTTP")
	frame, err := framing.Prefix{Width: 1}.ReadFrame(r, make([]byte, 4096))
	if string(frame) != "abc" || err != nil || r.Len() != 4 {
		t.Errorf("%q, %v, %d bytes left of 4", frame, err, r.Len())
	}
	broken := fmt.Errorf("cable broken: %w", io.EOF) // no orderly end
	for _, got := range []string{"", "\x03", "\x03ab"} {
		r := io.MultiReader(strings.NewReader(got), iotest.ErrReader(broken))
		if frame, err := (framing.Prefix{Width: 1}).ReadFrame(r, nil); !errors.Is(err, broken) || len(frame) != 0 {
			t.Errorf("%q, then an error: %q, %v", got, frame, err)
		}
	}
}

// calls records each Write.
type calls struct {
	sizes []int
	bytes.Buffer
	failAt int // the call that fails, from 1
	short  bool
}

var errLink = errors.New("link down")

func (c *calls) Write(b []byte) (int, error) {
	c.sizes = append(c.sizes, len(b))
	if len(c.sizes) == c.failAt {
		if c.short {
			return len(b) - 1, nil
		}
		return 1, errLink
	}
	return c.Buffer.Write(b)
}

func TestWriterCalls(t *testing.T) {
	small, large := numbered(8<<10), numbered(8<<10+1)
	for _, tt := range []struct {
		frames [][]byte
		sizes  string
	}{
		{nil, "[]"},
		{[][]byte{{}}, "[4]"},
		{[][]byte{small}, "[8196]"},
		{[][]byte{{1}, {2, 3}, small}, "[8207]"},
		{[][]byte{large}, "[4 8193]"},
		{[][]byte{{1}, large, {2}, {3, 4}, large, large, {5}}, "[9 8193 15 8193 4 8193 5]"},
	} {
		var c calls
		w := framing.NewWriter(&c, framing.Prefix{})
		for range 2 { // the second time into memory that is there
			c = calls{}
			if err := w.WriteFrames(tt.frames...); err != nil || fmt.Sprint(c.sizes) != tt.sizes {
				t.Errorf("%d frames: writes of %v, want %s; %v", len(tt.frames), c.sizes, tt.sizes, err)
			}
			for i, f := range tt.frames {
				if got, err := (framing.Prefix{}).ReadFrame(&c.Buffer, nil); !bytes.Equal(got, f) || err != nil {
					t.Errorf("%d frames: frame %d is %.20x, %v", len(tt.frames), i, got, err)
				}
			}
		}
	}
}

func TestWriterErrorStays(t *testing.T) {
	for _, tt := range []struct {
		c    calls
		want error
	}{
		{calls{failAt: 1}, errLink},
		{calls{failAt: 2}, errLink},
		{calls{failAt: 1, short: true}, io.ErrShortWrite},
		{calls{failAt: 2, short: true}, io.ErrShortWrite},
	} {
		frames := [][]byte{{1}}
		if tt.c.failAt == 2 {
			frames = append(frames, numbered(9000))
		}
		w := framing.NewWriter(&tt.c, framing.Prefix{})
		if err := w.WriteFrames(frames...); !errors.Is(err, tt.want) {
			t.Errorf("call %d: %v, want %v", tt.c.failAt, err, tt.want)
		}
		before := len(tt.c.sizes)
		if err := w.WriteFrames([]byte("next")); !errors.Is(err, tt.want) || len(tt.c.sizes) != before {
			t.Errorf("call %d: %v and a write after a cut frame", tt.c.failAt, err)
		}
	}
}

func TestOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	prefix := framing.Prefix{Width: framing.Varint}
	sent := make(chan error, 1)
	sizes := []int{0, 1, 8192, 8193, 1, 1 << 20, 3}
	go func() {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			sent <- err
			return
		}
		defer conn.Close()
		var frames [][]byte
		for _, n := range sizes {
			frames = append(frames, numbered(n))
		}
		sent <- framing.NewWriter(conn, prefix).WriteFrames(frames...)
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var frame []byte
	for i, n := range sizes {
		if frame, err = prefix.ReadFrame(conn, frame); err != nil || !bytes.Equal(frame, numbered(n)) {
			t.Fatalf("frame %d of %d bytes differs, %v", i, n, err)
		}
	}
	if _, err := prefix.ReadFrame(conn, frame); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// FuzzReadFrame compares ReadFrame with Cursor.Prefixed on the same bytes.
func FuzzReadFrame(f *testing.F) {
	for i, tt := range prefixes {
		f.Add(uint8(i), append(unhex(f, tt.wire), numbered(min(tt.length, 300))...))
	}
	f.Add(uint8(len(prefixes)-1), bytes.Repeat([]byte{0xff}, 12))
	for _, tt := range lies {
		f.Add(uint8(len(prefixes)-1), unhex(f, tt.wire))
		f.Add(uint8(0), unhex(f, tt.wire))
	}
	f.Fuzz(func(t *testing.T, which uint8, stream []byte) {
		p := prefixes[int(which)%len(prefixes)].prefix
		r, c := iotest.OneByteReader(bytes.NewReader(stream)), framing.NewCursor(stream)
		var frame []byte
		for {
			clean := c.Len() == 0
			want := c.Prefixed(p)
			var err error
			frame, err = p.ReadFrame(r, frame)
			var tooLong *framing.TooLongError
			switch {
			case c.Err() == nil:
				if err != nil || !bytes.Equal(frame, want) {
					t.Fatalf("%s, %v; want %s", hex.EncodeToString(frame), err, hex.EncodeToString(want))
				}
				continue
			case clean && !errors.Is(err, io.EOF),
				!clean && errors.Is(c.Err(), framing.ErrShort) && !errors.Is(err, io.ErrUnexpectedEOF),
				errors.As(c.Err(), &tooLong) && fmt.Sprint(err) != c.Err().Error(),
				err == nil, len(frame) != 0, cap(frame) > len(stream)+64<<10:
				t.Fatalf("%d bytes, capacity %d, %v; want %v", len(frame), cap(frame), err, c.Err())
			}
			return
		}
	})
}

// endless repeats its bytes for ever.
type endless struct {
	b  []byte
	at int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.b[e.at:])
	e.at = (e.at + n) % len(e.b)
	return n, nil
}

func TestFrameAllocs(t *testing.T) {
	for _, p := range []framing.Prefix{{}, {Width: 8, Order: be}, {Width: framing.Varint}} {
		wire, err := framing.AppendPrefixed(nil, p, numbered(20_000))
		if err != nil {
			t.Fatal(err)
		}
		r := &endless{b: wire}
		var frame []byte
		if n := testing.AllocsPerRun(100, func() {
			if frame, err = p.ReadFrame(r, frame); err != nil || len(frame) != 20_000 {
				t.Fatal(len(frame), err)
			}
		}); n != 0 {
			t.Errorf("%+v: %v allocations for a frame read", p, n)
		}
		w := framing.NewWriter(io.Discard, p)
		small, large := numbered(100), numbered(20_000)
		if n := testing.AllocsPerRun(100, func() {
			if err := w.WriteFrames(small, large, small); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%+v: %v allocations for three frames written", p, n)
		}
	}
}

func BenchmarkReadFrame(b *testing.B) {
	for _, size := range []int{1400, 256 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			wire, _ := framing.AppendPrefixed(nil, framing.Prefix{}, numbered(size))
			r := &endless{b: wire}
			var frame []byte
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if frame, err = (framing.Prefix{}).ReadFrame(r, frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWriteFrames(b *testing.B) {
	for _, size := range []int{1400, 256 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			w, frame := framing.NewWriter(io.Discard, framing.Prefix{}), numbered(size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := w.WriteFrames(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
