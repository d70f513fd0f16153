package testbroker

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Process is a mosquitto that runs as a process of its own.
type Process struct {
	t      testing.TB
	path   string
	port   string
	config string // file

	cmd  *exec.Cmd
	done chan struct{} // closed when its log has ended
}

// Mosquitto starts mosquitto with its defaults, anonymous clients, and more lines of
// configuration. Where it is not installed the test is skipped, or fails if the
// environment variable PIXFERRY_REQUIRE names mosquitto.
func Mosquitto(t testing.TB, more string) *Process {
	path, err := findMosquitto()
	if err != nil {
		if strings.Contains(os.Getenv("PIXFERRY_REQUIRE"), "mosquitto") {
			t.Fatal(err)
		}
		t.Skip("mosquitto is not installed")
	}
	p := &Process{t: t, path: path, port: freePort(t), config: filepath.Join(t.TempDir(), "mosquitto.conf")}
	lines := fmt.Sprintf("listener %s 127.0.0.1\nlog_dest stderr\npersistence false\nuser root\n%s\n", p.port, more)
	if !strings.Contains(more, "allow_anonymous") {
		lines += "allow_anonymous true\n"
	}
	if err := os.WriteFile(p.config, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Start()
	t.Cleanup(p.Stop)
	return p
}

// findMosquitto also looks where daemons live that are not in everybody's PATH.
func findMosquitto() (string, error) {
	path, err := exec.LookPath("mosquitto")
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, "mosquitto"))
		}
	}
	return path, err
}

// URL implements Broker.
func (p *Process) URL() string { return "mqtt://127.0.0.1:" + p.port }

// Start implements Broker. It returns when mosquitto says that it runs.
func (p *Process) Start() {
	p.cmd = exec.Command(p.path, "-c", p.config)
	log, err := p.cmd.StderrPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.done = make(chan struct{})
	running := make(chan string, 1)
	go func() {
		defer close(p.done)
		var said strings.Builder
		in := bufio.NewScanner(log)
		for in.Scan() {
			said.WriteString(in.Text() + "\n")
			if strings.HasSuffix(in.Text(), " running") {
				running <- ""
				io.Copy(io.Discard, log)
				return
			}
		}
		running <- said.String()
	}()
	select {
	case said := <-running:
		if said != "" {
			p.Stop()
			p.t.Fatalf("mosquitto does not start: %s", said)
		}
	case <-time.After(10 * time.Second):
		p.Stop()
		p.t.Fatal("mosquitto does not say that it runs")
	}
}

// Stop implements Broker.
func (p *Process) Stop() {
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Kill()
	<-p.done // before Wait, which closes the pipe
	p.cmd.Wait()
	p.cmd = nil
}
