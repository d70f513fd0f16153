package tcpx

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// scripted is a connection that gives bytes in pieces of its reader, and then ends.
type scripted struct {
	net.Conn
	io.Reader
}

func (s scripted) Read(p []byte) (int, error)    { return s.Reader.Read(p) }
func (scripted) SetReadDeadline(time.Time) error { return nil }

func scriptedReader(r io.Reader) *deviceReader { return newDeviceReader(scripted{Reader: r}, waits{}) }

// Whatever comes, a text is a beginning of it, and its pieces change nothing where
// the end is told by the bytes.
func FuzzSplit(f *testing.F) {
	splits := map[byte]splitFunc{
		0: literal(beginText), 1: splitTag, 2: splitCommand(nil), 3: splitCommand([]string{"weeding", "weed", "s", "stop"}),
		4: splitSource, 5: splitHeader, 6: splitNext,
	}
	for which, s := range map[byte]string{0: "begin to sendBM", 1: "cweeding", 2: "left", 3: "weedingfBM", 4: "visible|got", 5: "12|a.png", 6: "continue12|a.png"} {
		f.Add(which, []byte(s))
		f.Add(which, []byte(s[:3]))
		f.Add(byte(6), []byte("over"))
		f.Add(byte(5), []byte("over"))
	}
	f.Fuzz(func(t *testing.T, which byte, stream []byte) {
		split := splits[which%7]
		for _, paused := range []bool{false, true} {
			if len(stream) == 0 {
				break
			}
			if n, err := split(stream, paused); n < 0 || n > len(stream) {
				t.Fatalf("%d of %d bytes, %v", n, len(stream), err)
			}
		}
		whole := scriptedReader(bytes.NewReader(stream))
		text, err := whole.text(context.Background(), split)
		if err == nil && (text == "" || !strings.HasPrefix(string(stream), text)) || err != nil && text != "" {
			t.Fatalf("the text %q of %q, %v", text, stream, err)
		}
		if which%7 == 2 || which%7 == 5 && len(text) == len(stream) {
			return // the end of the text is that of what has come
		}
		pieces := scriptedReader(iotest.OneByteReader(bytes.NewReader(stream)))
		again, err2 := pieces.text(context.Background(), split)
		if err == nil && err2 == nil && text != again && which%7 != 3 {
			t.Fatalf("the text is %q at once and %q in pieces", text, again)
		}
	})
}

func FuzzFrameTexts(f *testing.F) {
	for _, s := range []string{"visible|got", "12|a.png", "0|x", "a|b|c", "|", "-1|a", "9223372036854775807|a", "9223372036854775808|a", "visible|..", "007|james.png"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s FrameSource
		if s.Parse(text) == nil {
			if b, err := s.Append([]byte("x")); err != nil || string(b) != "x"+string(text) {
				t.Fatalf("%q was read as %+v and written as %q, %v", text, s, b, err)
			}
			if strings.ContainsAny(s.Dir, `/\`) || s.Dir == ".." {
				t.Fatalf("the directory %q was taken", s.Dir)
			}
		}
		var h, again FrameHeader
		if h.Parse(text) == nil {
			b, err := h.Append(nil)
			if h.Size < 0 || err != nil || again.Parse(b) != nil || again != h {
				t.Fatalf("%q was read as %+v, written as %q, and read as %+v, %v", text, h, b, again, err)
			}
		}
	})
}

// Answers are counted the same in whatever pieces they come; anything else is an error.
func FuzzFrameAnswers(f *testing.F) {
	f.Add([]byte("okok"), uint8(1))
	f.Add([]byte("okno"), uint8(3))
	f.Add([]byte("oook"), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		count := func(n int) (int, bool) {
			a := &frameAnswers{changed: make(chan struct{})}
			for rest := data; len(rest) > 0; rest = rest[min(n, len(rest)):] {
				if !a.take(rest[:min(n, len(rest))], nil) {
					break
				}
			}
			return a.seen(), a.failed() != nil
		}
		oks := 0
		for bytes.HasPrefix(data[2*oks:], []byte("ok")) {
			oks++
		}
		rest := string(data[2*oks:])
		bad := rest != "" && rest != "o"
		for _, n := range []int{len(data) + 1, int(size) + 1, 1} {
			if got, failed := count(n); got != oks || failed != bad {
				t.Fatalf("%q in pieces of %d: %d oks, failed %v; want %d, %v", data, n, got, failed, oks, bad)
			}
		}
	})
}

// What frees a call whose context has ended does not free the next one.
func TestBoundedLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		sets := make(chan time.Time, 2)
		set := func(d time.Time) error {
			time.Sleep(time.Second)
			sets <- d
			return nil
		}
		n, err := bounded(ctx, time.Minute, set, func() (int, error) { cancel(); return 1, nil })
		if n != 1 || err != nil || len(sets) != 2 {
			t.Errorf("%d bytes, %v, with %d of 2 deadlines set", n, err, len(sets))
		}
	})
}

func TestTextEndsWithTheStream(t *testing.T) {
	for stream, want := range map[string]error{"": io.EOF, "begin": io.ErrUnexpectedEOF} {
		if _, err := scriptedReader(strings.NewReader(stream)).text(t.Context(), literal(beginText)); !errors.Is(err, want) {
			t.Errorf("text of %q: %v; want %v", stream, err, want)
		}
	}
}
