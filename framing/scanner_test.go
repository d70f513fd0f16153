package framing_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/pixferry/pixferry/framing"
)

// The frames of these tests: magic 2 or 3, payload length 1, payload, sum of
// the payload 1. Bytes of few values make false magics common.
func layout(magic string) framing.Layout {
	return framing.Layout{
		Magic:  magic,
		Header: len(magic) + 1,
		Size:   func(h []byte) int64 { return int64(len(h)) + int64(h[len(magic)]) + 1 },
		Valid: func(f []byte) bool {
			return sum(f[len(magic)+1:len(f)-1]) == f[len(f)-1]
		},
		Max: len(magic) + 1 + 100 + 1,
	}
}

func sum(b []byte) (s byte) {
	for _, x := range b {
		s += x
	}
	return s
}

func packed(magic, payload string) string {
	return magic + string(byte(len(payload))) + payload + string([]byte{sum([]byte(payload))})
}

// search is the model: it tries every position of the whole stream in turn.
func search(l framing.Layout, b []byte) (frames []string, skipped int64) {
	for at := 0; at < len(b); {
		h := b[at:]
		if bytes.HasPrefix(h, []byte(l.Magic)) && len(h) >= l.Header {
			n := l.Size(h[:l.Header])
			if n >= int64(l.Header) && n <= int64(l.Max) && n <= int64(len(h)) && (l.Valid == nil || l.Valid(h[:n])) {
				frames = append(frames, string(h[:n]))
				at += int(n)
				continue
			}
		}
		at++
		skipped++
	}
	return frames, skipped
}

func scan(r io.Reader, l framing.Layout) (frames []string, skipped int64, err error) {
	s := framing.NewScanner(r, l)
	for {
		f, err := s.Next()
		if err != nil {
			return frames, s.Skipped(), err
		}
		frames = append(frames, string(f))
	}
}

// pieces gives r in reads of sizes that the seed chooses, some of them empty.
type pieces struct {
	r    io.Reader
	rand *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	n := p.rand.IntN(12)
	if n == 0 {
		return 0, nil
	}
	return p.r.Read(b[:min(n, len(b))])
}

var streams = []struct {
	name, stream string
	frames       []string
	skipped      int64
}{
	{"nothing", "", nil, 0},
	{"one", packed("ab", "hello"), []string{packed("ab", "hello")}, 0},
	{"empty payloads", packed("ab", "") + packed("ab", ""), []string{packed("ab", ""), packed("ab", "")}, 0},
	{"garbage around", "xxa" + packed("ab", "1") + "aa" + packed("ab", "2") + "a", []string{packed("ab", "1"), packed("ab", "2")}, 6},
	{"magic before magic", "ab" + packed("ab", "1"), []string{packed("ab", "1")}, 2},
	{"magic's start before magic", "aaa" + packed("ab", "1"), []string{packed("ab", "1")}, 3},
	{"good inside bad", "ab\x0a" + packed("ab", "good") + "tail", []string{packed("ab", "good")}, 7},
	{"good inside one cut off by the end", "ab\x60" + packed("ab", "good"), []string{packed("ab", "good")}, 3},
	{"good frame that holds one", packed("ab", "in"+packed("ab", "ner")), []string{packed("ab", "in"+packed("ab", "ner"))}, 0},
	{"over the limit", "ab\x65" + packed("ab", "1"), []string{packed("ab", "1")}, 3},
	{"at the limit", packed("ab", strings.Repeat("z", 100)), []string{packed("ab", strings.Repeat("z", 100))}, 0},
	{"wrong sum", "ab\x03xyz!" + packed("ab", "1"), []string{packed("ab", "1")}, 7},
	{"cut off in the header", packed("ab", "1") + "ab", []string{packed("ab", "1")}, 2},
	{"cut off in the payload", packed("ab", "1") + "ab\x05xx", []string{packed("ab", "1")}, 5},
}

func TestScanner(t *testing.T) {
	for _, tt := range streams {
		for how, r := range map[string]io.Reader{
			"at once":         strings.NewReader(tt.stream),
			"byte by byte":    iotest.OneByteReader(strings.NewReader(tt.stream)),
			"EOF with a byte": iotest.DataErrReader(strings.NewReader(tt.stream)),
			"in pieces":       &pieces{strings.NewReader(tt.stream), rand.New(rand.NewPCG(1, 1))},
		} {
			frames, skipped, err := scan(r, layout("ab"))
			if fmt.Sprintf("%q", frames) != fmt.Sprintf("%q", tt.frames) || skipped != tt.skipped || !errors.Is(err, io.EOF) {
				t.Errorf("%s, %s: %q, skipped %d, %v; want %q, skipped %d", tt.name, how, frames, skipped, err, tt.frames, tt.skipped)
			}
		}
	}
}

