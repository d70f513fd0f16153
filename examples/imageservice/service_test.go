package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/jpeg"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/mqttx"
	"github.com/pixferry/pixferry/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func broker(t *testing.T) string { return testbroker.Embedded(t, testbroker.Options{}).URL() }

// takes runs a BASE, whose handler gets the images.
func takes(t *testing.T, broker string, handler func(name string, content []byte)) {
	l, err := (&mqttx.Base{Broker: broker, ToBase: "to", FromBase: "from"}).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	srv := &transport.Server{Handler: func(ctx context.Context, in *transport.Incoming) error {
		b, err := in.Image.Body.ReadAll(ctx)
		if err == nil {
			handler(in.Image.Name, b)
		}
		return err
	}}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		srv.Shutdown(ctx)
		<-served
	})
}

// starts runs the whole program and returns its URL, and how to end it.
func starts(t *testing.T, args ...string) (url string, end func() error) {
	return startsLogging(t, t.Output(), args...)
}

func startsLogging(t *testing.T, log io.Writer, args ...string) (url string, end func() error) {
	ctx, stop := context.WithCancel(context.Background())
	addr, ended := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		ended <- run(ctx, append([]string{"-listen", "127.0.0.1:0", "-to", "to", "-from", "from"}, args...), log, func(a net.Addr) { addr <- a })
	}()
	var result error
	finished := false
	end = func() error {
		stop()
		if !finished {
			result, finished = <-ended, true
		}
		return result
	}
	t.Cleanup(func() { end() })
	select {
	case a := <-addr:
		return "http://" + a.String(), end
	case err := <-ended:
		t.Fatal(err)
		return "", nil
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func request(t *testing.T, ctx context.Context, method, u string, header ...string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

func get(t *testing.T, u string, header ...string) answer {
	t.Helper()
	a, err := request(t, t.Context(), http.MethodGet, u, header...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// isProblem checks an answer of RFC 9457.
func isProblem(t *testing.T, a answer, status int) {
	t.Helper()
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != status || p.Status != status || p.Title != http.StatusText(status) || p.Detail == "" || a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %s %s (%v); want a problem of status %d", a.status, a.header.Get("Content-Type"), a.body, err, status)
	}
}

func TestService(t *testing.T) {
	url1 := broker(t)
	got := make(chan []byte, 1)
	takes(t, url1, func(name string, content []byte) {
		if name != "image.jpg" {
			t.Errorf("the image is called %q", name)
		}
		got <- content
	})
	images := web(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/a.png":
			w.Write(encoded(t, "png", scene(320, 200)))
		case "/moved":
			http.Redirect(w, r, "/a.png?b=1&c=2", http.StatusSeeOther)
		default:
			fmt.Fprint(w, "no image")
		}
	})
	service, end := starts(t, "-broker", url1, "-allow-private", "-origins", "https://App.example, http://127.0.0.1:8080")
	for _, path := range []string{"/a.png", "/moved"} {
		a := get(t, service+"/image?url="+url.QueryEscape(images.URL+path))
		if a.status != 200 || strings.TrimSpace(a.body) != `{"imageData": 1}` || a.header.Get("Content-Type") != "application/json" {
			t.Fatalf("%+v", a)
		}
		m, err := jpeg.Decode(bytes.NewReader(<-got))
		if err != nil || m.Bounds().Dx() != 320 || m.Bounds().Dy() != 200 {
			t.Errorf("BASE got %v, %v", m, err)
		}
	}
	isProblem(t, get(t, service+"/image?url="+images.URL+"/text"), 422)
	isProblem(t, get(t, service+"/image"), 400)
	isProblem(t, get(t, service+"/image?url="), 400)
	isProblem(t, get(t, service+"/image?url=a&url=b"), 400)
	isProblem(t, get(t, service+"/image?url=ftp://x/y"), 400)
	isProblem(t, get(t, service+"/image?url=http://127.0.0.1:1/"), 502)
	isProblem(t, get(t, service+"/"), 404)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		a, err := request(t, t.Context(), method, service+"/image?url="+images.URL+"/a.png")
		if isProblem(t, a, 405); err != nil || a.header.Get("Allow") != "GET" {
			t.Errorf("%s: %+v", method, a)
		}
	}
	if a, err := request(t, t.Context(), http.MethodHead, service+"/image?url="+images.URL+"/a.png"); err != nil || a.status != 405 {
		t.Errorf("HEAD: %+v, %v", a, err)
	}

	for origin, allowed := range map[string]bool{"https://app.example": true, "http://127.0.0.1:8080": true, "http://app.example": false, "https://app.example:8443": false, "https://evil.app.example": false, "null": false} {
		for _, method := range []string{http.MethodGet, http.MethodOptions} {
			a, err := request(t, t.Context(), method, service+"/image", "Origin", origin, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "x-token")
			if err != nil {
				t.Fatal(err)
			}
			h := a.header
			if allowed != (h.Get("Access-Control-Allow-Origin") == origin && h.Get("Access-Control-Allow-Credentials") == "true") || h.Get("Vary") != "Origin" {
				t.Errorf("%s from %s: %v", method, origin, h)
			}
			if allowed && method == http.MethodOptions && (a.status != 204 || h.Get("Access-Control-Allow-Methods") != "GET" || h.Get("Access-Control-Allow-Headers") != "x-token") {
				t.Errorf("a preflight from %s: %d, %v", origin, a.status, h)
			}
		}
	}
	if err := end(); err != nil {
		t.Error("the end:", err)
	}
	if a, err := request(t, t.Context(), http.MethodGet, service+"/image"); err == nil {
		t.Errorf("after the end: %+v", a)
	}
}

