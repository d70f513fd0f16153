// Package interop_test has pixferry talk with peers that were written in another
// language, from the text of the device protocols alone: with some that follow it,
// and with some that make the mistakes of the programs in the field.
package interop_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait; it is for machines that have much else to do.
const patience = 60 * time.Second

// scratch holds the program under test.
var scratch string

func TestMain(m *testing.M) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = flag.Set("test.parallel", "6") // most of the time is spent waiting
	}
	os.Exit(func() int {
		var err error
		if scratch, err = os.MkdirTemp("", "interop"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(scratch)
		return m.Run()
	}())
}

// pixferryPath builds the program under test.
var pixferryPath = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "pixferry")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	out, err := exec.Command("go", "build", "-o", path, "github.com/pixferry/pixferry/examples/pixferry").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building pixferry: %w\n%s", err, out)
	}
	return path, nil
})

// pythonPath finds a Python that has paho, or else one that has not.
var pythonPath = sync.OnceValues(func() (path string, paho bool) {
	for _, name := range []string{"/usr/bin/python3", "python3", "python"} {
		p, err := exec.LookPath(name)
		if err != nil || exec.Command(p, "-c", "import sys; sys.exit(sys.version_info < (3, 9))").Run() != nil {
			continue
		}
		if path == "" {
			path = p
		}
		if exec.Command(p, "-c", "import paho.mqtt.client").Run() == nil {
			return p, true
		}
	}
	return path, false
})

// need skips a test if something is not installed; it fails if that is required.
func need(t *testing.T, what string, have bool) {
	t.Helper()
	if have {
		return
	}
	if strings.Contains(os.Getenv("PIXFERRY_REQUIRE"), what) {
		t.Fatalf("%s is required and not installed", what)
	}
	t.Skipf("%s is not installed", what)
}

func needPython(t *testing.T) {
	t.Helper()
	path, _ := pythonPath()
	need(t, "python3", path != "")
}

func needPaho(t *testing.T) {
	t.Helper()
	needPython(t)
	_, paho := pythonPath()
	need(t, "paho", paho)
}

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

// A report is what a peer says at its end.
type report struct {
	OK      bool
	Error   string
	Died    string
	Images  []peerImage
	Answers []string
	Texts   []map[string]any
	Broken  int
	Peers   int
	Junk    int

	Commands   json.RawMessage // texts (P3) or objects (P1)
	Missed     int
	Sources    [][]string
	Records    json.RawMessage
	Others     []map[string]any
	Time       string
	Heartbeats int

	Begins, Data, Streams, Finished, First, Packages, Unexpected int
	Missing                                                      []int
}

type peerImage struct {
	Name  string
	Bytes int
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

// A result is a line of pixferry.
type result struct {
	Name    string
	Bytes   int64
	Status  string
	Error   string
	Message *string
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

// trySend has pixferry send files, with flags before them, if any.
func trySend(t *testing.T, url string, more ...string) ([]result, error) {
	t.Helper()
	n := 0
	for n+1 < len(more) && strings.HasPrefix(more[n], "-") {
		n += 2
	}
	args := append([]string{"send"}, more[:n]...)
	args = append(append(args, url), more[n:]...)
	p := pixferry(t, args...)
	results := p.results(t, len(more)-n)
	if code := p.wait(t); code != 0 {
		return results, fmt.Errorf("%s: exit code %d", p.name, code)
	}
	return results, nil
}

// send has pixferry send files, which must succeed.
func send(t *testing.T, url string, more ...string) []result {
	t.Helper()
	results, err := trySend(t, url, more...)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// A receiver is a pixferry that receives.
type receiver struct {
	*process
	dir   string
	ports []string
}

func receive(t *testing.T, urls ...string) *receiver {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "in")
	r := &receiver{process: pixferry(t, append([]string{"recv", "-json", "-dir", dir}, urls...)...), dir: dir}
	for range urls {
		where := r.listening(t)
		r.ports = append(r.ports, where[strings.LastIndexByte(where, ':')+1:])
	}
	return r
}

// port is the flag for a peer that connects to the receiver's first URL.
func (r *receiver) port() string { return "--port=" + r.ports[0] }

// next returns the next line, which must be there.
func (r *receiver) next(t *testing.T) result {
	t.Helper()
	results := r.results(t, 1)
	if len(results) == 0 {
		t.Fatalf("%s has ended", r.name)
	}
	return results[0]
}

// expect waits for images and compares them.
func (r *receiver) expect(t *testing.T, want ...[]byte) {
	t.Helper()
	for i, w := range want {
		res := r.next(t)
		if res.Status != "delivered" || res.Error != "" {
			t.Fatalf("image %d: %+v", i, res)
		}
		equal(t, filepath.Join(r.dir, filepath.FromSlash(res.Name)), w)
	}
}

// expectMessages waits for messages.
func (r *receiver) expectMessages(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if res := r.next(t); res.Message == nil || *res.Message != w {
			t.Fatalf("%+v instead of the message %q", res, w)
		}
	}
}

// equal compares a file.
func equal(t *testing.T, path string, want []byte) {
	t.Helper()
	if err := same(path, want); err != nil {
		t.Fatal(err)
	}
}

func same(path string, want []byte) error {
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if bytes.Equal(got, want) {
		return nil
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	return fmt.Errorf("%s has %d bytes, want %d; they differ at %d", path, len(got), len(want), i)
}

// equalAll compares what a peer has stored under dir.
func equalAll(t *testing.T, dir string, r report, want ...[]byte) {
	t.Helper()
	if len(r.Images) != len(want) {
		t.Fatalf("the peer has %d images, want %d", len(r.Images), len(want))
	}
	for i, w := range want {
		equal(t, filepath.Join(dir, r.Images[i].Name), w)
	}
}

// jpeg returns n bytes that look like a JPEG file: the marks are where they belong.
func jpeg(n int) []byte {
	b := picture(n, "")
	for i := range b {
		b[i] &^= 0x80 // no mark among the data
	}
	copy(b, "\xff\xd8\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00")
	if n >= 14 {
		copy(b[n-2:], "\xff\xd9")
	}
	return b
}

// bmp returns n bytes that begin as a BMP file does, whose header tells n.
func bmp(n int) []byte {
	return picture(n, "BM"+string(binary.LittleEndian.AppendUint32(nil, uint32(n)))+"\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00")
}

func picture(n int, head string) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = r.Read(b) // never fails
	copy(b, head)
	return b
}

// file writes a file and returns its path.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// files writes images as 0.jpg, 1.jpg, ...
func files(t *testing.T, images [][]byte) []string {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for i, b := range images {
		path := filepath.Join(dir, strconv.Itoa(i)+".jpg")
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// images makes one of each size; with -short, only the first two.
func images(make func(int) []byte, sizes ...int) [][]byte {
	if testing.Short() && len(sizes) > 2 {
		sizes = sizes[:2]
	}
	var all [][]byte
	for _, n := range sizes {
		all = append(all, make(n))
	}
	return all
}

// long skips a test with -short.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("long")
	}
}

// attempts repeats what a loaded machine may spoil, such as datagrams in the
// buffers of a system that has no time to run their reader.
func attempts(t *testing.T, n int, f func() error) {
	t.Helper()
	for i := 1; ; i++ {
		err := f()
		if err == nil {
			return
		}
		if i == n {
			t.Fatal(err)
		}
		t.Logf("try %d: %v", i, err)
	}
}

func itoa(i int) string { return strconv.Itoa(i) }
