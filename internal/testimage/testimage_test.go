package testimage_test

import (
	"bytes"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"testing"

	_ "golang.org/x/image/bmp"

	"github.com/pixferry/pixferry/internal/testimage"
)

func TestFormats(t *testing.T) {
	for format, draw := range map[string]func(uint64, int, int) []byte{"jpeg": testimage.JPEG, "png": testimage.PNG, "bmp": testimage.BMP} {
		for _, size := range []image.Point{{1, 1}, {3, 200}, {320, 240}} {
			b := draw(7, size.X, size.Y)
			m, got, err := image.Decode(bytes.NewReader(b))
			if err != nil || got != format || m.Bounds().Size() != size {
				t.Fatalf("%s %v: decodes as %s, %v", format, size, got, err)
			}
			if !bytes.Equal(b, draw(7, size.X, size.Y)) {
				t.Errorf("%s %v: one seed gave two pictures", format, size)
			}
			if size.X > 1 && bytes.Equal(b, draw(8, size.X, size.Y)) {
				t.Errorf("%s %v: two seeds gave one picture", format, size)
			}
		}
	}
}

// A photograph needs 0.1 to 0.8 bytes a pixel as JPEG of this quality, and PNG
// saves no more than two thirds of it.
func TestCompressesLikeAPhotograph(t *testing.T) {
	const w, h = 800, 600
	for seed := range uint64(4) {
		if n := len(testimage.JPEG(seed, w, h)); n < w*h/10 || n > w*h*8/10 {
			t.Errorf("seed %d: JPEG of %.2f bytes a pixel", seed, float64(n)/(w*h))
		}
		if n := len(testimage.PNG(seed, w, h)); n < w*h || n > 3*w*h {
			t.Errorf("seed %d: PNG of %.2f bytes a pixel", seed, float64(n)/(w*h))
		}
	}
}

func TestSized(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 4 << 10, 100_000, 1 << 20} {
		b := testimage.Sized(uint64(n), n)
		if _, _, err := image.DecodeConfig(bytes.NewReader(b)); err != nil {
			t.Errorf("%d: %v", n, err)
		}
		if n >= 4<<10 && (len(b) < n*9/10 || len(b) > n*11/10) {
			t.Errorf("asked for %d bytes, got %d", n, len(b))
		}
	}
}
