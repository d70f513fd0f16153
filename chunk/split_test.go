package chunk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// gather joins chunks and checks offsets, sizes and the mark of the last one.
func gather(t *testing.T, chunkSize int, chunks func(func(Chunk, error) bool)) ([]byte, error) {
	t.Helper()
	var out []byte
	last := false
	for c, err := range chunks {
		if err != nil {
			return out, err
		}
		if last {
			t.Fatal("a chunk after the last")
		}
		if c.Offset != int64(len(out)) {
			t.Fatalf("chunk at %d, want %d", c.Offset, len(out))
		}
		if len(c.Data) == 0 || len(c.Data) > chunkSize || len(c.Data) < chunkSize && !c.Last {
			t.Fatalf("a chunk of %d bytes, last %v", len(c.Data), c.Last)
		}
		last = c.Last
		out = append(out, c.Data...)
		clear(c.Data[:cap(c.Data)]) // the loop owns it until its next turn
	}
	if last != (len(out) > 0) {
		t.Fatalf("%d bytes, last chunk seen: %v", len(out), last)
	}
	return out, nil
}

func TestSplitSizes(t *testing.T) {
	for _, chunkSize := range []int{1, 7, 1024, 1400} {
		for _, size := range []int{0, 1, 2, chunkSize - 1, chunkSize, chunkSize + 1, 3*chunkSize - 1, 3 * chunkSize, 3*chunkSize + 1} {
			data := pattern(size)
			sources := map[string]io.Reader{
				"plain":    bytes.NewReader(data),
				"one byte": iotest.OneByteReader(bytes.NewReader(data)),
				"data+EOF": iotest.DataErrReader(bytes.NewReader(data)),
				"half":     iotest.HalfReader(bytes.NewReader(data)),
			}
			for name, r := range sources {
				stated := int64(size)
				if name == "half" || name == "data+EOF" {
					stated = -1
				}
				got, err := gather(t, chunkSize, Split(r, stated, chunkSize))
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("Split %s: size %d, chunks of %d: %d bytes, %v", name, size, chunkSize, len(got), err)
				}
			}
			s := &Splitter{bytes.NewReader(data), int64(size), chunkSize}
			got, err := gather(t, chunkSize, s.All())
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("Splitter: size %d, chunks of %d: %d bytes, %v", size, chunkSize, len(got), err)
			}
		}
	}
}

func TestSplitWrongSize(t *testing.T) {
	for _, chunkSize := range []int{1, 10, 100} {
		for _, size := range []int64{0, 1, 9, 10, 11, 29, 30, 31} {
			for off := int64(-1); off <= 1; off++ {
				want := map[int64]error{-1: ErrSourceLong, 1: ErrSourceShort}[off]
				if size+off < 0 {
					continue
				}
				data := pattern(int(size))
				s := &Splitter{bytes.NewReader(data), size + off, chunkSize}
				for name, chunks := range map[string]func(func(Chunk, error) bool){
					"Splitter": s.All(),
					"Split":    Split(bytes.NewReader(data), size+off, chunkSize),
				} {
					if _, err := gather(t, chunkSize, chunks); !errors.Is(err, want) {
						t.Errorf("%s of %d bytes stated as %d by %d: %v, want %v", name, size, size+off, chunkSize, err, want)
					}
				}
			}
		}
	}
}

func TestSplitterRandomAccess(t *testing.T) {
	data := pattern(3500)
	s := &Splitter{bytes.NewReader(data), int64(len(data)), 1000}
	got := make([]byte, len(data))
	buf := make([]byte, 1000)
	for _, i := range []int64{3, 0, 2, 1, 1} {
		c, err := s.Read(i, buf)
		if err != nil || c.Offset != i*1000 || c.Last != (i == 3) || &c.Data[0] != &buf[0] {
			t.Fatalf("chunk %d: at %d, last %v, %v", i, c.Offset, c.Last, err)
		}
		copy(got[c.Offset:], c.Data)
	}
	if !bytes.Equal(got, data) {
		t.Error("content differs")
	}
	for _, i := range []int64{-1, 4, 1 << 62} {
		if _, err := s.Read(i, buf); err == nil {
			t.Errorf("chunk %d of 4 was read", i)
		}
	}
	if c, err := s.Read(0, nil); err != nil || !bytes.Equal(c.Data, data[:1000]) {
		t.Errorf("without a buffer: %v", err)
	}
}

