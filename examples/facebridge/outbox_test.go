package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
)

func open(t testing.TB, dir string, limit int64, post func(context.Context, []byte) error) *outbox {
	t.Helper()
	o, err := openOutbox(dir, limit, slog.New(slog.DiscardHandler), post)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func id(n uint64) transport.ID { return transport.MakeID(7, n) }

// closed returns a context that has ended: nothing under way is waited for.
func closed() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestOutboxIsForItsOwner(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs permissions")
	}
	dir := filepath.Join(t.TempDir(), "new", "outbox")
	o := open(t, dir, 100, nil)
	defer o.close(closed())
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info.Mode(), err)
	}
}

func TestOutbox(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	var posted []string
	fail := errors.New("down")
	post := func(_ context.Context, body []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if fail == nil {
			posted = append(posted, string(body))
		}
		return fail
	}
	o := open(t, dir, 100, post)
	o.start()
	for n := range uint64(10) {
		if isNew, err := o.add(fmt.Sprint(n%2), id(n), fmt.Appendf(nil, `"rec %02d"`, n)); !isNew || err != nil {
			t.Fatal(isNew, err)
		}
	}
	if isNew, err := o.add("0", id(3), []byte("again")); isNew || err != nil {
		t.Error("a duplicate of one that waits:", isNew, err)
	}
	_, err := o.add("0", id(99), make([]byte, 50))
	if refused := (*transport.RejectedError)(nil); !errors.As(err, &refused) || !refused.Retryable || !strings.Contains(refused.Text, "full") {
		t.Error("a full outbox says", err)
	}
	if runtime.GOOS == "linux" {
		if _, err := openOutbox(dir, 1, slog.New(slog.DiscardHandler), post); err == nil || !strings.Contains(err.Error(), "another bridge") {
			t.Error("a second bridge with the same outbox:", err)
		}
	}
	o.close(closed())
	if _, err := o.add("0", id(100), nil); err == nil {
		t.Error("a closed outbox takes a record")
	}

	os.WriteFile(filepath.Join(dir, "torn.json.new"), []byte("half"), 0o644)
	os.WriteFile(filepath.Join(dir, "foreign.new"), []byte("not ours"), 0o644)
	os.WriteFile(filepath.Join(dir, "strange.json"), []byte("?"), 0o644)
	o = open(t, dir, 100, post)
	if n, bytes := o.state(); n != 10 || bytes != 80 {
		t.Fatalf("%d records of %d bytes are left", n, bytes)
	}
	mu.Lock()
	fail = nil
	mu.Unlock()
	o.start()
	o.working.Wait() // a lane ends when it is empty
	o.close(t.Context())
	next := [2]int{0, 1}
	for _, p := range posted {
		var n int
		fmt.Sscanf(p, `"rec %d"`, &n)
		if n != next[n%2] {
			t.Errorf("record %d was posted when %d was next", n, next[n%2])
		}
		next[n%2] = n + 2
	}
	if len(posted) != 10 {
		t.Errorf("%d of 10 were posted", len(posted))
	}
	o = open(t, dir, 100, post)
	if isNew, err := o.add("0", id(5), []byte("again")); isNew || err != nil {
		t.Error("a duplicate of one that was taken in an earlier life:", isNew, err)
	}
	o.close(t.Context())
	if left, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(left) != 1 || filepath.Base(left[0]) != "foreign.new" {
		t.Errorf("%v are left", left)
	}
}

// A record that comes while the last one is being finished is posted once.
func TestOneWorkerForEachLane(t *testing.T) {
	var mu sync.Mutex
	posted := make(map[string]int)
	o := open(t, t.TempDir(), 1<<20, func(_ context.Context, body []byte) error {
		mu.Lock()
		defer mu.Unlock()
		posted[string(body)]++
		return nil
	})
	o.start()
	for n := range uint64(500) {
		if _, err := o.add("a", id(n), fmt.Append(nil, n)); err != nil {
			t.Fatal(err)
		}
	}
	o.working.Wait() // a lane ends when it is empty
	o.close(t.Context())
	for body, n := range posted {
		if n != 1 {
			t.Errorf("record %s was posted %d times", body, n)
		}
	}
	if len(posted) != 500 {
		t.Errorf("%d records were posted", len(posted))
	}
}

