package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A record that a failing disk has damaged does not hold up its terminal, and what cannot
// be read is told.
func TestTornRecords(t *testing.T) {
	dir := t.TempDir()
	name := func(n uint64) string { return fmt.Sprintf("%020d-%s-%v.json", n, laneOf("a"), id(n)) }
	if err := os.Mkdir(filepath.Join(dir, name(1)), 0o755); err != nil {
		t.Fatal(err)
	}
	for n, content := range map[uint64]string{2: "", 3: `{"half": `, 4: `"whole"`} {
		if err := os.WriteFile(filepath.Join(dir, name(n)), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	posted := make(chan string, 10)
	o := open(t, dir, 1<<20, func(_ context.Context, body []byte) error { posted <- string(body); return nil })
	if n, _ := o.state(); n != 3 {
		t.Errorf("%d records wait", n)
	}
	o.start()
	if got := await(t, "a record", posted); got != `"whole"` {
		t.Errorf("posted was %s", got)
	}
	o.working.Wait()
	if bad, _ := filepath.Glob(filepath.Join(dir, "*.bad")); len(bad) != 2 || o.troubles.Load() != 2 || len(posted) > 0 {
		t.Errorf("%v are set aside, %d troubles", bad, o.troubles.Load())
	}
	if isNew, err := o.add("a", id(2), []byte(`"again"`)); !isNew || err != nil {
		t.Error("a torn record comes again:", isNew, err)
	}
	o.working.Wait()
	if err := o.try(t.Context(), entry{name: name(1)}); err == nil || o.troubles.Load() != 3 {
		t.Errorf("a record that cannot be read: %v, %d troubles", err, o.troubles.Load())
	}
	o.close(t.Context())
}

// A full disk keeps nobody from starting, and nothing that was known is forgotten.
func TestDoneCannotBeCompacted(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "done"), fmt.Appendf(nil, "%v\n%.10s", id(1), id(2)), 0o644)
	inTheWay := filepath.Join(dir, "done.new")
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := open(t, dir, 1<<20, func(context.Context, []byte) error { return nil })
	if _, err := o.add("a", id(3), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	o.working.Wait()
	o.mu.Lock()
	if err := o.compact(); err == nil {
		t.Error("it could be compacted")
	}
	o.mu.Unlock()
	if _, err := o.add("a", id(4), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	o.working.Wait()
	o.close(t.Context())
	os.RemoveAll(inTheWay)
	o = open(t, dir, 1<<20, nil)
	defer o.close(t.Context())
	if !o.taken[id(1)] || !o.taken[id(3)] || !o.taken[id(4)] || len(o.taken) != 3 {
		t.Errorf("known are %v", o.order)
	}
}

// One record always has room.
func TestLargeRecord(t *testing.T) {
	down := errors.New("down")
	o := open(t, t.TempDir(), 3, func(context.Context, []byte) error { return down })
	defer o.close(closed())
	if isNew, err := o.add("a", id(1), []byte(`"large"`)); !isNew || err != nil {
		t.Error(isNew, err)
	}
	if _, err := o.add("a", id(2), []byte("1")); err == nil {
		t.Error("the outbox is over its limit and takes more")
	}
}

// Records go on when their pictures cannot be kept.
func TestPicturesCannotBeKept(t *testing.T) {
	mqtt, call := broker(t), newCallback(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	url, _ := start(t, "-broker", mqtt, "-sn", "SN1", "-callback", call.URL+"/api", "-pictures", filepath.Join(file, "dir"))
	p := newTerminal(t, mqtt, up, down)
	p.publish(verified(person("1"), person("2")))
	call.expect(t, "1", "2")
	status(t, url, "pictures that were not kept", func(s map[string]any) bool { return at(s, "pictures", "failed") == "2" })
	call.nothing(t)
}

// A client that is slow has no say in how the bridge ends.
func TestSlowClientAtTheEnd(t *testing.T) {
	entered := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}))
	ended := make(chan error, 1)
	go func() {
		resp, err := http.Get(srv.URL)
		if err == nil {
			resp.Body.Close()
		}
		ended <- err
	}()
	await(t, "a request", entered)
	end(closed(), srv.Config)
	if err := await(t, "the end of its connection", ended); err == nil {
		t.Error("the client is answered")
	}
	srv.Close()
}

func TestExitStatus(t *testing.T) {
	for _, args := range [][]string{{}, {"-x"}, {"-sn", "a", "b"}, {"-sn", "a", "-outbox-limit", "1000"}, {"-sn", "a", "-callback", "x"}} {
		if err := run(t.Context(), args, io.Discard); err == nil || exitStatus(err) != 2 {
			t.Errorf("%v: %v, exit %d", args, err, exitStatus(err))
		}
	}
	if err := run(t.Context(), []string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Error(err)
	}
	rules := filepath.Join(t.TempDir(), "none")
	if err := run(t.Context(), []string{"-sn", "a", "-rules", rules}, io.Discard); err == nil || exitStatus(err) != 1 || !strings.Contains(err.Error(), rules) {
		t.Error(err)
	}
}
