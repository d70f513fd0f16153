package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// SPEC.md is enough for a stranger: the sender in C, written from it, delivers to
// the receiver in Go, and hears why an image is refused.
func TestSenderInCToReceiverInGo(t *testing.T) {
	bin := buildSender(t)
	dir := t.TempDir()
	srv := &transport.Server{Store: &transport.DirStore{Dir: dir}, Limits: transport.Limits{MaxImage: 20 << 20}}
	l, err := (&tcpx.Transport{Addr: "127.0.0.1:0"}).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.WithoutCancel(t.Context()), l) }()
	host, port, _ := net.SplitHostPort(l.Addr().String())

	const tooLarge = 20<<20 + 1
	for _, size := range []int{0, 1, 5000, chunk.BlockSize, chunk.BlockSize + 1, 20 << 20, tooLarge} { // a window is 8 MiB
		name := fmt.Sprintf("image-%d.bin", size)
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pattern(size), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), bin, host, port, file)
		out, err := cmd.CombinedOutput()
		if size == tooLarge {
			if cmd.ProcessState.ExitCode() != 3 || !strings.Contains(string(out), "(reason 1)") {
				t.Errorf("%d bytes: %v, %s", size, err, out)
			}
			continue
		}
		if err != nil {
			t.Errorf("%d bytes: %v, %s", size, err, out)
			continue
		}
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, pattern(size)) {
			t.Errorf("%d bytes: %d were kept, other ones or too few: %v", size, len(got), err)
		}
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, transport.ErrServerClosed) {
		t.Error(err)
	}
}
