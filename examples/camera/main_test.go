package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// receive returns a URL, and the images that arrive there with their contents.
func receive(t *testing.T) (url string, frames func() ([]*transport.Image, [][]byte)) {
	var mu sync.Mutex
	var images []*transport.Image
	var contents [][]byte
	url = serve(t, func(ctx context.Context, in *transport.Incoming) error {
		data, err := in.Image.Body.ReadAll(ctx)
		mu.Lock()
		defer mu.Unlock()
		images, contents = append(images, in.Image), append(contents, data)
		return err
	})
	return url, func() ([]*transport.Image, [][]byte) {
		mu.Lock()
		defer mu.Unlock()
		return images, contents
	}
}

// serve runs a receiver and returns its URL.
func serve(t *testing.T, handler func(context.Context, *transport.Incoming) error) (url string) {
	l, err := (&tcpx.Transport{Addr: "127.0.0.1:0"}).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	srv := &transport.Server{Store: &transport.MemStore{}, Handler: handler}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), l) }()
	t.Cleanup(func() { srv.Shutdown(context.Background()); <-served })
	return "tcp://" + l.Addr().String()
}

func picture(t *testing.T, w int) []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, w, 16)), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDirectoryIsSentInTheOrderOfItsNumbers(t *testing.T) {
	dir := t.TempDir()
	var want [][]byte
	for i, name := range []string{"frame1.jpg", "frame2.jpg", "frame10.jpg"} {
		want = append(want, picture(t, 16*(i+1)))
		if err := os.WriteFile(filepath.Join(dir, name), want[i], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	url, frames := receive(t)
	stats, err := run(t.Context(), options{dir: dir, fps: 1000, count: 3, url: url, source: "gate"}, nil, io.Discard)
	if err != nil || stats.sent != 3 {
		t.Fatal(stats, err)
	}
	images, got := frames()
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("frame %d differs", i)
		}
	}
	if f := images[0]; f.Source != "gate" || f.Meta["frame"] != "1" {
		t.Errorf("%q %v", f.Source, f.Meta)
	}
}

func TestPatternIsAPicture(t *testing.T) {
	url, frames := receive(t)
	if _, err := run(t.Context(), options{fps: 1000, count: 2, url: url, source: "x"}, nil, io.Discard); err != nil {
		t.Fatal(err)
	}
	_, all := frames()
	if _, err := jpeg.Decode(bytes.NewReader(all[0])); err != nil || bytes.Equal(all[0], all[1]) {
		t.Error(err, "or the picture stands still")
	}
}

// thumbnail hides whole JPEGs, markers and all, in a segment of another.
func thumbnail(outer, inner []byte) []byte {
	n := len(inner) + 2
	return append(append([]byte{0xff, 0xd8, 0xff, 0xe1, byte(n >> 8), byte(n)}, inner...), outer[2:]...)
}

func TestStreamsOfJPEGsAreCutAtTheirEnds(t *testing.T) {
	want := [][]byte{picture(t, 16), thumbnail(picture(t, 320), picture(t, 8)), picture(t, 64)}
	url, frames := receive(t)
	stream := bytes.Join(want, []byte("\r\nnoise\xff"))
	if _, err := run(t.Context(), options{stdin: true, count: 3, url: url}, io.MultiReader(bytes.NewReader(stream), &hang{t.Context()}), io.Discard); err != nil {
		t.Fatal(err)
	}
	_, all := frames()
	for i, got := range all {
		if !bytes.Equal(got, want[i]) {
			t.Errorf("frame %d: %d bytes of %d", i, len(got), len(want[i]))
		}
	}
}

// hang is a source that gives no more.
type hang struct{ ctx context.Context }

func (h *hang) Read([]byte) (int, error) { <-h.ctx.Done(); return 0, io.EOF }

func TestStreamThatIsCutOrNoJPEGIsAnError(t *testing.T) {
	whole := picture(t, 64)
	for n := range len(whole) {
		if _, err := newJPEGCutter(bytes.NewReader(whole[:n])).next(); err == nil {
			t.Fatalf("%d of %d bytes are taken for a picture", n, len(whole))
		}
	}
	if _, err := newJPEGCutter(bytes.NewReader([]byte("\xff\xd8 not"))).next(); err == nil || errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// What is damaged or cut off costs itself and nothing else.
func TestStreamGoesOnBehindADamagedJPEG(t *testing.T) {
	first, last := picture(t, 16), picture(t, 64)
	damaged := bytes.Clone(first)
	damaged[2] = 0 // where a marker belongs
	cut := first[:len(first)-2]
	url, frames := receive(t)
	stream := bytes.Join([][]byte{first, damaged, cut, last}, []byte("\r\n--x\r\n\r\n"))
	if _, err := run(t.Context(), options{stdin: true, count: 2, url: url}, bytes.NewReader(stream), io.Discard); err != nil {
		t.Fatal(err)
	}
	if _, all := frames(); len(all) != 2 || !bytes.Equal(all[0], first) || !bytes.Equal(all[1], last) {
		t.Errorf("%d frames, or not those that are whole", len(all))
	}
}

// Cameras announce boundaries as they like, and are not at their end when they are silent.
func TestHTTPCamera(t *testing.T) {
	want := [][]byte{picture(t, 16), picture(t, 32)}
	for _, kind := range []string{"multipart/x-mixed-replace; boundary=x", "multipart/x-mixed-replace; boundary=--x", "multipart/x-mixed-replace", "image/jpeg"} {
		cam := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			for _, data := range want {
				fmt.Fprintf(w, "\r\n--x\r\nContent-Type: image/jpeg\r\n\r\n%s", data)
			}
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}))
		url, frames := receive(t)
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := run(ctx, options{mjpeg: cam.URL, count: 2, url: url}, nil, io.Discard); err != nil {
			t.Fatal(kind, err)
		}
		cancel()
		cam.Close()
		_, all := frames()
		if len(all) != 2 || !bytes.Equal(all[0], want[0]) || !bytes.Equal(all[1], want[1]) {
			t.Errorf("%s: %d frames, or others", kind, len(all))
		}
	}
}

