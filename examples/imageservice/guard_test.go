package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestIsPublic(t *testing.T) {
	for _, a := range []string{"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.167.1.1", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"} {
		if !isPublic(netip.MustParseAddr(a)) {
			t.Errorf("%s is public", a)
		}
	}
	for _, a := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255",
		"192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "100::1",
		"2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
	} {
		if isPublic(netip.MustParseAddr(a)) {
			t.Errorf("%s is not public", a)
		}
	}
}

func status(err error) int {
	if p := (*problem)(nil); errors.As(err, &p) {
		return p.Status
	}
	return 0
}

func newFetcher(allowPrivate bool) *fetcher {
	return &fetcher{client: newClient(allowPrivate), maxBytes: 1 << 20, maxPixels: 1e6, timeout: 5 * time.Second}
}

// web is a server on loopback.
func web(t *testing.T, h http.HandlerFunc) *httptest.Server {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

// TestGuard asks for what is behind the wall, in all clothes.
func TestGuard(t *testing.T) {
	asked := false
	srv := web(t, func(http.ResponseWriter, *http.Request) { asked = true })
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	f := newFetcher(false)
	for _, host := range []string{
		"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]", "127.1.2.3", "169.254.169.254", "10.0.0.1", "100.64.0.1", "[fe80::1]", "[fd00::1]", "[64:ff9b::7f00:1]", "224.0.0.1",
	} {
		if _, err := f.fetch(t.Context(), "http://"+host+":"+port+"/"); status(err) != http.StatusForbidden {
			t.Errorf("%s: %v", host, err)
		}
	}
	t.Setenv("HTTP_PROXY", srv.URL)
	t.Setenv("http_proxy", srv.URL)
	if _, err := f.fetch(t.Context(), "http://10.0.0.1/"); status(err) != http.StatusForbidden {
		t.Errorf("through a proxy: %v", err)
	}
	if asked {
		t.Error("a server on loopback was asked")
	}
	if _, err := newFetcher(true).fetch(t.Context(), srv.URL); err != nil || !asked {
		t.Errorf("with -allow-private: %v", err)
	}
}

// outside has a client reach the server at a host that is on loopback, and be guarded for
// all others, as it is in earnest.
func outside(f *fetcher, host string, srv *httptest.Server) {
	tr := f.client.Transport.(*http.Transport)
	guarded := tr.DialContext
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if name, _, _ := net.SplitHostPort(addr); name == host {
			return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
		}
		return guarded(ctx, network, addr)
	}
}

// TestGuardRedirect has a public server redirect into the private network.
func TestGuardRedirect(t *testing.T) {
	asked := false
	inner := web(t, func(http.ResponseWriter, *http.Request) { asked = true })
	outer := web(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
	})
	f := newFetcher(false)
	outside(f, "public.example", outer)
	for to, want := range map[string]int{
		inner.URL: http.StatusForbidden, "http://169.254.169.254/latest": http.StatusForbidden, "//[::1]/x": http.StatusForbidden,
		"http://public.example/?to=" + url.QueryEscape(inner.URL): http.StatusForbidden,
		"file:///etc/passwd": http.StatusBadRequest, "ftp://127.0.0.1/": http.StatusBadRequest, "gopher://x/": http.StatusBadRequest,
	} {
		if _, err := f.fetch(t.Context(), "http://public.example/?to="+url.QueryEscape(to)); status(err) != want {
			t.Errorf("to %s: %v, want %d", to, err, want)
		}
	}
	if asked {
		t.Error("a server on loopback was asked")
	}
	loop := "http://public.example/"
	endless := web(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, loop, http.StatusFound) })
	outside(f, "public.example", endless)
	if _, err := f.fetch(t.Context(), loop); status(err) != http.StatusBadGateway || !strings.Contains(err.Error(), "redirects") {
		t.Errorf("without end: %v", err)
	}
}

// TestGuardRebinding has a name resolve to another address each time it is asked for: what
// counts is the one that is connected to.
func TestGuardRebinding(t *testing.T) {
	for _, address := range []string{"127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "[fe80::1%lo]:80", "10.1.2.3:443"} {
		for _, network := range []string{"tcp4", "tcp6"} {
			if err := guard(network, address, nil); !errors.Is(err, errForbidden) {
				t.Errorf("%s %s: %v", network, address, err)
			}
		}
	}
	if err := guard("tcp4", "8.8.8.8:80", nil); err != nil {
		t.Error(err)
	}
	if err := guard("udp4", "8.8.8.8:80", nil); err == nil {
		t.Error("UDP is let through")
	}
	if err := guard("tcp4", "example.com:80", nil); err == nil {
		t.Error("a name is let through")
	}
}

func TestFetch(t *testing.T) {
	srv := web(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/missing":
			http.NotFound(w, r)
		case "/large":
			w.Write(make([]byte, 1<<20+1))
		case "/fits":
			w.Write(make([]byte, 1<<20))
		case "/cut":
			w.Header().Set("Content-Length", "100")
			w.Write(make([]byte, 50))
		case "/endless":
			trickle := time.NewTicker(10 * time.Millisecond)
			defer trickle.Stop()
			for r.Context().Err() == nil {
				w.Write(make([]byte, 100))
				w.(http.Flusher).Flush()
				select {
				case <-trickle.C:
				case <-r.Context().Done():
				}
			}
		case "/silent":
			<-r.Context().Done()
		}
	})
	f := newFetcher(true)
	for path, want := range map[string]int{"/fits": 0, "/large": 422, "/missing": 502, "/cut": 502} {
		if b, err := f.fetch(t.Context(), srv.URL+path); status(err) != want || want == 0 && len(b) != 1<<20 {
			t.Errorf("%s: %d bytes, %v; want %d", path, len(b), err, want)
		}
	}
	f.timeout = 100 * time.Millisecond
	for _, path := range []string{"/endless", "/silent"} {
		if _, err := f.fetch(t.Context(), srv.URL+path); status(err) != http.StatusGatewayTimeout {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, u := range []string{"", "image.jpg", "http://", "http:///x", "http://:80/", "file:///etc/passwd", "data:image/png;base64,AA==", "ftp://example.com/a.jpg", "http://a b/", "http://%zz/", "//example.com/a"} {
		if _, err := f.fetch(t.Context(), u); status(err) != http.StatusBadRequest {
			t.Errorf("%q: %v", u, err)
		}
	}
}
