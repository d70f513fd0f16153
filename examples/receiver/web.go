package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

//go:embed page.html
var page []byte

// longPoll is how long a browser waits for something new before it is told what
// there is anyway.
const longPoll = time.Second

// pages serves the page, the state, and the pictures:
//
//	GET /                   the page
//	GET /state?after=N      JSON, as soon as there is a picture newer than version N
//	GET /picture?source=S   the newest picture of a source
//
// A browser has one slot: its script asks for the next state when it has loaded
// the pictures of the last. Nothing is queued for it here.
func (g *gallery) pages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; img-src 'self'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'")
		w.Write(page)
	})
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64)
		ctx, cancel := context.WithTimeout(r.Context(), longPoll)
		defer cancel()
		version, sources := g.state(ctx, after)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		json.NewEncoder(w).Encode(map[string]any{"version": version, "sources": sources})
	})
	mux.HandleFunc("GET /picture", func(w http.ResponseWriter, r *http.Request) {
		media, data, ok := g.picture(r.URL.Query().Get("source"))
		if !ok {
			http.Error(w, "no such source", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", media)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox") // an SVG stays a picture
		w.Header().Set("Cache-Control", "no-store")
		w.Write(data)
	})
	return mux
}
