package framing_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pixferry/pixferry/framing"
)

const (
	le = framing.LittleEndian
	be = framing.BigEndian
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var integers = []struct {
	order    framing.Order
	width    int
	unsigned uint64
	signed   int64
	wire     string
}{
	{le, 1, 0x80, -128, "80"},
	{be, 1, 0x7f, 127, "7f"},
	{le, 2, 0xfffe, -2, "feff"},
	{be, 2, 0xfffe, -2, "fffe"},
	{le, 3, 0x010203, 0x010203, "030201"},
	{be, 3, 0x810203, 0x810203 - 1<<24, "810203"},
	{le, 4, 0xffffeeee, 0xffffeeee - 1<<32, "eeeeffff"},
	{be, 4, 0x01020304, 0x01020304, "01020304"},
	{le, 5, 0x0102030405, 0x0102030405, "0504030201"},
	{be, 5, 0x0102030405, 0x0102030405, "0102030405"},
	{le, 6, 0x010203040506, 0x010203040506, "060504030201"},
	{be, 6, 0xffffffffffff, -1, "ffffffffffff"},
	{le, 7, 0x01020304050607, 0x01020304050607, "07060504030201"},
	{be, 7, 0x80000000000000, -1 << 55, "80000000000000"},
	{le, 8, 0x0102030405060708, 0x0102030405060708, "0807060504030201"},
	{be, 8, math.MaxUint64, -1, "ffffffffffffffff"},
}

func TestIntegers(t *testing.T) {
	for _, tt := range integers {
		name := fmt.Sprintf("order %d width %d %#x", tt.order, tt.width, tt.unsigned)
		wire := unhex(t, tt.wire)
		if got := framing.AppendUint([]byte("x"), tt.order, tt.width, tt.unsigned); !bytes.Equal(got[1:], wire) {
			t.Errorf("%s: appended %x, want %x", name, got[1:], wire)
		}
		if got := framing.AppendUint(nil, tt.order, tt.width, uint64(tt.signed)); !bytes.Equal(got, wire) {
			t.Errorf("%s: appended %x for the signed value, want %x", name, got, wire)
		}
		for _, tail := range []string{"", "t", "a long tail"} {
			msg := append(bytes.Clone(wire), tail...)
			u, i := framing.NewCursor(msg), framing.NewCursor(msg)
			if got := u.Uint(tt.order, tt.width); got != tt.unsigned || u.Err() != nil || string(u.Rest()) != tail {
				t.Errorf("%s, tail %q: Uint %#x, %v", name, tail, got, u.Err())
			}
			if got := i.Int(tt.order, tt.width); got != tt.signed || i.Err() != nil || string(i.Rest()) != tail {
				t.Errorf("%s, tail %q: Int %#x, %v", name, tail, got, i.Err())
			}
		}
		for n := range wire {
			c := framing.NewCursor(wire[:n])
			if got := c.Uint(tt.order, tt.width); got != 0 || !errors.Is(c.Err(), framing.ErrShort) {
				t.Errorf("%s of %d bytes: %#x, %v", name, n, got, c.Err())
			}
		}
	}
}

func TestAppendUintKeepsSpareCapacity(t *testing.T) {
	msg := []byte("....payload")
	framing.AppendUint(msg[:1], le, 3, 0x030201)
	if want := ".\x01\x02\x03payload"; string(msg) != want {
		t.Errorf("%q, want %q", msg, want)
	}
}

func TestWidthPanics(t *testing.T) {
	for _, width := range []int{-2, 0, 9} {
		for name, f := range map[string]func(){
			"AppendUint": func() { framing.AppendUint(nil, le, width, 1) },
			"Uint":       func() { c := framing.NewCursor(make([]byte, 20)); c.Uint(le, width) },
		} {
			func() {
				defer func() {
					if msg := fmt.Sprint(recover()); !strings.Contains(msg, "width must be 1 to 8") {
						t.Errorf("%s of %d bytes: %s", name, width, msg)
					}
				}()
				f()
			}()
		}
	}
}

// Every kind of read, on the bytes that it takes.
var reads = []struct {
	name string
	wire string
	read func(c *framing.Cursor) any
	want any
}{
	{"Uint8", "81", func(c *framing.Cursor) any { return c.Uint8() }, uint8(0x81)},
	{"Uint16", "0281", func(c *framing.Cursor) any { return c.Uint16() }, uint16(0x8102)},
	{"Uint32", "01020381", func(c *framing.Cursor) any { return c.Uint32() }, uint32(0x81030201)},
	{"Uint64", "0102030405060781", func(c *framing.Cursor) any { return c.Uint64() }, uint64(0x8107060504030201)},
	{"Uint", "010203", func(c *framing.Cursor) any { return c.Uint(be, 3) }, uint64(0x010203)},
	{"Int", "fffffe", func(c *framing.Cursor) any { return c.Int(be, 3) }, int64(-2)},
	{"Uvarint", "ac02", func(c *framing.Cursor) any { return c.Uvarint() }, uint64(300)},
	{"Uvarint long", "ffffffffffffffffff01", func(c *framing.Cursor) any { return c.Uvarint() }, uint64(math.MaxUint64)},
	{"Bytes", "616263", func(c *framing.Cursor) any { return string(c.Bytes(3)) }, "abc"},
	{"Prefixed", "03000000616263", func(c *framing.Cursor) any { return string(c.Prefixed(framing.Prefix{})) }, "abc"},
	{"Prefixed varint", "03616263", func(c *framing.Cursor) any { return string(c.Prefixed(framing.Prefix{Width: framing.Varint})) }, "abc"},
}

func TestReads(t *testing.T) {
	for _, tt := range reads {
		wire := unhex(t, tt.wire)
		for _, tail := range []string{"tail", ""} {
			c := framing.NewCursor(append(bytes.Clone(wire), tail...))
			if got := tt.read(&c); got != tt.want || c.Err() != nil || c.Len() != len(tail) || string(c.Rest()) != tail || c.Len() != 0 {
				t.Errorf("%s, tail %q: %v, %v", tt.name, tail, got, c.Err())
			}
		}
		for n := range wire {
			c := framing.NewCursor(wire[:n:n])
			tt.read(&c)
			if !errors.Is(c.Err(), framing.ErrShort) || c.Len() != 0 || c.Uint8() != 0 || len(c.Rest()) != 0 {
				t.Errorf("%s of %d bytes: %v", tt.name, n, c.Err())
			}
		}
	}
}

func TestFirstErrorStays(t *testing.T) {
	tooLong := new(framing.TooLongError)
	for name, fail := range map[string]struct {
		read func(c *framing.Cursor)
		is   func(err error) bool
	}{
		"magic": {func(c *framing.Cursor) { c.Magic("PIC1") },
			func(err error) bool {
				return errors.Is(err, framing.ErrMagic) && strings.Contains(err.Error(), "found ff ff ff ff where 50 49 43 31")
			}},
		"varint": {func(c *framing.Cursor) { c.Uvarint() },
			func(err error) bool { return strings.Contains(fmt.Sprint(err), "longer than 64 bits") }},
		"prefix": {func(c *framing.Cursor) { c.Prefixed(framing.Prefix{Width: 1, Max: 9}) },
			func(err error) bool {
				return errors.As(err, &tooLong) && *tooLong == framing.TooLongError{Length: 255, Max: 9}
			}},
		"short": {func(c *framing.Cursor) { c.Bytes(99) },
			func(err error) bool { return errors.Is(err, framing.ErrShort) }},
		"negative": {func(c *framing.Cursor) { c.Bytes(-1) },
			func(err error) bool { return errors.Is(err, framing.ErrShort) }},
	} {
		for _, tt := range reads {
			c := framing.NewCursor(bytes.Repeat([]byte{0xff}, 20))
			fail.read(&c)
			if !fail.is(c.Err()) {
				t.Fatalf("%s: %v", name, c.Err())
			}
			if got := fmt.Sprint(tt.read(&c)); got != "0" && got != "" || !fail.is(c.Err()) {
				t.Errorf("%s after %s: %v, %v", tt.name, name, got, c.Err())
			}
			if c.Magic("PIC1"); !fail.is(c.Err()) {
				t.Errorf("Magic after %s: %v", name, c.Err())
			}
		}
	}
}

func TestMagicShort(t *testing.T) {
	c := framing.NewCursor([]byte("PIC"))
	if c.Magic("PIC1"); !errors.Is(c.Err(), framing.ErrShort) {
		t.Error(c.Err())
	}
}

func TestBytesCannotBeAppendedInto(t *testing.T) {
	msg := []byte("headtail")
	c := framing.NewCursor(msg)
	if _ = append(c.Bytes(4), "XX"...); string(msg) != "headtail" {
		t.Errorf("an append to the head wrote over the tail: %q", msg)
	}
}

func TestCRC32C(t *testing.T) {
	// The check value of CRC-32/ISCSI, and the zeros of RFC 3720, appendix B.4.
	for _, tt := range []struct{ in, wire string }{
		{"123456789", "839206e3"},
		{strings.Repeat("\x00", 32), "aa36918a"},
		{"", "00000000"},
	} {
		frame := framing.AppendCRC32C([]byte("before"+tt.in), len("before"))[len("before"):]
		if got := hex.EncodeToString(frame[len(tt.in):]); got != tt.wire {
			t.Errorf("%q: %s, want %s", tt.in, got, tt.wire)
		}
		if body, err := framing.TrimCRC32C(frame); string(body) != tt.in || err != nil {
			t.Errorf("%q: %q, %v", tt.in, body, err)
		}
		for i := range 8 * len(frame) {
			bad := bytes.Clone(frame)
			bad[i/8] ^= 1 << (i % 8)
			if body, err := framing.TrimCRC32C(bad); body != nil || !errors.Is(err, framing.ErrChecksum) {
				t.Errorf("%q with bit %d changed: %q, %v", tt.in, i, body, err)
			}
		}
	}
	for n := range 4 {
		if _, err := framing.TrimCRC32C(make([]byte, n)); !errors.Is(err, framing.ErrShort) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func FuzzTrimCRC32C(f *testing.F) {
	f.Add([]byte("123456789\x83\x92\x06\xe3"))
	f.Add([]byte("abc"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if body, err := framing.TrimCRC32C(frame); err == nil && !bytes.Equal(framing.AppendCRC32C(bytes.Clone(body), 0), frame) {
			t.Errorf("%x was taken for good", frame)
		}
	})
}

// FuzzCursor runs operations against a model that reads byte by byte: each
// byte of ops is one operation, with its argument in the upper bits.
func FuzzCursor(f *testing.F) {
	for i, tt := range reads {
		f.Add([]byte{byte(i), 0x07, 0x34, 0x25, 0x16}, unhex(f, tt.wire+tt.wire))
	}
	for _, tt := range integers {
		f.Add([]byte{byte(tt.width-1)<<5 | 4, byte(tt.width-1)<<5 | 5 | byte(tt.order)<<4}, unhex(f, tt.wire+tt.wire))
	}
	f.Fuzz(func(t *testing.T, ops, msg []byte) {
		c, m := framing.NewCursor(msg), model{left: msg}
		for i, op := range ops {
			width, order := int(op>>5)+1, framing.Order(op>>4&1)
			var got, want any
			switch op & 15 {
			case 0:
				got, want = c.Uint8(), uint8(m.uint(le, 1))
			case 1:
				got, want = c.Uint16(), uint16(m.uint(le, 2))
			case 2:
				got, want = c.Uint32(), uint32(m.uint(le, 4))
			case 3:
				got, want = c.Uint64(), m.uint(le, 8)
			case 4:
				got, want = c.Uint(order, width), m.uint(order, width)
			case 5:
				got, want = c.Int(order, width), int64(m.uint(order, width)<<(64-8*width))>>(64-8*width)
			case 6:
				got, want = c.Uvarint(), m.uvarint()
			case 7:
				got, want = string(c.Bytes(width-1)), string(m.bytes(uint64(width-1)))
			case 8:
				p := framing.Prefix{Width: width, Order: order, Max: 40}
				got = string(c.Prefixed(p))
				n := m.uint(order, width)
				m.failed = m.failed || n > 40
				want = string(m.bytes(n))
			case 9:
				got = string(c.Prefixed(framing.Prefix{Width: framing.Varint, Max: 40}))
				n := m.uvarint()
				m.failed = m.failed || n > 40
				want = string(m.bytes(n))
			}
			if m.failed {
				m.left = nil
			}
			if got != want || (c.Err() != nil) != m.failed || c.Len() != len(m.left) {
				t.Fatalf("operation %d (%#x): %v, %v, %d left; want %v, failed %v, %d left",
					i, op, got, c.Err(), c.Len(), want, m.failed, len(m.left))
			}
		}
		if rest := c.Rest(); !bytes.Equal(rest, m.left) {
			t.Fatalf("rest %x, want %x", rest, m.left)
		}
	})
}

type model struct {
	left   []byte
	failed bool
}

func (m *model) bytes(n uint64) []byte {
	if m.failed || n > uint64(len(m.left)) {
		m.failed = true
		return nil
	}
	b := m.left[:n]
	m.left = m.left[n:]
	return b
}

func (m *model) uint(order framing.Order, width int) (v uint64) {
	for i, x := range m.bytes(uint64(width)) {
		if order == be {
			v = v<<8 | uint64(x)
		} else {
			v |= uint64(x) << (8 * i)
		}
	}
	return v
}

func (m *model) uvarint() (v uint64) {
	for i := range 10 {
		b := m.bytes(1)
		if m.failed || i == 9 && b[0] > 1 {
			m.failed = true
			return 0
		}
		v |= uint64(b[0]&0x7f) << (7 * i)
		if b[0] < 0x80 {
			return v
		}
	}
	m.failed = true
	return 0
}

func TestHeaderAllocs(t *testing.T) {
	in := tile{Kind: 1, Temperature: -1, Offset: 1 << 40, Payload: make([]byte, 1000)}
	buf := make([]byte, 0, 2000)
	var out tile
	if n := testing.AllocsPerRun(100, func() {
		var err error
		if buf, err = in.Append(buf[:0]); err != nil {
			t.Fatal(err)
		}
		if err := out.Parse(buf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a header written and read", n)
	}
}

// The header of a native DATA message of 1,400 bytes.
func BenchmarkCursor(b *testing.B) {
	msg := make([]byte, 1400)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range msg {
		msg[i] = byte(r.Uint32())
	}
	b.ReportAllocs()
	var sum uint64
	for b.Loop() {
		c := framing.NewCursor(msg)
		sum += uint64(c.Uint8()) + c.Uint64() + uint64(c.Uint32()) + uint64(c.Uint8()) + uint64(c.Uint16()) + c.Uint(le, 6)
		if payload := c.Rest(); c.Err() != nil || len(payload) != 1378 {
			b.Fatal(c.Err())
		}
	}
	_ = sum
}

func BenchmarkAppend(b *testing.B) {
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		buf = append(buf[:0], 1)
		buf = binary.LittleEndian.AppendUint64(buf, 2)
		buf = binary.LittleEndian.AppendUint32(buf, 3)
		buf = append(buf, 4)
		buf = binary.LittleEndian.AppendUint16(buf, 5)
		buf = framing.AppendUint(buf, le, 6, 6)
	}
}
