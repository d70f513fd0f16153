package main

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pixferry/pixferry/transport"
)

const (
	maxSources = 64              // one more takes the place of the one that has been silent longest,
	maxHeld    = 256 << 20       // as do bytes of pictures
	rateWindow = 5 * time.Second // over which frames a second are counted
)

// A gallery keeps the newest picture of each source and counts. Safe for
// concurrent use.
type gallery struct {
	mu      sync.Mutex
	sources map[string]*source
	held    int           // bytes of their pictures
	version uint64        // of the newest picture
	changed chan struct{} // closed and replaced with each picture
}

// A source is one camera, by the name that it gives or else its address.
type source struct {
	name, peer, protocol string
	media                string
	data                 []byte // of the newest picture; never changed
	version              uint64
	frames, bytes        int64
	lost                 int64 // by the numbers of frames; only known where the sender numbers them
	numbered             bool
	number               int64
	latency              time.Duration // of the newest picture; only known where it says when it was taken
	timed                bool
	seen                 time.Time
	recent               []time.Time // within rateWindow
}

func newGallery() *gallery {
	return &gallery{sources: make(map[string]*source), changed: make(chan struct{})}
}

// handle is the Server's Handler.
func (g *gallery) handle(ctx context.Context, in *transport.Incoming) error {
	if !strings.HasPrefix(in.Image.MediaType, "image/") {
		return transport.Reject("%s is not a picture", in.Image.MediaType)
	}
	data, err := in.Image.Body.ReadAll(ctx)
	if err != nil {
		return err
	}
	g.show(time.Now(), in.Peer, in.Conn.Info().Protocol, in.Image, data)
	return nil
}

func (g *gallery) show(now time.Time, peer, protocol string, img *transport.Image, data []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	name := cmp.Or(img.Source, peer)
	s := g.sources[name]
	if s == nil {
		s = &source{name: name}
		g.sources[name] = s
	}
	g.version++
	g.held += len(data) - len(s.data)
	s.peer, s.protocol, s.media, s.data, s.version, s.seen = peer, protocol, img.MediaType, data, g.version, now
	g.makeRoom()
	s.frames++
	s.bytes += int64(len(data))
	if n, err := strconv.ParseInt(img.Meta["frame"], 10, 64); err == nil {
		if s.numbered && n > s.number+1 {
			s.lost += n - s.number - 1
		}
		s.numbered, s.number = true, n
	}
	if s.timed = !img.Captured.IsZero(); s.timed {
		s.latency = now.Sub(img.Captured)
	}
	s.recent = append(s.recent, now)
	s.forget(now)
	close(g.changed)
	g.changed = make(chan struct{})
}

// forget drops the times that are out of the window.
func (s *source) forget(now time.Time) {
	old := 0
	for old < len(s.recent) && now.Sub(s.recent[old]) > rateWindow {
		old++
	}
	s.recent = slices.Delete(s.recent, 0, old)
}

// makeRoom forgets sources until what is left is within its bounds. The newest picture's stays.
func (g *gallery) makeRoom() {
	for len(g.sources) > maxSources || g.held > maxHeld {
		var oldest *source
		for _, s := range g.sources {
			if oldest == nil || s.version < oldest.version {
				oldest = s
			}
		}
		g.held -= len(oldest.data)
		delete(g.sources, oldest.name)
	}
}

// status is what a browser is told about a source.
type status struct {
	Name     string   `json:"name"`
	Peer     string   `json:"peer"`
	Protocol string   `json:"protocol"`
	Version  uint64   `json:"version"`
	FPS      float64  `json:"fps"`
	Frames   int64    `json:"frames"`
	Bytes    int64    `json:"bytes"`
	Lost     *int64   `json:"lost"`      // null: unknown
	Latency  *float64 `json:"latencyMs"` // null: unknown
	Age      float64  `json:"ageMs"`
}

// state waits until there is something newer than version after, for as long as
// the context allows, and returns what there is.
func (g *gallery) state(ctx context.Context, after uint64) (uint64, []status) {
	for {
		g.mu.Lock()
		version, changed := g.version, g.changed
		if version > after || ctx.Err() != nil {
			defer g.mu.Unlock()
			return version, g.list(time.Now())
		}
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (g *gallery) list(now time.Time) []status {
	all := make([]status, 0, len(g.sources))
	for _, s := range g.sources {
		s.forget(now)
		st := status{Name: s.name, Peer: s.peer, Protocol: s.protocol, Version: s.version, Frames: s.frames, Bytes: s.bytes,
			FPS: float64(len(s.recent)) / rateWindow.Seconds(), Age: float64(now.Sub(s.seen).Milliseconds())}
		if s.numbered {
			lost := s.lost
			st.Lost = &lost
		}
		if s.timed {
			ms := float64(s.latency.Microseconds()) / 1000
			st.Latency = &ms
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b status) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// picture returns the newest picture of a source.
func (g *gallery) picture(name string) (media string, data []byte, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.sources[name]; s != nil {
		return s.media, s.data, true
	}
	return "", nil, false
}
