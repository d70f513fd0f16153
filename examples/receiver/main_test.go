package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	_ "image/png"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestLossRateAndLatencyAreCounted(t *testing.T) {
	g := newGallery()
	for i, frame := range []string{"1", "2", "5", "6", "3", "4"} { // the last two: the camera was restarted
		at := start.Add(time.Duration(i) * time.Second)
		g.show(at, "10.0.0.1:5", "tcp", &transport.Image{Source: "gate", Captured: at.Add(-20 * time.Millisecond), Meta: map[string]string{"frame": frame}}, []byte("12345"))
	}
	all := g.list(start.Add(5 * time.Second))
	if len(all) != 1 {
		t.Fatal(all)
	}
	s := all[0]
	if s.Name != "gate" || s.Frames != 6 || s.Bytes != 30 || *s.Lost != 2 || *s.Latency != 20 || s.FPS != 6/rateWindow.Seconds() {
		t.Errorf("%+v, lost %v, latency %v", s, *s.Lost, *s.Latency)
	}
	if s := g.list(start.Add(time.Minute))[0]; s.FPS != 0 || s.Age != 55_000 {
		t.Errorf("a minute later: %+v", s)
	}
}

func TestWhatASenderDoesNotSayIsUnknown(t *testing.T) {
	g := newGallery()
	g.show(start, "10.0.0.1:5", "udp+header", &transport.Image{}, nil)
	if s := g.list(start)[0]; s.Name != "10.0.0.1:5" || s.Lost != nil || s.Latency != nil {
		t.Errorf("%+v", s)
	}
}

func TestSourcesAreBoundedAndTheSilentOneGoes(t *testing.T) {
	g := newGallery()
	for i := range maxSources + 10 {
		g.show(start.Add(time.Duration(i)*time.Second), "peer", "tcp", &transport.Image{Source: fmt.Sprint(i)}, nil)
	}
	if _, _, ok := g.picture("9"); ok || len(g.sources) != maxSources {
		t.Error(len(g.sources), "sources, with the oldest among them:", ok)
	}
	if _, _, ok := g.picture("10"); !ok {
		t.Error("a newer one is gone")
	}
}

// Many sources of large pictures take no more memory than a few.
func TestPicturesAreBounded(t *testing.T) {
	g := newGallery()
	large := make([]byte, maxPicture)
	for i := range 2 * maxHeld / maxPicture {
		g.show(start, "peer", "tcp", &transport.Image{Source: fmt.Sprint(i % (maxSources - 1))}, large)
		g.show(start, "peer", "tcp", &transport.Image{Source: "small"}, large[:1+i%2])
		held := 0
		for _, s := range g.sources {
			held += len(s.data)
		}
		if _, _, ok := g.picture(fmt.Sprint(i % (maxSources - 1))); held != g.held || held > maxHeld || !ok {
			t.Fatalf("%d bytes are held, %d are counted, at most %d; the newest is among them: %t", held, g.held, maxHeld, ok)
		}
	}
	if n := len(g.sources); n != maxHeld/maxPicture {
		t.Errorf("%d sources are left", n)
	}
}

// A browser that does not read its answer holds up neither the Handler nor
// another browser.
func TestSlowBrowserSlowsNobody(t *testing.T) {
	g := newGallery()
	web := httptest.NewServer(g.pages())
	defer web.Close()
	big := bytes.Repeat([]byte{1}, 8<<20)
	g.show(start, "p", "tcp", &transport.Image{Source: "cam", MediaType: "image/jpeg"}, big)
	slow, err := net.Dial("tcp", web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprintf(slow, "GET /picture?source=cam HTTP/1.1\r\nHost: x\r\n\r\n")
	for i := range 100 {
		g.show(start, "p", "tcp", &transport.Image{Source: "cam", MediaType: "image/jpeg"}, []byte{byte(i)})
	}
	resp, err := http.Get(web.URL + "/picture?source=cam")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if data, _ := io.ReadAll(resp.Body); len(data) != 1 || data[0] != 99 {
		t.Errorf("%d bytes, want the newest picture", len(data))
	}
}

func TestStateWaitsForSomethingNew(t *testing.T) {
	g := newGallery()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan uint64)
	go func() { v, _ := g.state(ctx, 0); got <- v }()
	g.show(start, "p", "tcp", &transport.Image{Source: "cam"}, nil)
	if v := <-got; v != 1 {
		t.Error("version", v)
	}
	go func() { v, _ := g.state(ctx, 1); got <- v }()
	cancel()
	if v := <-got; v != 1 {
		t.Error("version", v)
	}
}

// program runs the receiver and returns its page and its URL.
func program(t *testing.T) (page, url string) {
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	var trouble strings.Builder
	go func() { ended <- run(ctx, w, &trouble, "127.0.0.1:0", "", []string{"tcp://127.0.0.1:0"}); w.Close() }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if said := trouble.String(); strings.Count(said, "\n") != strings.Count(said, "not a picture") || said == "" {
			t.Errorf("of what it refuses it says %q", said)
		}
	})
	var a, b string
	if _, err := fmt.Fscanf(r, "showing %s\nlistening %s\n", &a, &b); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, r)
	return a, b
}

func sendPictures(t *testing.T, url string) {
	conn, err := (&tcpx.Transport{Addr: strings.TrimPrefix(url, "tcp://")}).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	grey := image.NewGray(image.Rect(0, 0, 32, 24))
	for i, source := range []string{"gate <b>", "yard", "yard"} {
		img := &transport.Image{Source: source, Captured: time.Now(), Meta: map[string]string{"frame": fmt.Sprint(2*i + 1)}, Body: transport.Encode(grey, "image/png")}
		if _, err := conn.Send(t.Context(), img, nil); err != nil {
			t.Fatal(err)
		}
	}
	_, err = conn.Send(t.Context(), &transport.Image{Body: transport.Bytes([]byte("no picture"))}, nil)
	if err == nil || !strings.Contains(err.Error(), "not a picture") {
		t.Error(err)
	}
}

// A browser that does not end its request has no say in how the receiver ends.
func TestSlowBrowserAtTheEnd(t *testing.T) {
	entered := make(chan struct{})
	page := newPage(context.Background(), newGallery())
	if page.ReadTimeout <= 0 || page.WriteTimeout <= longPoll || page.IdleTimeout <= 0 {
		t.Error("a browser may hold a connection, and a picture, for ever")
	}
	page.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go page.Serve(l)
	ended := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String())
		if err == nil {
			resp.Body.Close()
		}
		ended <- err
	}()
	<-entered
	ctx, cancel := context.WithDeadline(t.Context(), start) // it is over
	defer cancel()
	if err := end(ctx, &transport.Server{}, page); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("the browser is answered")
	}
}

func TestPicturesAreServed(t *testing.T) {
	page, url := program(t)
	sendPictures(t, url)
	resp, err := http.Get(page + "picture?source=yard")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, format, err := image.Decode(resp.Body); err != nil || format != "png" || resp.Header.Get("Content-Type") != "image/png" {
		t.Error(format, err, resp.Header)
	}
}
