package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// A sender is what the service needs of a Conn.
type sender interface {
	Send(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error)
}

// A service answers GET /image.
type service struct {
	base  sender
	fetch *fetcher
	log   *slog.Logger
	slots chan struct{} // a token for each request that runs or waits
	turn  chan struct{} // holds a token while no image is decoded or sent
}

func newService(base sender, f *fetcher, queue int, log *slog.Logger) *service {
	s := &service{base: base, fetch: f, log: log, slots: make(chan struct{}, queue), turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

func (s *service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/image", s.image)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		(&problem{http.StatusNotFound, "there is only GET /image?url=URL"}).write(w)
	})
	return mux
}

// image fetches, converts and sends an image, and answers when BASE has finished.
func (s *service) image(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	size, err := s.transfer(r)
	log := s.log.With("url", shown(r.URL.Query().Get("url")), "client", r.RemoteAddr, "took", time.Since(began))
	p := (*problem)(nil)
	switch {
	case err == nil:
		log.Info("image sent", "bytes", size)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"imageData": 1}`)
		return
	case r.Context().Err() != nil:
		p = &problem{http.StatusServiceUnavailable, "the request was given up"} // mostly nobody hears it
	case !errors.As(err, &p):
		p = baseProblem(err)
	}
	log.Warn("image not sent", "status", p.Status, "err", err)
	p.write(w)
}

func (s *service) transfer(r *http.Request) (bytes int, err error) {
	ctx, from := r.Context(), r.URL.Query()["url"]
	switch {
	case r.Method != http.MethodGet:
		return 0, &problem{http.StatusMethodNotAllowed, "use GET"}
	case len(from) != 1 || from[0] == "":
		return 0, &problem{http.StatusBadRequest, "say which image: GET /image?url=URL, with the URL percent-encoded"}
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return 0, &problem{http.StatusServiceUnavailable, fmt.Sprintf("%d requests run and wait already: try again later", cap(s.slots))}
	}
	file, err := s.fetch.fetch(ctx, from[0])
	if err != nil {
		return 0, err
	}
	select { // one at a time, in the order in which they come here
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	picture, err := toJPEG(file, s.fetch.maxPixels)
	if err != nil {
		return 0, err
	}
	_, err = s.base.Send(ctx, &transport.Image{Name: "image.jpg", MediaType: "image/jpeg", Body: transport.Bytes(picture)}, nil)
	return len(picture), err
}

// baseProblem says what a failure of the transfer means for the client.
func baseProblem(err error) *problem {
	refused, large := (*transport.RejectedError)(nil), (*transport.TooLargeError)(nil)
	switch {
	case errors.As(err, &large):
		return &problem{http.StatusUnprocessableEntity, fmt.Sprintf("as a JPEG the image has %d bytes: BASE takes %d", large.Size, large.Max)}
	case errors.As(err, &refused):
		return &problem{http.StatusBadGateway, "BASE has not taken the image: " + refused.Text}
	case errors.Is(err, transport.ErrClosed):
		return &problem{http.StatusServiceUnavailable, "the service ends"}
	}
	return &problem{http.StatusGatewayTimeout, fmt.Sprintf("BASE does not answer: %v", err)}
}

// A problem is an answer of RFC 9457, and an error.
type problem struct {
	Status int
	Detail string
}

func (p *problem) Error() string { return p.Detail }

func (p *problem) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	switch p.Status {
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodGet)
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(map[string]any{"type": "about:blank", "title": http.StatusText(p.Status), "status": p.Status, "detail": p.Detail})
}

// withOrigins lets pages of other origins call, with credentials.
func withOrigins(allowed map[string]bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Vary", "Origin")
		origin := r.Header.Get("Origin")
		if allowed[strings.ToLower(origin)] {
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Credentials", "true")
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" { // a preflight
				h.Set("Access-Control-Allow-Methods", http.MethodGet)
				if wanted := r.Header.Get("Access-Control-Request-Headers"); wanted != "" {
					h.Set("Access-Control-Allow-Headers", wanted)
				}
				h.Set("Access-Control-Max-Age", "600")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
