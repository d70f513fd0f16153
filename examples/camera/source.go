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
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pixferry/pixferry/examples/endpoint"
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
	files, err := pictures(o.dir)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no pictures in %s", o.dir)
	}
	index := func(f string) int { n, _ := strconv.Atoi(number.FindString(filepath.Base(f))); return n }
	slices.SortFunc(files, func(a, b string) int { return cmp.Or(cmp.Compare(index(a), index(b)), cmp.Compare(a, b)) })
	return o.paced(ctx, func(n int) ([]byte, error) { return os.ReadFile(files[n%len(files)]) }), nil
}

// pictures are the files of a directory that their names call pictures.
func pictures(dir string) (files []string, err error) {
	all, err := os.ReadDir(dir)
	for _, entry := range all {
		file := filepath.Join(dir, entry.Name())
		if !slices.Contains([]string{".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"}, strings.ToLower(filepath.Ext(file))) {
			continue
		}
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() { // or a link to one
			files = append(files, file)
		}
	}
	return files, err
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

// fromHTTP reads an MJPEG stream as IP cameras send it. What is around the pictures is not
// looked at: cameras announce other boundaries than they send, and the next one comes only
// with the next picture.
func fromHTTP(ctx context.Context, from string) (iter.Seq2[[]byte, error], error) {
	u, err := endpoint.ParseURL(from)
	if err != nil {
		return nil, fmt.Errorf("-mjpeg: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req) //nolint:bodyclose // the sequence closes it
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s answers %s", req.URL.Redacted(), resp.Status)
	}
	return func(yield func([]byte, error) bool) {
		defer resp.Body.Close()
		jpegs(resp.Body)(yield)
	}, nil
}

// jpegs cuts a stream of JPEGs, one behind the other, at their ends. A damaged one is left out.
func jpegs(r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		cut := newJPEGCutter(r)
		for {
			data, err := cut.next()
			switch {
			case errors.Is(err, errDamaged):
				fmt.Fprintln(os.Stderr, "camera: a frame is left out:", err)
				continue
			case errors.Is(err, io.EOF):
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
