package interop_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A process is a peer or pixferry.
type process struct {
	name   string
	cmd    *exec.Cmd
	lines  chan string // its standard output
	ended  chan struct{}
	stderr lockedBuffer
	stop   func()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a program until it ends, is stopped, or the test is over.
func start(t *testing.T, path string, args ...string) *process {
	t.Helper()
	p := &process{
		name:  filepath.Base(path) + " " + strings.Join(args, " "),
		cmd:   exec.Command(path, args...),
		lines: make(chan string, 1000),
		ended: make(chan struct{}),
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = &p.stderr
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		r := bufio.NewReaderSize(out, 1<<16)
		for {
			line, err := r.ReadString('\n')
			if line != "" {
				p.lines <- strings.TrimSpace(line)
			}
			if err != nil {
				break
			}
		}
		close(p.lines)
		_ = p.cmd.Wait() // the code is in ProcessState
	}()
	p.stop = sync.OnceFunc(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		for range p.lines {
		}
		<-p.ended
	})
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("%s: exit code %d\n%s", p.name, p.cmd.ProcessState.ExitCode(), p.stderr.String())
		}
	})
	return p
}

// pixferry starts the program under test.
func pixferry(t *testing.T, args ...string) *process {
	t.Helper()
	path, err := pixferryPath()
	if err != nil {
		t.Fatal(err)
	}
	if args[0] == "send" {
		args = append([]string{"send", "-json", "-progress=never", "-journal", filepath.Join(t.TempDir(), "journal")}, args[1:]...)
	}
	return start(t, path, args...)
}

// python starts a peer.
func python(t *testing.T, script string, args ...string) *process {
	t.Helper()
	path, _ := pythonPath()
	limit := strconv.Itoa(int(patience / time.Second))
	args = append([]string{"-B", filepath.Join("testdata", script), "--limit", limit}, args...)
	return start(t, path, args...)
}

// line returns the next line of standard output, and false at its end.
func (p *process) line(t *testing.T) (string, bool) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case line, ok := <-p.lines:
		if ok {
			t.Logf("%s: %.300s", p.name, line)
		}
		return line, ok
	case <-timer.C:
		t.Fatalf("%s says nothing for %v; standard error:\n%s", p.name, patience, p.stderr.String())
		return "", false
	}
}

// listening waits until p can be reached and returns where: HOST:PORT.
func (p *process) listening(t *testing.T) string {
	t.Helper()
	line, _ := p.line(t)
	where, ok := strings.CutPrefix(line, "listening ")
	if !ok {
		t.Fatalf("%s is not listening: %q; standard error:\n%s", p.name, line, p.stderr.String())
	}
	if _, after, ok := strings.Cut(where, "://"); ok {
		where, _, _ = strings.Cut(after, "?")
	}
	return where
}

// wait waits for the end of p.
func (p *process) wait(t *testing.T) (code int) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-p.lines:
			if ok {
				t.Logf("%s: %.300s", p.name, line)
				continue
			}
			<-p.ended
			return p.cmd.ProcessState.ExitCode()
		case <-timer.C:
			t.Fatalf("%s does not end; standard error:\n%s", p.name, p.stderr.String())
		}
	}
}

// report returns what a peer says at its end.
func (p *process) report(t *testing.T) report {
	t.Helper()
	line, _ := p.line(t)
	var r report
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		t.Fatalf("%s: %q: %v; standard error:\n%s", p.name, line, err, p.stderr.String())
	}
	return r
}

// good returns what a peer says at its end, which must be good.
func (p *process) good(t *testing.T) report {
	t.Helper()
	r := p.report(t)
	if !r.OK {
		t.Fatalf("%s: %s%s", p.name, r.Error, r.Died)
	}
	return r
}

// results returns n lines of pixferry, or as many as there are.
func (p *process) results(t *testing.T, n int) []result {
	t.Helper()
	var results []result
	for range n {
		line, ok := p.line(t)
		if !ok {
			break
		}
		var r result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %q: %v", p.name, line, err)
		}
		results = append(results, r)
	}
	return results
}