// A source that reports io.ErrUnexpectedEOF, as a truncated HTTP body does, was not read whole.
func TestSplitPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	for _, want := range []error{io.ErrUnexpectedEOF, broken} {
		for _, n := range []int{0, 5, 10, 11, 15} {
			r := io.MultiReader(bytes.NewReader(pattern(n)), iotest.ErrReader(want))
			if _, err := gather(t, 10, Split(r, -1, 10)); !errors.Is(err, want) {
				t.Errorf("after %d bytes: %v, want %v", n, err, want)
			}
			// The error comes with the last bytes and never again.
			once := &dataThenErr{data: pattern(n), err: want}
			if _, err := gather(t, 10, Split(once, -1, 10)); !errors.Is(err, want) {
				t.Errorf("with the last of %d bytes: %v, want %v", n, err, want)
			}
		}
	}
	stuck := readerFunc(func([]byte) (int, error) { return 0, nil })
	if _, err := gather(t, 10, Split(stuck, -1, 10)); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader without progress: %v", err)
	}
	at := readerAtFunc(func([]byte, int64) (int, error) { return 0, broken })
	if _, err := gather(t, 10, (&Splitter{at, 5, 10}).All()); !errors.Is(err, broken) {
		t.Errorf("Splitter: %v", err)
	}
	if _, err := gather(t, 10, (&Splitter{at, 0, 10}).All()); !errors.Is(err, broken) {
		t.Errorf("Splitter of nothing: %v", err)
	}
	turns := 0
	for range (&Splitter{at, 25, 10}).All() { // whoever goes on after an error
		turns++
	}
	if turns != 1 {
		t.Errorf("Splitter: %d turns, the first of them with an error", turns)
	}
	silent := readerAtFunc(func(p []byte, _ int64) (int, error) { return len(p) - 1, nil })
	if err := ReadFullAt(silent, make([]byte, 5), 7); !errors.Is(err, ErrSourceShort) {
		t.Errorf("a source that gives less than was asked for, and no error: %v", err)
	}
}

func TestSplitBadSizes(t *testing.T) {
	for _, n := range []int{-1, 0, maxChunk + 1} {
		s := &Splitter{strings.NewReader("x"), 1, n}
		if _, err := gather(t, 1, s.All()); err == nil || s.Count() != 0 {
			t.Errorf("Splitter took a chunk size of %d", n)
		}
		if _, err := gather(t, 1, Split(strings.NewReader("x"), 1, n)); err == nil {
			t.Errorf("Split took a chunk size of %d", n)
		}
	}
	if _, err := gather(t, 1, (&Splitter{strings.NewReader("x"), -1, 1}).All()); err == nil {
		t.Error("Splitter took a negative size")
	}
}

func TestSplitStopsEarly(t *testing.T) {
	data := pattern(100)
	n := 0
	for range Split(bytes.NewReader(data), 100, 10) {
		if n++; n == 3 {
			break
		}
	}
	for range (&Splitter{bytes.NewReader(data), 100, 10}).All() {
		if n++; n == 6 {
			break
		}
	}
	if n != 6 {
		t.Errorf("%d turns", n)
	}
}

func TestSplitAllocatesPerImageOnly(t *testing.T) {
	data := pattern(100_000)
	count := func(chunkSize int) float64 {
		return testing.AllocsPerRun(10, func() {
			for range (&Splitter{bytes.NewReader(data), int64(len(data)), chunkSize}).All() {
			}
			for range Split(bytes.NewReader(data), int64(len(data)), chunkSize) {
			}
		})
	}
	if few, many := count(100_000), count(100); many > few {
		t.Errorf("%v allocations for 1 chunk, %v for 1000", few, many)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type readerAtFunc func([]byte, int64) (int, error)

func (f readerAtFunc) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

// dataThenErr returns an error together with the last of its bytes, and io.EOF from then on.
type dataThenErr struct {
	data []byte
	err  error
}

func (r *dataThenErr) Read(p []byte) (int, error) {
	n := copy(p, r.data)
	r.data = r.data[n:]
	if len(r.data) > 0 {
		return n, nil
	}
	err := r.err
	r.err = io.EOF
	return n, err
}

// pattern returns n bytes without a short period.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(n) | 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// "an io.ErrUnexpectedEOF of r means that r was cut, and must not look like the end of an image"
func TestReadFull(t *testing.T) {
	wrapped := fmt.Errorf("lost: %w", io.EOF)
	for name, c := range map[string]struct {
		r    io.Reader
		n    int
		want error
	}{
		"full":                {strings.NewReader("0123456789"), 8, nil},
		"end":                 {strings.NewReader("0123"), 4, io.EOF},
		"nothing":             {strings.NewReader(""), 0, io.EOF},
		"byte by byte":        {iotest.OneByteReader(strings.NewReader("0123456789")), 8, nil},
		"end with the bytes":  {iotest.DataErrReader(strings.NewReader("01234567")), 8, nil},
		"cut":                 {io.MultiReader(strings.NewReader("0123"), iotest.ErrReader(io.ErrUnexpectedEOF)), 4, io.ErrUnexpectedEOF},
		"cut with the bytes":  {iotest.DataErrReader(io.MultiReader(strings.NewReader("01234567"), iotest.ErrReader(io.ErrUnexpectedEOF))), 8, io.ErrUnexpectedEOF},
		"failed":              {io.MultiReader(strings.NewReader("0123"), iotest.ErrReader(wrapped)), 4, wrapped},
		"a reader that rests": {iotest.ErrReader(nil), 0, io.ErrNoProgress},
	} {
		p := make([]byte, 8)
		if n, err := ReadFull(c.r, p); n != c.n || err != c.want {
			t.Errorf("%s: %d bytes, %v; want %d, %v", name, n, err, c.n, c.want)
		}
	}
}