func TestServicePrivate(t *testing.T) {
	images := web(t, func(http.ResponseWriter, *http.Request) { t.Error("a server on loopback was asked") })
	service, _ := starts(t, "-broker", broker(t))
	isProblem(t, get(t, service+"/image?url="+url.QueryEscape(images.URL)), 403)
	isProblem(t, get(t, service+"/image?url="+url.QueryEscape(strings.Replace(images.URL, "127.0.0.1", "localhost", 1))), 403)
}

func TestServiceWithoutBase(t *testing.T) {
	images := web(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(encoded(t, "png", scene(8, 8))) })
	service, _ := starts(t, "-broker", broker(t), "-allow-private", "-wait", "20ms", "-attempts", "3")
	isProblem(t, get(t, service+"/image?url="+images.URL), 504)
}

// holding is a BASE that holds each image until it is told to leave it.
type holding struct {
	entered chan int // widths
	leave   chan struct{}
}

func (h holding) Send(ctx context.Context, img *transport.Image, _ *transport.SendOptions) (transport.Receipt, error) {
	body, err := img.Body.Open(ctx)
	if err != nil {
		return transport.Receipt{}, err
	}
	defer body.Close()
	m, err := jpeg.Decode(body)
	if err != nil {
		return transport.Receipt{}, err
	}
	h.entered <- m.Bounds().Dx()
	<-h.leave
	return transport.Receipt{Level: transport.Received}, nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestServiceOrder has BASE hold an image while others queue, of which the first is given up.
func TestServiceOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFetcher(true)
		f.client = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			var n int
			fmt.Sscanf(r.URL.Path, "/%d", &n)
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(encoded(t, "png", scene(n, 10))))}, nil
		})}
		base := holding{make(chan int), make(chan struct{})}
		s := newService(base, f, 4, slog.New(slog.DiscardHandler))
		answers := make(map[int]*httptest.ResponseRecorder)
		ask := func(n int) context.CancelFunc {
			ctx, leave := context.WithCancel(t.Context())
			r := httptest.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("/image?url=http://images.example/%d", n), nil)
			w := httptest.NewRecorder()
			answers[n] = w
			go s.image(w, r)
			return leave
		}
		code := func(n int) int {
			synctest.Wait()
			return answers[n].Code
		}
		defer ask(11)()
		if got := <-base.entered; got != 11 {
			t.Fatalf("image %d came, want 11", got)
		}
		leave12 := ask(12)
		synctest.Wait() // it queues before the next one
		defer ask(13)()
		synctest.Wait()
		defer ask(14)()
		synctest.Wait()
		defer ask(15)()
		if got := code(15); got != http.StatusServiceUnavailable {
			t.Errorf("with a full queue: %d", got)
		}
		leave12()
		if got := code(12); got != http.StatusServiceUnavailable {
			t.Errorf("given up: %d", got)
		}
		for _, n := range []int{11, 13, 14} {
			if n > 11 {
				if got := <-base.entered; got != n {
					t.Fatalf("image %d came, want %d", got, n)
				}
			}
			synctest.Wait()
			select {
			case got := <-base.entered:
				t.Fatalf("image %d overtakes %d", got, n)
			default:
			}
			if body := answers[n].Body.String(); body != "" {
				t.Fatalf("%q before BASE has image %d", body, n)
			}
			base.leave <- struct{}{}
			if got := code(n); got != http.StatusOK || answers[n].Body.Len() == 0 {
				t.Errorf("image %d: %d", n, got)
			}
		}
	})
}

