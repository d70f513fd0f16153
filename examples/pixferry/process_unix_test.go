//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestProcessInterruptedGoesOn ends either side with a signal in mid-transfer:
// both end with 1, and the next send sends what is missing.
func TestProcessInterruptedGoesOn(t *testing.T) {
	if !*processes {
		t.Skip("with -processes only")
	}
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
				if err := send.Start(); err != nil {
					t.Fatal(err)
				}
				for sent.Load() < size/3 {
					time.Sleep(time.Millisecond)
				}
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
				send.Wait()
				if all := results(t, out.String()); send.ProcessState.ExitCode() != 1 || len(all) != 1 || all[0].Status == "delivered" {
					t.Fatalf("exit %d: %s", send.ProcessState.ExitCode(), &out)
				}
				if r := recv.next(t); r.Status == "delivered" || r.Error == "" {
					t.Errorf("recv: %+v", r)
				}
				if side == "recv" {
					startRecv(t, "-dir", dir, m.recv)
				}
				r, err := sendOne(t, "-journal", journal, to, file)
				if err != nil || r.Resumed < size/5 {
					t.Errorf("%+v, %v", r, err)
				}
				sameFiles(t, file, filepath.Join(dir, filepath.Base(file)))
			})
		})
	}
}
