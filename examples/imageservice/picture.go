package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	_ "image/gif" // formats that are decoded
	"image/jpeg"
	_ "image/png"
	"net/http"

	_ "golang.org/x/image/bmp"
	_ "golang.org/x/image/webp"
)

const quality = 90

// toJPEG makes a JPEG of a JPEG, PNG, GIF (its first frame), BMP or WebP. Its errors are
// *problem.
func toJPEG(file []byte, maxPixels int) ([]byte, error) {
	config, format, err := image.DecodeConfig(bytes.NewReader(file))
	if err != nil {
		return nil, unusable("not a JPEG, PNG, GIF, BMP or WebP: %v", err)
	}
	w, h := config.Width, config.Height
	if format == "webp" {
		lw, lh := losslessSize(file)
		w, h = max(w, lw), max(h, lh)
	}
	if w < 1 || h < 1 || w > 1<<16-1 || h > 1<<16-1 || int64(w)*int64(h) > int64(maxPixels) {
		return nil, unusable("%d × %d pixels: at most %d, and 65,535 on each side, are possible", w, h, maxPixels)
	}
	if n := scans(file); format == "jpeg" && n > maxScans {
		return nil, unusable("a JPEG of %d scans: at most %d are decoded", n, maxScans)
	}
	m, _, err := image.Decode(bytes.NewReader(file))
	if err != nil {
		return nil, unusable("broken: %v", err)
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, flatten(m), &jpeg.Options{Quality: quality}); err != nil {
		return nil, unusable("it cannot be a JPEG: %v", err)
	}
	return out.Bytes(), nil
}

// flatten lays a picture on white, and gives it the colours that a JPEG can have.
func flatten(m image.Image) image.Image {
	switch m.(type) {
	case *image.YCbCr, *image.Gray:
		return m
	}
	canvas := image.NewRGBA(image.Rectangle{Max: m.Bounds().Size()})
	draw.Draw(canvas, canvas.Rect, image.NewUniform(color.White), image.Point{}, draw.Src)
	draw.Draw(canvas, canvas.Rect, m, m.Bounds().Min, draw.Over)
	return canvas
}

func unusable(format string, a ...any) error {
	return &problem{http.StatusUnprocessableEntity, fmt.Sprintf("the image: "+format, a...)}
}
