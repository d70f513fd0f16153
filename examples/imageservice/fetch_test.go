package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// What is logged, and what clients are told, has no password and no token.
func TestSecretsAreNotShown(t *testing.T) {
	images := web(t, http.NotFound)
	var log strings.Builder
	service, end := startsLogging(t, &log, "-broker", strings.Replace(broker(t), "//", "//ann:secret@", 1), "-allow-private")
	for u, status := range map[string]int{
		strings.Replace(images.URL, "//", "//ann:secret@", 1) + "/a.png?token=secret": 502, "ftp://ann:secret@h/?secret": 400,
		"http://ann:se^cret@h/": 400, "http://ann:se%zzcret@h/": 400, "http://ann:se/cret@h/": 400, "http://127.0.0.1:1/?secret": 502,
	} {
		a := get(t, service+"/image?url="+url.QueryEscape(u))
		if isProblem(t, a, status); strings.Contains(a.body, "cret") || strings.Contains(a.body, ":se") {
			t.Errorf("%s: %s", u, a.body)
		}
	}
	end()
	if text := log.String(); strings.Contains(text, "cret") || strings.Contains(text, ":se") || !strings.Contains(text, images.URL+"/a.png") {
		t.Error(text)
	}
}

// Whom an image's server redirects to does not hear of the token that was for that server.
func TestRedirectHasNoToken(t *testing.T) {
	said := make(chan *http.Request, 1)
	other := web(t, func(_ http.ResponseWriter, r *http.Request) { said <- r })
	images := web(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/b.png", http.StatusFound)
	})
	if _, err := newFetcher(true).fetch(t.Context(), strings.Replace(images.URL, "//", "//ann:secret@", 1)+"/a.png?token=secret"); err != nil {
		t.Fatal(err)
	}
	r := <-said
	var text strings.Builder
	if err := r.Header.Write(&text); err != nil || strings.Contains(text.String(), "secret") || r.Referer() != "" {
		t.Errorf("%v\n%s", err, text.String())
	}
}

func TestResolverIsNotShown(t *testing.T) {
	f := newFetcher(true)
	f.client = &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "x", Server: "10.1.2.3:53", IsNotFound: true}}
	})}
	_, err := f.fetch(t.Context(), "http://x/")
	if status(err) != http.StatusBadGateway || !strings.HasSuffix(err.Error(), "no such host") || strings.Contains(err.Error(), "10.1.2.3") {
		t.Error(err)
	}
}

// A body that never comes holds its connection for the server's ReadTimeout, and a request
// that takes longer than that is not ended by it.
func TestBodyThatNeverComes(t *testing.T) {
	if readTime >= patience || newServer(nil).ReadTimeout != readTime {
		t.Error("the end waits for bodies that never come")
	}
	ctx := make(chan error, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			<-time.After(100 * time.Millisecond)
			ctx <- r.Context().Err()
		}
	}))
	srv.Config = newServer(srv.Config.Handler)
	srv.Config.ReadTimeout = 10 * time.Millisecond
	srv.Start()
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /image HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(conn); err != nil {
		t.Error("the connection is held:", err)
	}
	get(t, srv.URL)
	if err := <-ctx; err != nil {
		t.Error("a long request:", err)
	}
}
