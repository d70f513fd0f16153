package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"slices"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
)

// scene is an opaque left half and a clear right half.
func scene(w, h int) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w / 2 {
			m.SetNRGBA(x, y, color.NRGBA{200, 30, 60, 255})
		}
	}
	return m
}

func encoded(t *testing.T, format string, m image.Image) []byte {
	var b bytes.Buffer
	var err error
	switch format {
	case "png":
		err = png.Encode(&b, m)
	case "jpeg":
		err = jpeg.Encode(&b, m, nil)
	case "gif":
		err = gif.Encode(&b, m, nil)
	case "bmp":
		err = bmp.Encode(&b, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// webp is a WebP of 1 × 1 pixels, clear.
var webp, _ = base64.StdEncoding.DecodeString("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")

func near(a, b color.Color) bool {
	r1, g1, b1, _ := a.RGBA()
	r2, g2, b2, _ := b.RGBA()
	for _, d := range []int{int(r1) - int(r2), int(g1) - int(g2), int(b1) - int(b2)} {
		if max(d, -d) > 24<<8 {
			return false
		}
	}
	return true
}

func TestToJPEG(t *testing.T) {
	red, white, half := color.NRGBA{200, 30, 60, 255}, color.White, color.NRGBA{227, 142, 157, 255}
	palette := image.NewPaletted(image.Rect(0, 0, 32, 16), color.Palette{red, color.Transparent})
	translucent := image.NewNRGBA(image.Rect(0, 0, 32, 16))
	wide := image.NewNRGBA64(image.Rect(0, 0, 32, 16))
	for y := range 16 {
		for x := range 32 {
			palette.SetColorIndex(x, y, uint8(x/16))
			translucent.SetNRGBA(x, y, color.NRGBA{200, 30, 60, 128})
			wide.Set(x, y, red)
		}
	}
	shifted := scene(40, 20).SubImage(image.Rect(4, 2, 36, 18))
	for name, tt := range map[string]struct {
		file        []byte
		left, right color.Color
	}{
		"PNG with alpha":     {encoded(t, "png", scene(32, 16)), red, white},
		"translucent PNG":    {encoded(t, "png", translucent), half, half},
		"PNG with a palette": {encoded(t, "png", palette), red, white},
		"PNG of 16 bits":     {encoded(t, "png", wide), red, red},
		"part of a PNG":      {encoded(t, "png", shifted), red, white},
		"GIF":                {encoded(t, "gif", palette), red, white},
		"BMP":                {encoded(t, "bmp", flatten(scene(32, 16))), red, white},
		"JPEG":               {encoded(t, "jpeg", flatten(scene(32, 16))), red, white},
		"grey JPEG":          {encoded(t, "jpeg", image.NewGray(image.Rect(0, 0, 32, 16))), color.Black, color.Black},
	} {
		out, err := toJPEG(tt.file, 32*16)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m, err := jpeg.Decode(bytes.NewReader(out))
		if err != nil || m.Bounds() != image.Rect(0, 0, 32, 16) {
			t.Errorf("%s: %v, %v", name, m.Bounds(), err)
			continue
		}
		if l, r := m.At(4, 8), m.At(27, 8); !near(l, tt.left) || !near(r, tt.right) {
			t.Errorf("%s: the colours are %v and %v, want %v and %v", name, l, r, tt.left, tt.right)
		}
	}
	out, err := toJPEG(webp, 1)
	if err != nil {
		t.Fatal("WebP:", err)
	}
	if m, err := jpeg.Decode(bytes.NewReader(out)); err != nil || !near(m.At(0, 0), white) {
		t.Errorf("WebP: %v, %v", m, err)
	}
}

func TestToJPEGRefuses(t *testing.T) {
	whole := encoded(t, "png", scene(100, 100))
	bomb := bytes.Clone(whole)
	copy(bomb[16:], []byte{0, 0, 0x3e, 0x80, 0, 0, 0x3e, 0x80}) // 16,000 × 16,000 by its head
	binary.BigEndian.PutUint32(bomb[29:], crc32.ChecksumIEEE(bomb[12:29]))
	if _, err := toJPEG(bomb, 100*100); err == nil || !strings.Contains(err.Error(), "16000 × 16000 pixels") {
		t.Errorf("a bomb: %v", err)
	}
	for name, file := range map[string][]byte{
		"empty": nil, "text": []byte("<html>not found</html>"), "cut": whole[:len(whole)/2], "head alone": whole[:20], "bomb": bomb,
		"too many pixels": encoded(t, "png", scene(101, 100)),
	} {
		if _, err := toJPEG(file, 100*100); status(err) != 422 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := toJPEG(whole, 100*100); err != nil {
		t.Error(err)
	}
}

// withScans is a JPEG whose only scan comes again and again.
func withScans(t *testing.T, n int) []byte {
	file := encoded(t, "jpeg", image.NewGray(image.Rect(0, 0, 16, 16)))
	at := bytes.Index(file, []byte{0xff, 0xda})
	scan := file[at : len(file)-2]
	return slices.Concat(file[:at], bytes.Repeat(scan, n), file[len(file)-2:])
}

func TestScansAreBounded(t *testing.T) {
	if _, err := toJPEG(withScans(t, maxScans), 256); err != nil {
		t.Error(err)
	}
	if _, err := toJPEG(withScans(t, maxScans+1), 256); status(err) != 422 || !strings.Contains(err.Error(), "101 scans") {
		t.Errorf("%d scans: %v", maxScans+1, err)
	}
	// What looks like a scan in a segment, in a scan, or behind the end, is none.
	file := withScans(t, 1)
	inSegment := slices.Concat(file[:2], []byte{0xff, 0xe1, 0, 6}, []byte{0xff, 0xda, 0xff, 0xda}, file[2:])
	for name, f := range map[string][]byte{
		"a segment": inSegment, "behind the end": append(bytes.Clone(file), 0xff, 0xda, 0, 2, 0, 0),
		"fill bytes": slices.Concat(file[:2], []byte{0xff, 0xff, 0xff}, file[2:]), "restarts": {0xff, 0xd8, 0xff, 0xda, 0, 2, 0xff, 0, 0xff, 0xd0, 0xff, 0xd9},
	} {
		if n := scans(f); n != 1 {
			t.Errorf("%s: %d scans", name, n)
		}
	}
	for n := range file { // however it is cut
		scans(file[:n])
	}
}

// A WebP whose canvas is smaller than the picture in it.
func TestSmallCanvasIsNoWayAround(t *testing.T) {
	canvas := []byte("VP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	odd := []byte("EXIF\x01\x00\x00\x00x\x00")
	picture := bytes.Clone(webp[12:])
	binary.LittleEndian.PutUint32(picture[9:], 16383|16383<<14)
	bomb := slices.Concat([]byte("RIFF\x00\x00\x00\x00WEBP"), canvas, odd, picture)
	binary.LittleEndian.PutUint32(bomb[4:], uint32(len(bomb)-8))
	if _, err := toJPEG(bomb, 1000); status(err) != 422 || !strings.Contains(err.Error(), "16384 × 16384 pixels") {
		t.Errorf("%d bytes: %v", len(bomb), err)
	}
	for n := range bomb { // however it is cut
		losslessSize(bomb[:n])
	}
}
