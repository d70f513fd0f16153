//go:build unix

package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCountIsEnough: who comes when enough are there waits for another receiver, and
// fails if it may not, and recv does not.
func TestCountIsEnough(t *testing.T) {
	file := randomFile(t, 300_000)
	recv := startRecv(t, "-dir", t.TempDir(), "-count", "2", "tcp://127.0.0.1:0")
	args := []string{"send", "-json", "-journal", newJournal(t), "-concurrency", "2", recv.url}
	for range 50 {
		args = append(args, file)
	}
	send := command(t.Context(), args...)
	out, err := send.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin(t, send)
	if code := recv.end(t); code != 0 {
		t.Errorf("recv: exit %d", code)
	}
	lines, delivered := 0, 0
	for scan := bufio.NewScanner(out); scan.Scan(); lines++ {
		if strings.Contains(scan.Text(), `"delivered"`) {
			if delivered++; delivered == 2 {
				send.Process.Signal(os.Interrupt)
			}
		}
	}
	send.Wait()
	if send.ProcessState.ExitCode() != 1 || lines != 50 || delivered < 2 || delivered == 50 {
		t.Errorf("exit %d: %d of %d delivered", send.ProcessState.ExitCode(), delivered, lines)
	}
}

// TestReceiverShutDown in good order, as a deployment does, and started again: the sender
// goes on by itself.
func TestReceiverShutDown(t *testing.T) {
	t.Parallel()
	media(t, func(t *testing.T, m medium) {
		t.Parallel()
		dir := t.TempDir()
		recv := startRecv(t, "-dir", dir, m.recv)
		hold, image, err := os.Pipe() // so that one image is on its way, and another one comes after it
		if err != nil {
			t.Fatal(err)
		}
		defer hold.Close()
		next := randomFile(t, 300_000)
		send := command(t.Context(), "send", "-json", "-journal", newJournal(t), "-concurrency", "1", m.recv, "-", next)
		var out bytes.Buffer
		send.Stdin, send.Stdout = hold, &out
		begin(t, send)
		if _, err := image.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); ; {
			if parts, _ := filepath.Glob(filepath.Join(dir, ".pixferry", "*.part")); len(parts) > 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("no image is on its way")
			}
			time.Sleep(time.Millisecond) // a real process
		}
		recv.Process.Signal(syscall.SIGTERM)
		image.Close() // while recv waits for it, or when it has given it up
		recv.end(t)
		startRecv(t, "-dir", dir, m.recv)
		send.Wait()
		all := results(t, out.String())
		if len(all) != 2 || all[1].Status != "delivered" {
			t.Fatalf("exit %d: %s", send.ProcessState.ExitCode(), &out)
		}
		sameFiles(t, next, filepath.Join(dir, filepath.Base(next)))
	})
}

// TestTwoSendsOfOneFile at the same time: the second goes on with the image, which is
// stored once, and the first says so and leaves the journal to the second.
func TestTwoSendsOfOneFile(t *testing.T) {
	t.Parallel()
	dir, file, journal := t.TempDir(), randomFile(t, 8<<20), newJournal(t)
	recv := startRecv(t, "-dir", dir, "tcp://127.0.0.1:0")
	to, gate, goOn := slowly(t, strings.TrimPrefix(recv.url, "tcp://"), 1<<20)
	var outs [2]bytes.Buffer
	var sends [2]*exec.Cmd
	for i := range sends {
		sends[i] = command(t.Context(), "send", "-json", "-journal", journal, to, file)
		sends[i].Stdout = &outs[i]
		begin(t, sends[i])
		<-gate // it is on its way
	}
	sends[0].Wait()
	if all := results(t, outs[0].String()); len(all) != 1 || all[0].Status != "rejected" || !strings.Contains(all[0].Error, "another connection") {
		t.Errorf("the first: exit %d: %s", sends[0].ProcessState.ExitCode(), &outs[0])
	}
	if j, err := openJournal(journal); err != nil || len(j.open) != 1 {
		t.Errorf("%d unfinished deliveries, want that of the second: %v", len(j.open), err)
	}
	close(goOn)
	sends[1].Wait()
	if all := results(t, outs[1].String()); len(all) != 1 || all[0].Status != "delivered" {
		t.Errorf("the second: exit %d: %s", sends[1].ProcessState.ExitCode(), &outs[1])
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "image*")); len(files) != 1 {
		t.Errorf("stored: %v", files)
	}
	sameFiles(t, file, filepath.Join(dir, "image.bin"))
}

// slowly forwards connections: the first bytes of each, then it sends on gate, and the
// others once goOn is closed, but for the first connection, which trickles on: its sender
// is told with its next bytes that they are not wanted.
func slowly(t *testing.T, target string, first int64) (url string, gate, goOn chan struct{}) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	gate, goOn = make(chan struct{}), make(chan struct{})
	go func() {
		for trickle := true; ; trickle = false {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", target)
			if err != nil {
				a.Close()
				continue
			}
			go func() { defer a.Close(); io.Copy(a, b) }()
			go func() {
				defer b.Close()
				io.CopyN(b, a, first)
				gate <- struct{}{}
				for trickle {
					if _, err := io.CopyN(b, a, 16<<10); err != nil {
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
				<-goOn
				io.Copy(b, a)
			}()
		}
	}()
	return "tcp://" + l.Addr().String(), gate, goOn
}

// TestProcessInterruptedGoesOn ends either side with a signal in mid-transfer. That of an
// interrupted send exits with 1, and the next one sends what is missing; for an interrupted
// recv to come back the same send waits.
func TestProcessInterruptedGoesOn(t *testing.T) {
	needsProcesses(t)
	const size = 300 << 20
	for _, side := range []string{"send", "recv"} {
		t.Run(side, func(t *testing.T) {
			media(t, func(t *testing.T, m medium) {
				file, dir, journal := randomFile(t, size), t.TempDir(), newJournal(t)
				to, sent := m.through(t)
				recv := startRecv(t, "-dir", dir, m.recv)
				send := command(t.Context(), "send", "-json", "-journal", journal, to, file)
				var out bytes.Buffer
				send.Stdout = &out
				begin(t, send)
				sent.await(t, size/3)
				if side == "send" {
					send.Process.Signal(os.Interrupt)
				} else {
					// Stopped for longer than recv is patient, it cannot end in time.
					send.Process.Signal(syscall.SIGSTOP)
					recv.Process.Signal(syscall.SIGTERM)
					if code := recv.end(t); code != 1 {
						t.Errorf("recv: exit %d", code)
					}
					send.Process.Signal(syscall.SIGCONT)
				}
				if r := recv.next(t); r.Status == "delivered" || r.Error == "" {
					t.Errorf("recv: %+v", r)
				}
				if side == "recv" {
					startRecv(t, "-dir", dir, m.recv)
				}
				send.Wait()
				all := results(t, out.String())
				if len(all) != 1 {
					t.Fatalf("exit %d: %s", send.ProcessState.ExitCode(), &out)
				}
				r, err := all[0], error(nil)
				if side == "send" {
					if r.Status == "delivered" || send.ProcessState.ExitCode() != 1 {
						t.Fatalf("exit %d: %s", send.ProcessState.ExitCode(), &out)
					}
					r, err = sendOne(t, "-journal", journal, to, file)
				}
				if err != nil || r.Status != "delivered" || side == "send" && r.Resumed < size/5 {
					t.Errorf("%+v, %v", r, err)
				}
				sameFiles(t, file, filepath.Join(dir, filepath.Base(file)))
			})
		})
	}
}