// A good stream cut at every byte gives the frames before the cut.
func TestScannerTruncated(t *testing.T) {
	a, b := packed("ab", "first"), packed("ab", "second")
	for n := range len(a) + len(b) {
		frames, skipped, err := scan(strings.NewReader((a + b)[:n]), layout("ab"))
		want, left := 0, n
		if n >= len(a) {
			want, left = 1, n-len(a)
		}
		if len(frames) != want || skipped != int64(left) || !errors.Is(err, io.EOF) {
			t.Errorf("cut after %d: %q, skipped %d, %v", n, frames, skipped, err)
		}
	}
}

func TestScannerOddLayouts(t *testing.T) {
	for _, tt := range []struct {
		name string
		l    framing.Layout
		in   string
		want string
	}{
		{"no check", framing.Layout{Magic: "#", Header: 2, Size: func(h []byte) int64 { return int64(h[1] - '0') }},
			"x#4ab#3c#1#0#9", `["#4ab" "#3c"]`}, // 1 and 0 are shorter than the header, 9 is cut off
		{"header of the magic alone", framing.Layout{Magic: "tick", Size: func([]byte) int64 { return 4 }},
			"ticktitick", `["tick" "tick"]`},
		{"no magic", framing.Layout{Size: func(h []byte) int64 { return int64(h[0] - '0') }},
			"2a0-3bc", `["2a" "3bc"]`},
		{"absurd sizes", framing.Layout{Magic: "m", Header: 2, Size: func(h []byte) int64 {
			if h[1] == '-' {
				return -1 << 63
			}
			return 1<<63 - 1
		}}, "m-m+m", `[]`},
	} {
		frames, skipped, err := scan(strings.NewReader(tt.in), tt.l)
		if fmt.Sprintf("%q", frames) != tt.want || !errors.Is(err, io.EOF) || int(skipped)+len(strings.Join(frames, "")) != len(tt.in) {
			t.Errorf("%s: %q, skipped %d, %v; want %s", tt.name, frames, skipped, err, tt.want)
		}
	}
}

// TestScannerRandom sends hostile mixtures in random pieces. The seed replays.
func TestScannerRandom(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 0))
		magic := []string{"ab", "aa", "aab"}[r.IntN(3)]
		ops := make([]byte, r.IntN(200))
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		compare(t, fmt.Sprintf("seed %d", seed), magic, mixture(magic, ops), seed)
	}
}

func compare(t *testing.T, name, magic string, stream []byte, seed uint64) {
	t.Helper()
	l := layout(magic)
	want, wantSkipped := search(l, stream)
	in := &pieces{bytes.NewReader(stream), rand.New(rand.NewPCG(seed, 1))}
	got, skipped, err := scan(in, l)
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) || skipped != wantSkipped || !errors.Is(err, io.EOF) {
		t.Fatalf("%s: %q, skipped %d, %v; want %q, skipped %d; stream %q", name, got, skipped, err, want, wantSkipped, stream)
	}
}

// mixture makes a stream: each byte of ops adds something good or bad.
func mixture(magic string, ops []byte) (b []byte) {
	for _, op := range ops {
		n := int(op >> 3)
		payload := strings.Repeat(magic, n/2) + strings.Repeat("a", n%2)
		switch op & 7 {
		case 0, 1:
			b = append(b, packed(magic, payload)...)
		case 2: // cut off
			f := packed(magic, payload)
			b = append(b, f[:len(f)-1-n%len(f)/2]...)
		case 3: // a length that reaches over what follows
			b = append(b, magic...)
			b = append(b, byte(n*8))
		case 4: // one byte changed
			f := []byte(packed(magic, payload))
			f[n%len(f)]++
			b = append(b, f...)
		case 5: // a frame in a frame
			b = append(b, packed(magic, packed(magic, payload[:min(n, 40)]))...)
		case 6:
			b = append(b, magic[:1+n%len(magic)]...)
		case 7:
			b = append(b, byte(n))
		}
	}
	return b
}

func FuzzScanner(f *testing.F) {
	f.Add(true, uint64(1), []byte{0, 0x19, 0x22, 0x1b, 0x24, 0x2d, 0x0e, 0x17, 0x41, 0x40})
	for i, tt := range streams {
		f.Add(false, uint64(i), []byte(tt.stream))
	}
	f.Fuzz(func(t *testing.T, mixed bool, seed uint64, stream []byte) {
		magic := []string{"ab", "aa", "aab"}[seed%3]
		if mixed {
			stream = mixture(magic, stream)
		}
		compare(t, "fuzz", magic, stream, seed)
	})
}

