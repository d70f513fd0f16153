package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/pixferry/pixferry/transport"
)

// A browser is one tab of a headless Chromium, driven over the DevTools protocol.
type browser struct {
	t    *testing.T
	conn *websocket.Conn
	last int
}

func openBrowser(t *testing.T, page string) *browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		if strings.Contains(os.Getenv("PIXFERRY_REQUIRE"), "chromium") {
			t.Fatal(err)
		}
		t.Skip("needs chromium")
	}
	profile, err := os.MkdirTemp("", "chromium") // not TempDir: the browser's helpers may write for a moment longer
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+profile, "--remote-debugging-port=0", "about:blank")
	cmd.WaitDelay = 5 * time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); cmd.Wait(); os.RemoveAll(profile) })
	for scan := bufio.NewScanner(stderr); scan.Scan(); {
		_, ws, found := strings.Cut(scan.Text(), "DevTools listening on ")
		if !found {
			continue
		}
		u, err := url.Parse(ws)
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+u.Host+"/json/new?"+page, nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var tab struct{ WebSocketDebuggerURL string }
		if err := json.NewDecoder(resp.Body).Decode(&tab); err != nil {
			t.Fatal(err)
		}
		conn, handshake, err := websocket.DefaultDialer.DialContext(ctx, tab.WebSocketDebuggerURL, nil)
		if err != nil {
			t.Fatal(err)
		}
		handshake.Body.Close()
		t.Cleanup(func() { conn.Close() })
		return &browser{t: t, conn: conn}
	}
	t.Fatal("chromium does not start")
	return nil
}

// eval returns the value of an expression, a non-empty string. It asks again
// when the page is replaced meanwhile, as it is by the first navigation.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	for b.t.Context().Err() == nil {
		b.last++
		if err := b.conn.WriteJSON(map[string]any{"id": b.last, "method": "Runtime.evaluate", "params": map[string]any{"expression": expression, "awaitPromise": true}}); err != nil {
			b.t.Fatal(err)
		}
		var answer struct {
			ID     int
			Result struct{ Result struct{ Value string } }
		}
		for answer.ID != b.last {
			if err := b.conn.ReadJSON(&answer); err != nil {
				b.t.Fatal(err)
			}
		}
		if v := answer.Result.Result.Value; v != "" {
			return v
		}
	}
	return ""
}

// until is the expression of a promise that is kept when a condition holds,
// which is looked at with each change of the page.
func until(condition string) string {
	return `new Promise(done => {
		const look = () => { if (` + condition + `) done("yes"); else setTimeout(look, 20) }
		look()
		setTimeout(() => done(document.documentElement.outerHTML), 20000)
	})`
}

// The receiver is started again, and its versions begin anew.
func TestPageInChromiumAfterARestart(t *testing.T) {
	var grey bytes.Buffer
	if err := png.Encode(&grey, image.NewGray(image.Rect(0, 0, 32, 24))); err != nil {
		t.Fatal(err)
	}
	life := func(pictures int) http.Handler {
		g := newGallery()
		for range pictures {
			g.show(time.Now(), "p", "tcp", &transport.Image{Source: "gate", MediaType: "image/png"}, grey.Bytes())
		}
		return g.pages()
	}
	lives := []http.Handler{life(5), life(2)}
	var now atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { lives[now.Load()].ServeHTTP(w, r) }))
	defer web.Close()
	b := openBrowser(t, web.URL)
	for i, version := range []string{"v=5", "v=2"} {
		now.Store(int32(i))
		if got := b.eval(until(`document.images.length === 1 && document.images[0].src.endsWith("` + version + `")`)); got != "yes" {
			t.Fatalf("%s never comes:\n%s", version, got)
		}
	}
}

func TestPageInChromium(t *testing.T) {
	page, url := program(t)
	sendPictures(t, url)
	b := openBrowser(t, page)
	for _, condition := range []string{
		`document.title === "pixferry receiver" && document.querySelectorAll("figure").length === 2`,
		`document.getElementById("head").textContent === "2 sources"`,
		`document.querySelector("strong").textContent === "gate <b>"`, // a name is text
		`[...document.images].every(i => i.complete && i.naturalWidth === 32)`,
		`document.querySelectorAll("figure")[1].querySelectorAll("dd")[1].textContent === "1"`, // lost
		`document.querySelector(".peer").textContent.startsWith("tcp from 127.0.0.1:")`,
	} {
		if got := b.eval(until(condition)); got != "yes" {
			t.Fatalf("never: %s\n%s", condition, got)
		}
	}
	sendPictures(t, url) // the page follows
	if got := b.eval(until(`document.querySelectorAll("figure")[1].querySelectorAll("dd")[3].textContent === "4" && document.images[1].src.endsWith("v=6")`)); got != "yes" {
		t.Fatalf("the page does not follow:\n%s", got)
	}
}