func TestExitStatus(t *testing.T) {
	cam := httptest.NewServer(http.NotFoundHandler())
	defer cam.Close()
	withPassword := strings.Replace(cam.URL, "//", "//ann:secret@", 1)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, c := range []struct {
		ctx  context.Context
		args []string
		code int
		says string
	}{
		{t.Context(), []string{"-mjpeg", withPassword, "tcp://127.0.0.1:1"}, 1, "ann:xxxxx@"},
		{t.Context(), []string{"-mjpeg", "http://ann:sec^ret@h/", "tcp://127.0.0.1:1"}, 1, "percent-encode"},
		{t.Context(), []string{"-dir", t.TempDir(), "tcp://127.0.0.1:1"}, 1, "no pictures"},
		{t.Context(), []string{"tcp://127.0.0.1"}, 1, "HOST:PORT"},
		{stopped, []string{"tcp://127.0.0.1:1"}, 0, ""},
		{t.Context(), nil, 2, "usage:"},
		{t.Context(), []string{"-h"}, 0, "usage:"},
		{t.Context(), []string{"-bogus", "tcp://127.0.0.1:1"}, 2, "-bogus"},
		{t.Context(), []string{"-count", "-1", "tcp://127.0.0.1:1"}, 2, "-count"},
		{t.Context(), []string{"-fps", "NaN", "tcp://127.0.0.1:1"}, 2, "-fps is"},
		{t.Context(), []string{"-fps", "Inf", "tcp://127.0.0.1:1"}, 2, "-fps is"},
		{t.Context(), []string{"-fps", "2e9", "tcp://127.0.0.1:1"}, 2, "-fps is"},
		{t.Context(), []string{"-fps", "1e-10", "tcp://127.0.0.1:1"}, 2, "-fps is"},
	} {
		var out strings.Builder
		code := command(c.ctx, c.args, nil, io.Discard, &out)
		if code != c.code || !strings.Contains(out.String(), c.says) || strings.Contains(out.String(), "secret") || strings.Contains(out.String(), "sec^ret") {
			t.Errorf("%v: exit %d, want %d and %q:\n%s", c.args, code, c.code, c.says, out.String())
		}
	}
}

func TestDirectoryOfAnyNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d[1]")
	if err := os.MkdirAll(filepath.Join(dir, "sub.jpg"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := picture(t, 16)
	if err := os.WriteFile(filepath.Join(dir, "IMG_0001.JPG"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	url, frames := receive(t)
	if stats, err := run(t.Context(), options{dir: dir, fps: 1000, count: 2, url: url, source: "hall/1\\b"}, nil, io.Discard); err != nil || stats.sent != 2 {
		t.Fatal(stats, err)
	}
	images, all := frames()
	for i, data := range all {
		if f := images[i]; !bytes.Equal(data, want) || f.Source != "hall/1\\b" || f.Name != fmt.Sprintf("hall_1_b-%06d.jpg", i+1) {
			t.Errorf("%d bytes of %q, called %q", len(data), f.Source, f.Name)
		}
	}
}

func TestRefusedFramesCount(t *testing.T) {
	url := serve(t, func(context.Context, *transport.Incoming) error { return transport.Reject("full") })
	var trouble strings.Builder
	if stats, err := run(t.Context(), options{fps: 1000, count: 2, url: url}, nil, &trouble); err != nil || stats.sent != 0 || stats.skipped != 2 {
		t.Error(stats, err)
	}
	if said := trouble.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "full") {
		t.Errorf("two frames were refused, of which it says %q", said)
	}
}

// lines hands on what is written.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

// While nobody receives the camera says why it waits.
func TestNobodyReceives(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	trouble := make(lines, 1000)
	ended := make(chan error)
	go func() {
		_, err := run(ctx, options{fps: 1000, url: "tcp://127.0.0.1:1"}, nil, trouble)
		ended <- err
	}()
	if said := <-trouble; !strings.Contains(said, "nothing listens at tcp 127.0.0.1:1") {
		t.Errorf("it says %q", said)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