// steps gives each string, or error, in a Read of its own.
type steps []any

func (s *steps) Read(b []byte) (int, error) {
	if len(*s) == 0 {
		return 0, io.EOF
	}
	step := (*s)[0]
	*s = (*s)[1:]
	switch step := step.(type) {
	case string:
		return copy(b, step), nil
	case withError:
		return copy(b, step.data), step.err
	default:
		return 0, step.(error)
	}
}

type withError struct {
	data string
	err  error
}

func TestScannerDeadline(t *testing.T) {
	timeout := fmt.Errorf("read tcp: %w", os.ErrDeadlineExceeded)
	f := packed("ab", "hello")
	r := &steps{timeout, "xx" + f[:3], timeout, withError{f[3:5], timeout}, timeout, withError{f[5:] + f, timeout}}
	s := framing.NewScanner(r, layout("ab"))
	var got []string
	for range 6 {
		frame, err := s.Next()
		got = append(got, fmt.Sprintf("%s %v", frame, err != nil && errors.Is(err, os.ErrDeadlineExceeded)))
	}
	if want := []string{" true", " true", " true", f + " false", f + " false", " false"}; fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("%q, want %q", got, want)
	}
	if s.Skipped() != 2 {
		t.Errorf("skipped %d, want 2", s.Skipped())
	}
}

func TestScannerErrorComesLastAndStays(t *testing.T) {
	broken := errors.New("cable broken")
	good := packed("ab", "good")
	r := &steps{withError{"ab\x60" + good + "ab\x03x", broken}, packed("ab", "from the dead")}
	s := framing.NewScanner(r, layout("ab"))
	if frame, err := s.Next(); string(frame) != good || err != nil {
		t.Fatalf("%q, %v, want the good frame", frame, err)
	}
	for range 3 {
		if frame, err := s.Next(); frame != nil || !errors.Is(err, broken) {
			t.Fatalf("%q, %v, want the reader's error", frame, err)
		}
	}
	if s.Skipped() != 7 {
		t.Errorf("skipped %d, want 7", s.Skipped())
	}
}

// A frame must be returned when its last byte is there, before the next Read.
func TestScannerDoesNotWait(t *testing.T) {
	r, w := io.Pipe()
	defer r.Close()
	go func() {
		for range 3 {
			if _, err := w.Write([]byte("noise" + packed("ab", "now"))); err != nil {
				return
			}
		}
	}() // and never closes it
	s := framing.NewScanner(r, layout("ab"))
	done := make(chan error, 1)
	go func() {
		for range 3 {
			if _, err := s.Next(); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Next waits for bytes that it does not need")
	}
}

func TestScannerMemory(t *testing.T) {
	const limit = 1 << 20
	l := framing.Layout{Magic: "ab", Header: 3, Max: limit, Size: func([]byte) int64 { return limit }, Valid: func([]byte) bool { return false }}
	held := 0 // at most what has come, and never more than the limit
	r := &offers{
		r:    io.MultiReader(strings.NewReader("ab"), bytes.NewReader(make([]byte, limit-3)), strings.NewReader("ab"), bytes.NewReader(make([]byte, 2*limit))),
		most: func(offered, got int) bool { held = max(held, offered); return offered <= min(got, limit)+4<<10 },
		fail: func(offered, got int) { t.Errorf("%d bytes of memory taken when %d had come", offered, got) },
	}
	if frames, skipped, err := scan(r, l); frames != nil || !errors.Is(err, io.EOF) || skipped != 3*limit+1 {
		t.Errorf("%d frames, skipped %d, %v", len(frames), skipped, err)
	}
	if held < limit/4 {
		t.Errorf("at most %d bytes stood ready: this test shows nothing", held)
	}
}

func TestScannerAllocs(t *testing.T) {
	l := layout("ab")
	s := framing.NewScanner(&endless{b: []byte("noise" + packed("ab", strings.Repeat("x", 90)) + "ab\x09" + packed("ab", "inner"))}, l)
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a frame", n)
	}
}

func BenchmarkScanner(b *testing.B) {
	frame, err := (&tile{Payload: numbered(1000)}).Append(nil)
	if err != nil {
		b.Fatal(err)
	}
	s := framing.NewScanner(&endless{b: append(frame, "some noise"...)}, framing.Layout{
		Magic: tileMagic, Header: tileHeader, Max: tileHeader + 1024 + 4,
		Size: func(h []byte) int64 { return tileHeader + int64(h[13])<<8 + int64(h[14]) + 4 },
		Valid: func(f []byte) bool {
			_, err := framing.TrimCRC32C(f)
			return err == nil
		},
	})
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Next(); err != nil {
			b.Fatal(err)
		}
	}
}
