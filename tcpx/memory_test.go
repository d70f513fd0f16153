package tcpx_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

const (
	huge       = 2 << 30
	mostMemory = 64 << 10 // KiB of resident memory
)

// TestMemory sends 2 GiB from one process to another.
func TestMemory(t *testing.T) {
	switch addr := os.Getenv("TCPX_TEST_PEER"); addr {
	case "":
	case "listen":
		receiveHuge(t)
		return
	default:
		sendHuge(t, addr)
		return
	}
	if testing.Short() || race || runtime.GOOS != "linux" {
		t.Skip("needs seconds, /proc, and memory without the race detector")
	}
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	receiver := child(t, "listen")
	receiver.Stdout = out
	var failure bytes.Buffer
	receiver.Stderr = &failure
	if err := receiver.Start(); err != nil {
		t.Fatal(err)
	}
	out.Close()
	var addr string
	if _, err := fmt.Fscan(in, &addr); err != nil {
		t.Fatal(err)
	}
	sender, err := child(t, addr).Output()
	if err != nil {
		t.Errorf("sender: %v %s", err, sender)
	}
	var peak int
	if _, err := fmt.Fscan(in, &peak); err != nil {
		t.Fatal(err)
	}
	if err := receiver.Wait(); err != nil {
		t.Errorf("receiver: %v %s", err, failure.Bytes())
	}
	if peak > mostMemory {
		t.Errorf("the receiver took %d KiB of memory, want at most %d", peak, mostMemory)
	}
	lines := strings.Fields(string(sender))
	if peak, err = strconv.Atoi(lines[0]); err != nil || peak > mostMemory {
		t.Errorf("the sender took %d KiB of memory (%v), want at most %d", peak, err, mostMemory)
	}
}

func child(t *testing.T, peer string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemory$")
	cmd.Env = append(os.Environ(), "TCPX_TEST_PEER="+peer)
	return cmd
}

// peakMemory is the most resident memory of this process so far, in KiB.
func peakMemory(t *testing.T) int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var peak int
	if _, err := fmt.Sscan(rest, &peak); err != nil {
		t.Fatal(err)
	}
	return peak
}

func receiveHuge(t *testing.T) {
	l, err := (&tcpx.Transport{Addr: "127.0.0.1:0"}).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(l.Addr())
	conn, err := l.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got int64
	srv := &transport.Server{Store: nowhere{}, Handler: func(_ context.Context, in *transport.Incoming) error {
		got = in.Size
		return nil
	}}
	if err := srv.ServeConn(t.Context(), conn); err != nil || got != huge {
		t.Errorf("%v, %d bytes", err, got)
	}
	l.Close()
	fmt.Println(peakMemory(t))
}

func sendHuge(t *testing.T, addr string) {
	conn, err := (&tcpx.Transport{Addr: addr}).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Send(t.Context(), &transport.Image{Name: "huge.bin", Body: transport.Content(pattern{huge}, huge)}, nil); err != nil {
		t.Fatal(err)
	}
	fmt.Println(peakMemory(t))
}
