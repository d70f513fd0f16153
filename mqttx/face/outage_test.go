package face

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/transport"
)

// A watchedLog hands on its lines as they are written.
type watchedLog struct {
	mu    sync.Mutex
	all   bytes.Buffer
	lines chan string
}

func (w *watchedLog) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.Write(line)
	select {
	case w.lines <- string(line):
	default:
	}
	return len(line), nil
}

// While the broker is away the log says why, once, and so does the error of whoever waited for it.
func TestOutageSaysWhy(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	w := &watchedLog{lines: make(chan string, 100)}
	attempts := make(chan struct{}, 100)
	o := mqtt.NewClientOptions().SetConnectionAttemptHandler(func(_ *url.URL, c *tls.Config) *tls.Config {
		attempts <- struct{}{}
		return c
	})
	tr := &Transport{Broker: b.URL(), Serials: []string{"1"}, ClientOptions: o, Logger: slog.New(slog.NewTextHandler(w, nil))}
	c, err := tr.Dial(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	until := func(text string) {
		t.Helper()
		for !strings.Contains(await(t, text, w.lines), text) {
		}
	}
	until("connected to the broker")
	b.Stop()
	until("cannot connect at the moment")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = c.SendMessage(ctx, transport.Message{Data: []byte(`{}`)})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
	for range 4 { // one for Dial, two that have failed
		await(t, "another attempt", attempts)
	}
	b.Start()
	until("connected to the broker")
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := strings.Count(w.all.String(), "cannot connect at the moment"); n != 1 {
		t.Errorf("%d lines say why: %s", n, &w.all)
	}
}
