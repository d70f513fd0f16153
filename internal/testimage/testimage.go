// Package testimage draws pictures for examples, tests and benchmarks: real
// JPEG, PNG and BMP files with gradients, textures, edges, marks like writing
// and the noise of a sensor, so that they compress as photographs do. The same
// seed always gives the same picture.
package testimage

import (
	"bytes"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/bmp"
)

// JPEG returns a picture of w × h pixels, about a quarter byte for each.
func JPEG(seed uint64, w, h int) []byte { return encodeJPEG(seed, w, h, 90) }

func encodeJPEG(seed uint64, w, h, quality int) []byte {
	return encode(seed, w, h, func(w io.Writer, m image.Image) error {
		return jpeg.Encode(w, m, &jpeg.Options{Quality: quality})
	})
}

// PNG returns a picture of w × h pixels, about 2 bytes for each.
func PNG(seed uint64, w, h int) []byte { return encode(seed, w, h, png.Encode) }

// BMP returns a picture of w × h pixels: 54 bytes and 3 for each pixel, with
// rows rounded up to 4 bytes.
func BMP(seed uint64, w, h int) []byte { return encode(seed, w, h, bmp.Encode) }

// Sized returns a JPEG picture of about n bytes, within a tenth from 4 KB to
// 50 MB. Drawing takes about half a second for 1 MB.
func Sized(seed uint64, n int) []byte {
	const head = 600 // bytes of headers and tables, whatever the size
	for w := 160.0; ; {
		b := encodeJPEG(seed, int(w), int(w*3/4), 98)
		if off := math.Abs(float64(len(b))/float64(n) - 1); off < 0.1 || w <= 16 && len(b) > n {
			return b
		}
		w = max(16, w*math.Sqrt(max(float64(n)-head, 1)/float64(len(b)-head)))
	}
}

func encode(seed uint64, w, h int, enc func(io.Writer, image.Image) error) []byte {
	var buf bytes.Buffer
	if err := enc(&buf, Draw(seed, w, h)); err != nil {
		panic(err) // sizes below 1 or over the format's own limit
	}
	return buf.Bytes()
}

// Draw returns the picture itself.
func Draw(seed uint64, w, h int) *image.RGBA {
	s := newScene(seed, w, h)
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		row := m.Pix[y*m.Stride:]
		for x := range w {
			c := s.at(float64(x)/float64(h), float64(y)/float64(h))
			grain := s.noise.grain()
			for i, v := range c {
				row[4*x+i] = uint8(max(0, min(255, v+grain)))
			}
			row[4*x+3] = 255
		}
	}
	return m
}
