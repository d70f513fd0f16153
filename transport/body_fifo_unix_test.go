//go:build unix

package transport

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestNamedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip("no named pipes here: ", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := File(path).Open(ctx); err != context.DeadlineExceeded {
		t.Error("nobody writes:", err)
	}
	// This frees the one who waits above, too.
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := File(path).Open(t.Context())
	if err != nil || b.Size != -1 {
		t.Fatal(b, err)
	}
	if _, err := w.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := b.Read(got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	w.Close()
}
