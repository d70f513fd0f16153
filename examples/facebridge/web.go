package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/pixferry/pixferry/mqttx/face"
)

// maxCommand is the size of the largest command, in bytes.
const maxCommand = 1 << 20

// handler serves POST / and GET /status. Pages of other sites in somebody's browser may
// not send commands.
func (b *bridge) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{$}", b.postCommand)
	mux.HandleFunc("GET /status", b.getStatus)
	return http.NewCrossOriginProtection().Handler(mux)
}

// postCommand publishes a JSON object as its text and a JSON string as its content, for
// the terminal of the query's sn, or for all.
func (b *bridge) postCommand(w http.ResponseWriter, r *http.Request) {
	v, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCommand))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		http.Error(w, fmt.Sprintf("a command has at most %d bytes", tooLarge.Limit), http.StatusRequestEntityTooLarge)
		return
	}
	c, bad := command(v)
	if err := errors.Join(err, bad); err != nil {
		http.Error(w, fmt.Sprintf("send a JSON object or a JSON string: %v", err), http.StatusBadRequest)
		return
	}
	to := []string(b.serials)
	if r.URL.Query().Has("sn") {
		if to = r.URL.Query()["sn"]; !subset(to, b.serials) {
			http.Error(w, fmt.Sprintf("the terminals of this bridge are %v", b.serials), http.StatusNotFound)
			return
		}
	}
	select {
	case <-b.ready:
	default:
		http.Error(w, "there is no broker yet: try again later", http.StatusServiceUnavailable)
		return
	}
	if err := b.sendAll(r.Context(), to, c); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ok")
}

func subset(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

func (b *bridge) sendAll(ctx context.Context, to []string, command []byte) (all error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	for _, sn := range to {
		err := b.listener.Command(ctx, sn, command)
		b.counts.command(sn, err)
		if err != nil {
			all = errors.Join(all, fmt.Errorf("terminal %s: %w", sn, err))
		}
	}
	return all
}

// counts is what GET /status tells.
type counts struct {
	mu        sync.Mutex
	since     time.Time
	terminals map[string]*terminalCounts
	took      int64
	failed    int64 // attempts to post
	lost      int64 // pictures that could not be kept
	lastError string
	failing   time.Time // since when the callback takes nothing; zero: it does
}

type terminalCounts struct {
	Heartbeat time.Time        `json:"heartbeat,omitzero"` // the last
	Reports   map[string]int64 `json:"reports"`            // by cmd; duplicates are counted as "duplicate"
	Strangers int64            `json:"strangers"`
	Commands  int64            `json:"commands"`         // published
	Failed    int64            `json:"commands_failed"`  // and not
	Troubles  int64            `json:"troubles"`         // reports that could not be understood or taken
	Dropped   int64            `json:"dropped"`          // of them, lost because the queue was full
	Trouble   string           `json:"trouble,omitzero"` // the last
}

// of calls f with the counts of a terminal.
func (c *counts) of(sn string, f func(t *terminalCounts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.terminals == nil {
		c.terminals = make(map[string]*terminalCounts)
	}
	t := c.terminals[sn]
	if t == nil {
		t = &terminalCounts{Reports: make(map[string]int64)}
		c.terminals[sn] = t
	}
	f(t)
}

func (c *counts) heartbeat(sn string) {
	c.of(sn, func(t *terminalCounts) { t.Heartbeat = time.Now() })
}

func (c *counts) trouble(sn string, err error) {
	c.of(sn, func(t *terminalCounts) {
		t.Troubles++
		if errors.Is(err, face.ErrDropped) {
			t.Dropped++
		}
		t.Trouble = fmt.Sprintf("%.500s", err.Error())
	})
}

// maxCmds bounds what is counted apart: a terminal may say what it likes.
const maxCmds = 64

func (c *counts) add(sn, cmd string) {
	c.of(sn, func(t *terminalCounts) {
		if _, known := t.Reports[cmd]; !known && (len(t.Reports) >= maxCmds || len(cmd) > 100) {
			cmd = "others"
		}
		t.Reports[cmd]++
		if cmd == "strangerRecordU" {
			t.Strangers++
		}
	})
}

func (c *counts) command(sn string, err error) {
	c.of(sn, func(t *terminalCounts) {
		if err != nil {
			t.Failed++
		} else {
			t.Commands++
		}
	})
}

func (c *counts) unkept() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost++
}

func (c *counts) posted(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.took++
		c.failing = time.Time{}
		return
	}
	c.failed++
	c.lastError = err.Error()
	if c.failing.IsZero() {
		c.failing = time.Now()
	}
}

func (b *bridge) getStatus(w http.ResponseWriter, _ *http.Request) {
	records, bytes := b.outbox.state()
	troubles := b.outbox.troubles.Load()
	c := &b.counts
	c.mu.Lock()
	callback := map[string]any{"url": shown(b.callback), "taken": c.took, "failed": c.failed, "last_error": c.lastError}
	if !c.failing.IsZero() {
		callback["failing_since"] = c.failing
	}
	text, err := json.MarshalIndent(map[string]any{
		"since":     c.since,
		"terminals": c.terminals,
		"outbox":    map[string]any{"waiting": records, "bytes": bytes, "limit": b.limit, "troubles": troubles},
		"pictures":  map[string]any{"failed": c.lost},
		"callback":  callback,
	}, "", "  ")
	c.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(text, '\n'))
}

// shown is a URL without its user and its query, where passwords and tokens are.
func shown(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}
