package main

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/jpeg"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// receive returns a URL and what arrives there.
func receive(t *testing.T) (url string, frames func() []*transport.Image) {
	l, err := (&tcpx.Transport{Addr: "127.0.0.1:0"}).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	store := &transport.MemStore{}
	var mu sync.Mutex
	var got []*transport.Image
	srv := &transport.Server{Store: store, Handler: func(ctx context.Context, in *transport.Incoming) error {
		body, err := in.Image.Body.Open(ctx)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, &transport.Image{Name: in.Image.Name, Source: in.Image.Source, Meta: in.Image.Meta, Body: transport.Bytes(data)})
		return err
	}}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), l) }()
	t.Cleanup(func() { srv.Shutdown(context.Background()); <-served })
	return "tcp://" + l.Addr().String(), func() []*transport.Image {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}

func contents(t *testing.T, frames []*transport.Image) (all [][]byte) {
	for _, f := range frames {
		body, err := f.Body.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(body)
		all = append(all, data)
	}
	return all
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
	stats, err := run(t.Context(), options{dir: dir, fps: 1000, count: 3, url: url, source: "gate"}, nil)
	if err != nil || stats.sent != 3 {
		t.Fatal(stats, err)
	}
	got := contents(t, frames())
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("frame %d differs", i)
		}
	}
	if f := frames()[0]; f.Source != "gate" || f.Meta["frame"] != "1" {
		t.Errorf("%q %v", f.Source, f.Meta)
	}
}

func TestPatternIsAPicture(t *testing.T) {
	url, frames := receive(t)
	if _, err := run(t.Context(), options{fps: 1000, count: 2, url: url, source: "x"}, nil); err != nil {
		t.Fatal(err)
	}
	all := contents(t, frames())
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
	if _, err := run(t.Context(), options{stdin: true, count: 3, url: url}, io.MultiReader(bytes.NewReader(stream), &hang{t.Context()})); err != nil {
		t.Fatal(err)
	}
	for i, got := range contents(t, frames()) {
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

func TestHTTPCamera(t *testing.T) {
	want := [][]byte{picture(t, 16), picture(t, 32)}
	cam := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		m := multipart.NewWriter(w)
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary="+m.Boundary())
		for _, data := range want {
			part, _ := m.CreatePart(textproto.MIMEHeader{"Content-Type": {"image/jpeg"}})
			part.Write(data)
		}
		m.Close()
	}))
	defer cam.Close()
	url, frames := receive(t)
	if _, err := run(t.Context(), options{mjpeg: cam.URL, count: 2, url: url}, nil); err != nil {
		t.Fatal(err)
	}
	for i, got := range contents(t, frames()) {
		if !bytes.Equal(got, want[i]) {
			t.Errorf("frame %d differs", i)
		}
	}
}
