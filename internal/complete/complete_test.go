package complete

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/pixferry/pixferry/internal/testimage"
)

// check feeds b in pieces of n bytes.
func check(b []byte, n int) error {
	var c Checker
	for piece := range slices.Chunk(b, n) {
		c.Write(piece)
	}
	return c.Err()
}

func webp() []byte {
	b := []byte("RIFF\x00\x00\x00\x00WEBPVP8 \x0c\x00\x00\x00some bytes..")
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-8))
	return b
}

// withThumbnail puts a whole small JPEG into an APP1 segment behind SOI, as
// cameras do: its EOI is not the picture's.
func withThumbnail(b, thumb []byte) []byte {
	head := []byte{0xff, 0xd8, 0xff, 0xff, 0xe1, 0, 0} // with a fill byte
	binary.BigEndian.PutUint16(head[5:], uint16(2+len(thumb)))
	return slices.Concat(head, thumb, b[2:])
}

func pictures() map[string][]byte {
	jpg := testimage.JPEG(1, 64, 48)
	return map[string][]byte{
		"bmp": testimage.BMP(1, 31, 17), "png": testimage.PNG(1, 31, 17), "jpeg": jpg, "webp": webp(),
		"jpeg with a thumbnail": withThumbnail(jpg, testimage.JPEG(2, 8, 8)),
	}
}

// Every picture is whole, with bytes behind it too, and every cut of it is told,
// however the bytes come.
func TestEveryCutIsTold(t *testing.T) {
	for name, b := range pictures() {
		for _, n := range []int{1, 2, 3, 7, 1024, len(b) + 100} {
			if err := check(b, n); err != nil {
				t.Errorf("%s in pieces of %d: %v", name, n, err)
			}
			if err := check(append(b[:len(b):len(b)], "and more"...), n); err != nil {
				t.Errorf("%s with bytes behind it, in pieces of %d: %v", name, n, err)
			}
		}
		for cut := 3; cut < len(b); cut++ {
			for _, n := range []int{5, len(b)} {
				if err := check(b[:cut], n); err == nil {
					t.Fatalf("%s cut to %d of %d bytes passes for whole", name, cut, len(b))
				}
			}
		}
	}
}

// An image has ended if there is nothing behind it but what cameras fill their buffers with.
func TestEnded(t *testing.T) {
	for name, b := range pictures() {
		for behind, want := range map[string]bool{"": true, "\x00": true, "\xff\xff\x00": true, "\x00\x00x": false, "\xfe\x00\x00": false} {
			for _, n := range []int{1, 2, 7, len(b) - 1, len(b) + 100} {
				var c Checker
				for piece := range slices.Chunk(append(b[:len(b):len(b)], behind...), n) {
					c.Write(piece)
				}
				if c.Ended() != want {
					t.Errorf("%s and %q, in pieces of %d: has ended %v", name, behind, n, !want)
				}
			}
		}
		var c Checker
		if c.Write(b[:len(b)-1]); c.Ended() {
			t.Errorf("%s, cut, has ended", name)
		}
	}
}

func TestUnknownFormatsCannotBeTold(t *testing.T) {
	for _, s := range []string{"", "B", "\x89", "some raw bytes", "BM\x00\x00\x00\x00 no size", "\xff\xd8 no JPEG", "\x89PIG is no PNG", "RIFF\x00\x00\x00\x00WAVE", "RIP and rest"} {
		if err := check([]byte(s), 1); err != nil {
			t.Errorf("%q: %v; want nil, for it is of no known format", s, err)
		}
	}
}

func TestDamage(t *testing.T) {
	for _, s := range []string{"\xff\xd8\xff\xe0\x00\x01", "\x89PNG\r\n\x1a\n\xff\xff\xff\xffIDAT"} {
		if err := check([]byte(s), 1); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%q: %v; want an error that says damaged", s, err)
		}
	}
}

// The pieces do not matter, and neither does what the bytes say.
func FuzzChecker(f *testing.F) {
	for _, b := range pictures() {
		f.Add(b[:min(len(b), 600)], uint16(7))
		f.Add(b[max(0, len(b)-600):], uint16(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		whole, pieces := check(b, len(b)+1), check(b, int(n)+1)
		if (whole == nil) != (pieces == nil) || whole != nil && whole.Error() != pieces.Error() {
			t.Fatalf("at once: %v; in pieces of %d: %v", whole, n+1, pieces)
		}
		if magic := []string{"BM", "\xff\xd8\xff", "\x89PNG", "RIFF"}; whole != nil && !slices.ContainsFunc(magic, func(m string) bool {
			return bytes.HasPrefix(b, []byte(m)[:min(2, len(m))])
		}) {
			t.Fatalf("%v, for bytes without a magic", whole)
		}
	})
}
