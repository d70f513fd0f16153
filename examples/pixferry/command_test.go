package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testbroker"
)

// runs executes the program to its end.
func runs(t *testing.T, stdin io.Reader, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(t.Context(), args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errOut
	ended := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer ended.Stop()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// results parses what -json has printed.
func results(t *testing.T, stdout string) (all []result) {
	t.Helper()
	for line := range strings.Lines(stdout) {
		var r result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

func newJournal(t *testing.T) string { return filepath.Join(t.TempDir(), "journal") }

// next returns the next image that recv reports.
func (p *process) next(t *testing.T) result {
	t.Helper()
	select {
	case line, ok := <-p.lines:
		if ok {
			return results(t, line)[0]
		}
	case <-time.After(20 * time.Second):
	}
	t.Fatal("recv reports nothing")
	panic("unreachable")
}

// end waits for the end of recv and returns its exit status.
func (p *process) end(t *testing.T) int {
	t.Helper()
	ended := time.AfterFunc(20*time.Second, func() { p.Process.Kill() })
	defer ended.Stop()
	p.Wait()
	return p.ProcessState.ExitCode()
}

func TestUsage(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"", 2, "usage:"},
		{"help", 0, "usage:"},
		{"send -h", 0, "-concurrency"},
		{"recv -h", 0, "-idle"},
		{"bogus tcp://127.0.0.1:1", 2, "usage:"},
		{"send", 2, "needs a URL and files"},
		{"send tcp://127.0.0.1:1", 2, "needs a URL and files"},
		{"send -bogus tcp://127.0.0.1:1 f", 2, "-bogus"},
		{"send -timeout soon tcp://127.0.0.1:1 f", 2, "-timeout"},
		{"send -timeout -1s tcp://127.0.0.1:1 f", 2, "negative"},
		{"send -concurrency -1 tcp://127.0.0.1:1 f", 2, "negative"},
		{"send -progress sometimes tcp://127.0.0.1:1 f", 2, "auto, always or never"},
		{"send -id zz tcp://127.0.0.1:1 f", 2, "32 hexadecimal digits"},
		{"send -id 00000000000000000000000000000000 tcp://127.0.0.1:1 f", 2, "zeros"},
		{"send -id " + id + " tcp://127.0.0.1:1 f g", 2, "one file"},
		{"send tcp://127.0.0.1:1 - -", 2, "once"},
		{"send tcp://127.0.0.1 f", 2, "HOST:PORT"},
		{"send tcp://127.0.0.1:99999 f", 2, "99999"},
		{"send tcp://127.0.0.1:1?ca=x f", 2, "ca is not one of: none"},
		{"send tcps://127.0.0.1:1?CA=x f", 2, "CA is not one of: ca, cert, key"},
		{"send tcp://127.0.0.1:1/name f", 2, "/name"},
		{"send mqtt://127.0.0.1:1 f", 2, "receiver's name"},
		{"send http://127.0.0.1:1 f", 2, "unknown scheme"},
		{"send udp+json://127.0.0.1:1 f", 2, "-message TEXT"},
		{"recv", 2, "needs a URL"},
		{"recv -count -1 tcp://127.0.0.1:0", 2, "negative"},
		{"recv -idle -1s tcp://127.0.0.1:0", 2, "negative"},
		{"recv tcps://127.0.0.1:0", 2, "cert=FILE"},
		{"recv tcp://127.0.0.1:0 smoke://127.0.0.1:0", 2, "unknown scheme"},
	} {
		stdout, stderr, code := runs(t, nil, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%s: exit %d, want %d and %q:\n%s%s", c.args, code, c.code, c.says, stdout, stderr)
		}
		if code != 0 && stdout != "" {
			t.Errorf("%s: on stdout: %s", c.args, stdout)
		}
	}
}

// onEach calls f with a URL of each transport at which recv may listen.
func onEach(t *testing.T, f func(t *testing.T, url string)) {
	t.Run("tcp", func(t *testing.T) { f(t, "tcp://127.0.0.1:0") })
	t.Run("udp", func(t *testing.T) { f(t, "udp://127.0.0.1:0") })
	t.Run("mqtt", func(t *testing.T) { f(t, testbroker.Embedded(t, testbroker.Options{}).URL()+"/receiver") })
}

func TestSizesAndJSON(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, url string) {
		dir := t.TempDir()
		var files []string
		for _, size := range []int64{0, 1, 16<<10 - 1, 16 << 10, 16<<10 + 1, 256<<10 - 1, 256 << 10, 256<<10 + 1, 1<<20 - 1, 1 << 20, 1<<20 + 1} {
			file := filepath.Join(dir, fmt.Sprintf("%d.bin", size))
			if err := os.Rename(randomFile(t, size), file); err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		got := t.TempDir()
		recv := startRecv(t, "-dir", got, "-count", fmt.Sprint(len(files)+1), url)
		stdout, stderr, code := runs(t, nil, append([]string{"send", "-json", "-journal", newJournal(t), recv.url}, files...)...)
		if code != 0 || stderr != "" {
			t.Fatalf("exit %d: %s%s", code, stdout, stderr)
		}
		pipe, err := os.Open(files[len(files)-1])
		if err != nil {
			t.Fatal(err)
		}
		defer pipe.Close()
		more, _, code := runs(t, io.MultiReader(pipe), "send", "-json", recv.url, "-") // a pipe: its size is unknown
		if code != 0 {
			t.Fatalf("standard input: exit %d: %s", code, more)
		}
		sent := results(t, stdout+more)
		digests := make(map[string]int)
		for _, r := range sent {
			if r.Status != "delivered" || r.Error != "" || r.Seconds <= 0 || !strings.HasPrefix(r.Digest, "xxh3-128:") {
				t.Errorf("%+v", r)
			}
			if r.Name != "-" && r.Name != fmt.Sprintf("%d.bin", r.Bytes) {
				t.Errorf("%s has %d bytes", r.Name, r.Bytes)
			}
			digests[r.Digest]++
		}
		for range sent {
			r := recv.next(t)
			if r.Status != "delivered" {
				t.Errorf("recv: %+v", r)
			}
			digests[r.Digest]--
			if r.Name != fmt.Sprintf("%d.bin", r.Bytes) { // that of standard input has the ID's name
				sameFiles(t, files[len(files)-1], filepath.Join(got, r.Name))
			}
		}
		for digest, n := range digests {
			if n != 0 {
				t.Errorf("%s: the sides differ", digest)
			}
		}
		for _, file := range files {
			sameFiles(t, file, filepath.Join(got, filepath.Base(file)))
		}
		if code := recv.end(t); code != 0 {
			t.Errorf("recv: exit %d", code)
		}
		var keys map[string]any
		json.Unmarshal([]byte(more), &keys)
		for _, key := range []string{"name", "bytes", "seconds", "resent", "resumed", "digest", "status", "error"} {
			if _, ok := keys[key]; !ok {
				t.Errorf("no %q in %s", key, more)
			}
			delete(keys, key)
		}
		if len(keys) > 0 {
			t.Errorf("surplus: %v", keys)
		}
	})
}

func TestSameIDIsStoredOnce(t *testing.T) {
	dir, one, other := t.TempDir(), randomFile(t, 1000), randomFile(t, 2000)
	recv := startRecv(t, "-dir", dir, "tcp://127.0.0.1:0")
	const id = "0123456789abcdef0123456789abcdef"
	for range 2 {
		if r, err := sendOne(t, "-journal", newJournal(t), "-id", id, recv.url, one); err != nil || r.Status != "delivered" {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if r, err := sendOne(t, "-journal", newJournal(t), "-id", id, recv.url, other); err == nil || !strings.Contains(r.Error, "new ID") {
		t.Errorf("another image under the ID: %+v, %v", r, err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "image*")); len(files) != 1 {
		t.Errorf("stored: %v", files)
	}
}

// TestEveryFileIsReported whatever stands in its way.
func TestEveryFileIsReported(t *testing.T) {
	t.Parallel()
	good, missing, huge := randomFile(t, 10), filepath.Join(t.TempDir(), "missing"), filepath.Join(t.TempDir(), "huge")
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 16<<30+1); err != nil { // a hole
		t.Log("no image over the limit: ", err)
	}
	recv := startRecv(t, "-dir", t.TempDir(), "tcp://127.0.0.1:0")
	stdout, _, code := runs(t, nil, "send", "-json", "-journal", newJournal(t), "-concurrency", "1", recv.url, missing, filepath.Dir(missing), huge, good)
	all := results(t, stdout)
	if code != 1 || len(all) != 4 {
		t.Fatalf("exit %d: %s", code, stdout)
	}
	for i, want := range []struct{ status, text string }{{"failed", "missing"}, {"failed", "directory"}, {"rejected", "at most"}, {"delivered", ""}} {
		if all[i].Status != want.status || !strings.Contains(all[i].Error, want.text) {
			t.Errorf("%+v, want %s: %s", all[i], want.status, want.text)
		}
	}
	stdout, _, code = runs(t, nil, "send", "-json", "-journal", newJournal(t), "-message", strings.Repeat("x", 70_000), recv.url, good, good)
	if all := results(t, stdout); code != 1 || len(all) != 2 || !strings.Contains(all[1].Error, "limit") {
		t.Errorf("after a message that was refused: exit %d: %s", code, stdout)
	}
	stdout, _, code = runs(t, nil, "send", "-json", "-journal", newJournal(t), "-timeout", "300ms", "tcp://"+freePort(t, "tcp"), good, good)
	if all := results(t, stdout); code != 1 || len(all) != 2 || !strings.Contains(all[1].Error, "dial") {
		t.Errorf("without a receiver: exit %d: %s", code, stdout)
	}
	hold, never, err := os.Pipe() // standard input that never comes
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	defer never.Close()
	args := []string{"send", "-json", "-journal", newJournal(t), "-concurrency", "1", "-timeout", "300ms", recv.url, "-"}
	for range 100 {
		args = append(args, good)
	}
	stdout, _, code = runs(t, hold, args...)
	if all := results(t, stdout); code != 1 || len(all) != 101 || !strings.Contains(all[100].Error, "not begun: ") || len(all[100].Error) > 200 {
		t.Errorf("after the timeout: exit %d, %d lines", code, len(all))
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	recv := startRecv(t, "-dir", t.TempDir(), "-idle", "3s", "udp://127.0.0.1:0")
	if out, errOut, code := runs(t, nil, "send", "-message", "a \"text\"", recv.url); code != 0 || out+errOut != "" {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
	if line := <-recv.lines; line != `{"message":"a \"text\""}` {
		t.Errorf("recv: %s", line)
	}
	if code := recv.end(t); code != 0 {
		t.Errorf("idle: exit %d", code)
	}
}

// TestReadyOrNot: recv says that it listens when all of it does.
func TestReadyOrNot(t *testing.T) {
	dir, other, file := t.TempDir(), t.TempDir(), randomFile(t, 1)
	taken := startRecv(t, "-dir", other, "tcp://127.0.0.1:0")
	for says, args := range map[string][]string{
		"directory":               {"-dir", file, "tcp://127.0.0.1:0"},
		"another DirStore":        {"-dir", other, "tcp://127.0.0.1:0"},
		"address already in use":  {"-dir", dir, "tcp://127.0.0.1:0", taken.url},
		"cannot connect":          {"-dir", dir, "mqtt://" + freePort(t, "tcp") + "/name"},
		"cannot connect to the b": {"-dir", dir, "tcp://127.0.0.1:0", "mqtt://" + freePort(t, "tcp") + "/name"},
	} {
		if runtime.GOOS == "windows" && says != "cannot connect" {
			continue // other words
		}
		stdout, stderr, code := runs(t, nil, append([]string{"recv"}, args...)...)
		if code != 1 || stdout != "" || !strings.Contains(stderr, says) {
			t.Errorf("%v: exit %d: %s%s", args, code, stdout, stderr)
		}
	}
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no ulimit")
	}
	dir, url := t.TempDir(), "tcp://"+freePort(t, "tcp")
	recv := command(t.Context(), "recv", "-json", "-dir", dir, url)
	recv.Path, recv.Args = "/bin/sh", []string{"sh", "-c", `ulimit -f 1000 && exec "$0" "$@"`, os.Args[0], "recv", "-json", "-dir", dir, url}
	stdout, err := recv.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin(t, recv)
	defer recv.Wait()
	defer recv.Process.Kill()
	if r, err := sendOne(t, "-journal", newJournal(t), url, randomFile(t, 4<<20)); err == nil || r.Status != "rejected" || !strings.Contains(r.Error, "disk") {
		t.Errorf("%+v, %v", r, err)
	}
	small := randomFile(t, 1000)
	if r, err := sendOne(t, "-journal", newJournal(t), url, small); err != nil {
		t.Errorf("the next image: %+v, %v", r, err)
	}
	sameFiles(t, small, filepath.Join(dir, "image.bin"))
	recv.Process.Signal(os.Interrupt)
	all, err := io.ReadAll(stdout)
	lines := strings.Split(strings.TrimSpace(string(all)), "\n") // the first says listening
	if err != nil || len(lines) != 3 || !strings.Contains(lines[1], `"rejected"`) || !strings.Contains(lines[2], `"delivered"`) {
		t.Errorf("recv has printed another number of lines than one for each image: %s", all)
	}
}

// TestDirectoryRemoved while recv runs: it is made anew.
func TestDirectoryRemoved(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nobody can")
	}
	dir, file := filepath.Join(t.TempDir(), "in"), randomFile(t, 1000)
	recv := startRecv(t, "-dir", dir, "tcp://127.0.0.1:0")
	for range 3 {
		if r, err := sendOne(t, "-journal", newJournal(t), recv.url, file); err != nil || r.Status != "delivered" {
			t.Fatalf("%+v, %v", r, err)
		}
		sameFiles(t, file, filepath.Join(dir, "image.bin"))
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProgress(t *testing.T) {
	file, recv := randomFile(t, 1<<20), startRecv(t, "-dir", t.TempDir(), "tcp://127.0.0.1:0")
	for progress, bar := range map[string]bool{"auto": false, "always": true, "never": false} {
		stdout, stderr, code := runs(t, nil, "send", "-journal", newJournal(t), "-progress", progress, recv.url, file)
		if code != 0 || strings.Contains(stderr, "\r") != bar || !strings.HasPrefix(stdout, "delivered image.bin: 1048576 bytes in ") || strings.Count(stdout, "\n") != 1 {
			t.Errorf("%s, no terminal: exit %d, stdout %q, stderr %q", progress, code, stdout, stderr)
		}
	}
	script, err := exec.LookPath("script")
	if err != nil || runtime.GOOS != "linux" {
		t.Skip("no script of util-linux, which has a terminal")
	}
	for progress, bar := range map[string]bool{"auto": true, "never": false} {
		cmd := exec.CommandContext(t.Context(), script, "-qec", strings.Join([]string{os.Args[0], "send -progress", progress, "-journal", newJournal(t), recv.url, file}, " "), "/dev/null")
		cmd.Env = append(os.Environ(), "PIXFERRY_TEST_MAIN=1", "TERM=xterm")
		out, err := cmd.Output()
		if err != nil || strings.Contains(strings.ReplaceAll(string(out), "\r\n", "\n"), "\r") != bar || !strings.Contains(string(out), "delivered image.bin") {
			t.Errorf("%s, terminal: %v: %q", progress, err, out)
		}
	}
}

// TestGarbage: whoever speaks something else harms nobody.
func TestGarbage(t *testing.T) {
	recv := startRecv(t, "-dir", t.TempDir(), "tcp://127.0.0.1:0")
	dir := filepath.Join(t.TempDir(), "udp")
	recvUDP := startRecv(t, "-dir", dir, "udp://127.0.0.1:0")
	noise, err := os.ReadFile(randomFile(t, 200_000))
	if err != nil {
		t.Fatal(err)
	}
	for i, garbage := range [][]byte{nil, {0}, []byte("GET / HTTP/1.1\r\n\r\n"), bytes.Repeat([]byte{0xff}, 100_000), make([]byte, 1000), noise, noise[1:50], {0x16, 3, 1, 2, 0, 1}} {
		c, err := net.Dial("tcp", strings.TrimPrefix(recv.url, "tcp://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write(garbage)
		if i%2 == 0 { // the others stay open
			c.Close()
		}
		u, err := net.Dial("udp", strings.TrimPrefix(recvUDP.url, "udp://"))
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		u.Write(garbage[:min(len(garbage), 60_000)])
	}
	file := randomFile(t, 100_000)
	for _, p := range []*process{recv, recvUDP} {
		if r, err := sendOne(t, "-journal", newJournal(t), p.url, file); err != nil || r.Status != "delivered" {
			t.Errorf("%s: %+v, %v", p.url, r, err)
		}
	}
}

// A batch of which one file is missing: when it is run again nothing is stored twice. Once all are
// delivered the same command is a new delivery.
func TestBatchIsFinishedByTheSameCommand(t *testing.T) {
	t.Parallel()
	dir, journal := t.TempDir(), newJournal(t)
	recv := startRecv(t, "-dir", dir, "tcp://127.0.0.1:0")
	late := filepath.Join(t.TempDir(), "late")
	files := []string{randomFile(t, 10), randomFile(t, 3<<20), late}
	stored := func() (n int) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !e.IsDir() {
				n++
			}
		}
		return n
	}
	send := func(wantCode, wantStored int) {
		t.Helper()
		stdout, _, code := runs(t, nil, append([]string{"send", "-json", "-journal", journal, recv.url}, files...)...)
		if n := stored(); code != wantCode || n != wantStored {
			t.Errorf("exit %d, %d files stored, want %d and %d:\n%s", code, n, wantCode, wantStored, stdout)
		}
	}
	send(1, 2)
	send(1, 2)
	info, err := os.Stat(files[0])
	if err == nil {
		err = errors.Join(os.WriteFile(files[0], []byte("otherwise."), 0o600), os.Chtimes(files[0], time.Time{}, info.ModTime())) // as only its digest tells
	}
	if err != nil {
		t.Fatal(err)
	}
	send(1, 2) // another image under the same ID
	send(1, 3)
	if err := os.WriteFile(late, []byte("late"), 0o600); err != nil {
		t.Fatal(err)
	}
	send(0, 4)
	send(0, 7)
}
