package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const maxRedirects = 5

// A fetcher fetches images within limits.
type fetcher struct {
	client    *http.Client
	maxBytes  int64
	maxPixels int
	timeout   time.Duration
}

// newClient returns an HTTP client that connects to public addresses only, unless private
// ones are allowed. It knows no proxy, which would connect in its place.
func newClient(allowPrivate bool) *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: guard}
	if allowPrivate {
		dialer.Control = nil
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, ForceAttemptHTTP2: true, DisableKeepAlives: true,
			TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return &problem{http.StatusBadGateway, fmt.Sprintf("the image's server redirects more than %d times", maxRedirects)}
			}
			r.Header.Del("Referer") // has the query of the URL before, where tokens are
			return checkURL(r.URL)
		},
	}
}

func checkURL(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return &problem{http.StatusBadRequest, fmt.Sprintf("%.200q: only http and https URLs with a host are fetched", withoutSecrets(u))}
	}
	return nil
}

// shown is a URL for the log.
func shown(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "unreadable"
	}
	return withoutSecrets(u)
}

// withoutSecrets is a URL without its user and its query, where passwords and tokens are.
func withoutSecrets(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// fetch returns what is at a URL. Its errors are *problem.
func (f *fetcher) fetch(ctx context.Context, from string) ([]byte, error) {
	u, err := url.Parse(from)
	if err != nil {
		return nil, &problem{http.StatusBadRequest, "the parameter url is no URL: percent-encode what is special in it"}
	}
	if err := checkURL(u); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, f.failure(err)
	}
	r.Header.Set("Accept", "image/*")
	resp, err := f.client.Do(r)
	if err != nil {
		return nil, f.failure(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &problem{http.StatusBadGateway, "the image's server answers " + resp.Status}
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, f.maxBytes+1))
	switch {
	case err != nil:
		return nil, f.failure(err)
	case int64(len(b)) > f.maxBytes:
		return nil, &problem{http.StatusUnprocessableEntity, fmt.Sprintf("the image has more than %d bytes", f.maxBytes)}
	}
	return b, nil
}

// failure says what a failure to fetch means for the client.
func (f *fetcher) failure(err error) error {
	p := (*problem)(nil)
	timeout := net.Error(nil)
	at, lookup := (*url.Error)(nil), (*net.DNSError)(nil)
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, errForbidden):
		return &problem{http.StatusForbidden, "the image is not fetched: " + errForbidden.Error()}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &problem{http.StatusGatewayTimeout, fmt.Sprintf("the image's server took too long (%v are allowed)", f.timeout)}
	case errors.As(err, &lookup): // which names the resolver
		return &problem{http.StatusBadGateway, "the image cannot be fetched: no such host"}
	case errors.As(err, &at):
		err = at.Err // without the URL
	}
	return &problem{http.StatusBadGateway, fmt.Sprintf("the image cannot be fetched: %.300v", err)}
}