// At the end a post that is under way is waited for, and a pause is not.
func TestClose(t *testing.T) {
	entered, open2 := make(chan struct{}, 2), make(chan struct{})
	o := open(t, t.TempDir(), 1<<20, func(ctx context.Context, body []byte) error {
		entered <- struct{}{}
		if string(body) == `"fails"` {
			return errors.New("down")
		}
		select {
		case <-open2:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	o.start()
	o.add("a", id(1), []byte(`"fails"`))
	o.add("b", id(2), []byte(`"slow"`))
	await(t, "a post", entered)
	await(t, "a post", entered)
	ended := make(chan struct{})
	go func() { defer close(ended); o.close(t.Context()) }()
	<-o.again.Done()
	close(open2)
	await(t, "the end", ended)
	if n, _ := o.state(); n != 1 {
		t.Errorf("%d records wait", n)
	}
}

// What is remembered of the past is bounded, in memory and in the file.
func TestDoneIsBounded(t *testing.T) {
	dir := t.TempDir()
	o := open(t, dir, 1<<20, nil)
	o.mu.Lock()
	for n := range uint64(3*maxDone + 10) {
		o.remember(id(n))
	}
	if len(o.taken) != maxDone || len(o.order) != maxDone || o.taken[id(2*maxDone)] || !o.taken[id(3*maxDone)] {
		t.Errorf("%d and %d are remembered", len(o.taken), len(o.order))
	}
	o.lines = 2 * maxDone
	o.lanes["x"] = []entry{{"none.json", id(0), 0}}
	o.mu.Unlock()
	o.finish("x", entry{"none.json", id(0), 0})
	o.close(t.Context())
	if info, err := os.Stat(filepath.Join(dir, "done")); err != nil || info.Size() != 33*maxDone {
		t.Errorf("the file is %v (%v)", info.Size(), err)
	}
}

// The bridge is killed while the callback is down, and started again.
func TestKill(t *testing.T) {
	mqtt, call := broker(t), newCallback(t)
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	run := func() *exec.Cmd {
		cmd := exec.Command(exe, "-broker", mqtt, "-sn", "SN1", "-callback", call.URL+"/api", "-outbox", dir, "-listen", addr)
		cmd.Env = append(os.Environ(), asBridge+"=1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd
	}
	waiting := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if files, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(files) == n {
				return
			}
		}
		t.Fatalf("there are never %d records in the outbox", n)
	}
	p := newTerminal(t, mqtt, up, down)
	start := func() *exec.Cmd { // returns when a heartbeat is answered
		for len(p.got) > 0 {
			<-p.got
		}
		cmd := run()
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			p.publish(`{"cmd": "heartU"}`)
			select {
			case <-p.got:
				return cmd
			case <-time.After(50 * time.Millisecond):
			}
		}
		t.Fatal("the bridge does not answer")
		return nil
	}
	call.set(true)
	bridge := start()
	var want []string
	for round := range 3 {
		for n := range 10 {
			num := fmt.Sprint(round*100 + n)
			p.publish(verified(person(num)))
			want = append(want, num)
		}
		waiting(10 * (round + 1))
		bridge.Process.Kill()
		bridge.Wait()
		bridge = start()
	}
	bridge.Process.Kill()
	bridge.Wait()
	p.publish(verified(person("500"), person("205"))) // one while there is no bridge, and a duplicate
	want = append(want, "500")
	call.set(false)
	bridge = run()
	call.expect(t, want...)
	waiting(0)
	bridge.Process.Signal(os.Interrupt)
	if err := bridge.Wait(); err != nil {
		t.Error("the bridge ends with", err)
	}
	call.nothing(t)
}