// writer is called with each line of a log.
type writer func(line string)

func (w writer) Write(p []byte) (int, error) {
	w(string(p))
	return len(p), nil
}

// TestServiceEndsWithItsQueue tells the service to end while BASE holds an image, others queue and one
// client has left. TestServiceOrder is about their order.
func TestServiceEndsWithItsQueue(t *testing.T) {
	url1 := broker(t)
	entered, leave := make(chan int), make(chan struct{})
	takes(t, url1, func(_ string, content []byte) {
		m, err := jpeg.Decode(bytes.NewReader(content))
		if err != nil {
			t.Error(err)
			return
		}
		entered <- m.Bounds().Dx()
		<-leave
	})
	fetched := make(chan int, 10)
	images := web(t, func(w http.ResponseWriter, r *http.Request) {
		var n int
		fmt.Sscanf(r.URL.Path, "/%d", &n)
		w.Write(encoded(t, "png", scene(n, 10)))
		fetched <- n
	})
	gaveUp := make(chan struct{})
	service, end := startsLogging(t, writer(func(line string) {
		if strings.Contains(line, images.URL+"/12") {
			close(gaveUp)
		}
	}), "-broker", url1, "-allow-private", "-queue", "4")
	type result struct {
		n int
		answer
		err error
	}
	results := make(chan result, 10)
	ask := func(n int) context.CancelFunc {
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		go func() {
			a, err := request(t, ctx, http.MethodGet, fmt.Sprintf("%s/image?url=%s/%d", service, images.URL, n))
			results <- result{n, a, err}
		}()
		return cancel
	}
	var leaves []context.CancelFunc
	for n := 11; n <= 14; n++ {
		leaves = append(leaves, ask(n))
		<-fetched // it has its place in the queue
		if n == 11 {
			<-entered
		}
	}
	a := get(t, fmt.Sprintf("%s/image?url=%s/15", service, images.URL))
	if isProblem(t, a, 503); a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	leaves[1]() // the client of 12
	if r := <-results; r.n != 12 || r.err == nil {
		t.Fatalf("%+v", r)
	}
	<-gaveUp // the service has noticed
	ended := make(chan error, 1)
	go func() { ended <- end() }()
	seen := make(map[int]bool)
	for n := 11; len(seen) < 3; {
		seen[n] = true
		leave <- struct{}{}
		if r := <-results; r.n != n || r.err != nil || r.status != 200 {
			t.Fatalf("%+v, want the answer to %d", r, n)
		}
		if len(seen) < 3 {
			n = <-entered
		}
	}
	if !seen[13] || !seen[14] {
		t.Errorf("BASE has had %v", seen)
	}
	if err := <-ended; err != nil {
		t.Error("the end:", err)
	}
}

// stuck is a BASE to which a transfer does not end.
type stuck struct{ began, ended chan struct{} }

func (s stuck) Send(ctx context.Context, _ *transport.Image, _ *transport.SendOptions) (transport.Receipt, error) {
	close(s.began)
	<-ctx.Done()
	close(s.ended)
	return transport.Receipt{}, ctx.Err()
}

// TestServiceClientLeaves has a client leave while its image is sent.
func TestServiceClientLeaves(t *testing.T) {
	images := web(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(encoded(t, "png", scene(8, 8))) })
	base := stuck{make(chan struct{}), make(chan struct{})}
	s := newService(base, newFetcher(true), 1, slog.New(slog.DiscardHandler))
	service := httptest.NewServer(s.routes())
	defer service.Close()
	ctx, leave := context.WithCancel(t.Context())
	go func() { <-base.began; leave() }()
	if _, err := request(t, ctx, http.MethodGet, service.URL+"/image?url="+images.URL); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	select {
	case <-base.ended:
	case <-time.After(10 * time.Second):
		t.Error("the transfer goes on")
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-origins", "*"}, {"-origins", "app.example"}, {"-origins", "https://a.example/path"}, {"-queue", "0"}, {"-max-pixels", "-1"}, {"-nonsense"}, {"extra"}} {
		var out strings.Builder
		if err := run(t.Context(), args, &out, nil); !errors.Is(err, errUsage) || out.Len() == 0 {
			t.Errorf("%q: %v, %q", args, err, out.String())
		}
	}
	if err := run(t.Context(), []string{"-broker", "mqtt://127.0.0.1:1"}, io.Discard, nil); err == nil || errors.Is(err, errUsage) {
		t.Errorf("without a broker: %v", err)
	}
}
