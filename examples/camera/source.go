package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"iter"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// maxFrame is the largest frame that is taken from a stream, in bytes.
const maxFrame = 32 << 20

// frames is the source that the options name.
func (o options) frames(ctx context.Context, stdin io.Reader) (iter.Seq2[[]byte, error], error) {
	switch {
	case o.dir != "":
		return o.fromDir(ctx)
	case o.stdin:
		return jpegs(stdin), nil
	case o.mjpeg != "":
		return fromHTTP(ctx, o.mjpeg)
	}
	return o.pattern(ctx), nil
}

// paced yields what next makes, fps times a second.
func (o options) paced(ctx context.Context, next func(n int) ([]byte, error)) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		tick := time.NewTicker(time.Duration(float64(time.Second) / o.fps))
		defer tick.Stop()
		for n := 0; ; n++ {
			if data, err := next(n); !yield(data, err) || err != nil {
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

var number = regexp.MustCompile(`\d+`)

// fromDir sends files by the first number in their names: 1, 2, 10.
func (o options) fromDir(ctx context.Context) (iter.Seq2[[]byte, error], error) {
	files, err := filepath.Glob(filepath.Join(o.dir, "*.*"))
	if err != nil {
		return nil, err
	}
	files = slices.DeleteFunc(files, func(f string) bool {
		return !slices.Contains([]string{".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"}, filepath.Ext(f))
	})
	if len(files) == 0 {
		return nil, fmt.Errorf("no pictures in %s", o.dir)
	}
	index := func(f string) int { n, _ := strconv.Atoi(number.FindString(filepath.Base(f))); return n }
	slices.SortFunc(files, func(a, b string) int { return cmp.Or(cmp.Compare(index(a), index(b)), cmp.Compare(a, b)) })
	return o.paced(ctx, func(n int) ([]byte, error) { return os.ReadFile(files[n%len(files)]) }), nil
}

// pattern draws colour bars with a moving line.
func (o options) pattern(ctx context.Context) iter.Seq2[[]byte, error] {
	const w, h = 640, 480
	bars := []color.RGBA{{255, 255, 255, 255}, {255, 255, 0, 255}, {0, 255, 255, 255}, {0, 255, 0, 255}, {255, 0, 255, 255}, {255, 0, 0, 255}, {0, 0, 255, 255}, {0, 0, 0, 255}}
	return o.paced(ctx, func(n int) ([]byte, error) {
		img := image.NewRGBA(image.Rect(0, 0, w, h))
		line := n * 4 % w
		for y := range h {
			for x := range w {
				c := bars[x*len(bars)/w]
				if x-line >= 0 && x-line < 8 {
					c = color.RGBA{128, 128, 128, 255}
				}
				img.SetRGBA(x, y, c)
			}
		}
		var buf bytes.Buffer
		err := jpeg.Encode(&buf, img, nil)
		return buf.Bytes(), err
	})
}

// fromHTTP reads a multipart/x-mixed-replace stream as IP cameras send it.
func fromHTTP(ctx context.Context, url string) (iter.Seq2[[]byte, error], error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req) //nolint:bodyclose // the sequence closes it
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s answers %s", url, resp.Status)
	}
	kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return func(yield func([]byte, error) bool) {
		defer resp.Body.Close()
		if err != nil || kind != "multipart/x-mixed-replace" {
			jpegs(resp.Body)(yield) // a bare stream of JPEGs
			return
		}
		for parts := multipart.NewReader(resp.Body, params["boundary"]); ; {
			part, err := parts.NextPart()
			if errors.Is(err, io.EOF) {
				return
			}
			var data []byte
			if err == nil {
				data, err = io.ReadAll(io.LimitReader(part, maxFrame+1))
			}
			if err == nil && len(data) > maxFrame {
				err = fmt.Errorf("a frame of %s is over %d bytes", url, maxFrame)
			}
			if !yield(data, err) || err != nil {
				return
			}
		}
	}, nil
}

// jpegs cuts a stream of JPEGs, one behind the other, at their ends.
func jpegs(r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		cut := newJPEGCutter(r)
		for {
			data, err := cut.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(data, err) || err != nil {
				return
			}
		}
	}
}

// extension is the file name extension of a picture.
func extension(data []byte) string {
	switch http.DetectContentType(data) {
	case "image/jpeg":
		return ".jpg"
	case "image/png":
		return ".png"
	case "image/bmp":
		return ".bmp"
	case "image/gif":
		return ".gif"
	case "image/webp":
		return ".webp"
	}
	return ".bin"
}
