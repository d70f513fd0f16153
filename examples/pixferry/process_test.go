package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/testbroker"
)

// The command line as real processes, which are killed, measured and compared.

var processes = flag.Bool("processes", false, "run the slow tests with processes: kills, 2 GiB, many images")

// TestMain lets the test binary be the program itself.
func TestMain(m *testing.M) {
	if os.Getenv("PIXFERRY_TEST_MAIN") != "" {
		main()
		os.Exit(0) // as main does by returning
	}
	os.Exit(m.Run())
}

// needsProcesses skips what takes long, or much of the disk.
func needsProcesses(t *testing.T) {
	if !*processes {
		t.Skip("with -processes only")
	}
}

func command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "PIXFERRY_TEST_MAIN=1")
	return cmd
}

// begin starts a program, which ends with the test.
func begin(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}

// A process is a running recv.
type process struct {
	*exec.Cmd
	url   string
	lines chan string
}

// startRecv returns once it listens.
func startRecv(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{Cmd: command(context.Background(), append([]string{"recv", "-json"}, args...)...), lines: make(chan string, 10_000)}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stderr = os.Stderr
	begin(t, p.Cmd)
	listening := make(chan string, 1)
	go func() {
		defer close(p.lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			if u, ok := strings.CutPrefix(scan.Text(), "listening "); ok {
				select {
				case listening <- u:
				default: // the first is enough
				}
				continue
			}
			p.lines <- scan.Text()
		}
	}()
	select {
	case p.url = <-listening:
	case <-time.After(20 * time.Second):
		t.Fatal("recv does not listen")
	}
	return p
}

func sendOne(t *testing.T, args ...string) (result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := command(ctx, append([]string{"send", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var r result
	if jsonErr := json.Unmarshal(bytes.TrimSpace(out), &r); jsonErr != nil {
		t.Fatalf("send printed %q, ended with %v", out, err)
	}
	return r, err
}

func randomFile(t *testing.T, size int64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.bin")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rng(size), size); err != nil {
		t.Fatal(err)
	}
	return file
}

func rng(seed int64) io.Reader { return rand.NewChaCha8([32]byte{byte(seed)}) }

func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	if out, err := exec.Command("cmp", a, b).CombinedOutput(); err != nil {
		t.Fatalf("the image differs: %v %s", err, out)
	}
}

// media are the ways to put a recv behind a counting proxy.
func media(t *testing.T, f func(t *testing.T, m medium)) {
	t.Run("tcp", func(t *testing.T) {
		f(t, medium{recv: "tcp://" + freePort(t, "tcp"), proxy: countTCP})
	})
	t.Run("udp", func(t *testing.T) {
		f(t, medium{recv: "udp://" + freePort(t, "udp"), proxy: countUDP})
	})
	t.Run("mqtt", func(t *testing.T) {
		broker := testbroker.Embedded(t, testbroker.Options{})
		f(t, medium{recv: broker.URL() + "/receiver", proxy: countTCP})
	})
}

type medium struct {
	recv  string // where recv listens, known beforehand so that it can be started again there
	proxy func(t *testing.T, target string) (addr string, sent *counter)
}

// through is the URL at which send reaches recv through the proxy.
func (m medium) through(t *testing.T) (string, *counter) {
	u, err := url.Parse(m.recv)
	if err != nil {
		t.Fatal(err)
	}
	var sent *counter
	u.Host, sent = m.proxy(t, u.Host)
	return u.String(), sent
}

func freePort(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// countTCP forwards connections and counts what goes towards the target.
func countTCP(t *testing.T, target string) (string, *counter) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	sent := new(counter)
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", target)
			if err != nil {
				a.Close()
				continue
			}
			closeBoth := sync.OnceFunc(func() { a.Close(); b.Close() })
			go func() { defer closeBoth(); io.Copy(io.MultiWriter(b, sent), a) }()
			go func() { defer closeBoth(); io.Copy(a, b) }()
		}
	}()
	return l.Addr().String(), sent
}

// countUDP forwards datagrams, a socket for each sender.
func countUDP(t *testing.T, target string) (string, *counter) {
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	front.SetReadBuffer(4 << 20)
	t.Cleanup(func() { front.Close() })
	sent := new(counter)
	go func() {
		backs := make(map[string]net.Conn)
		defer func() {
			for _, b := range backs {
				b.Close()
			}
		}()
		buf := make([]byte, 1<<16)
		for {
			n, from, err := front.ReadFrom(buf)
			if err != nil {
				return
			}
			back := backs[from.String()]
			if back == nil {
				if back, err = net.Dial("udp", target); err != nil {
					return
				}
				backs[from.String()] = back
				go func() {
					answer := make([]byte, 1<<16)
					for {
						n, err := back.Read(answer)
						if err != nil && strings.Contains(err.Error(), "closed") {
							return
						}
						if err == nil {
							front.WriteTo(answer[:n], from)
						}
					}
				}()
			}
			sent.Write(buf[:n])
			back.Write(buf[:n])
		}
	}()
	return front.LocalAddr().String(), sent
}

// counter counts bytes.
type counter struct {
	mu   sync.Mutex
	n    int64
	more chan struct{} // to be closed when n grows; nil: nobody waits
}

func (c *counter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += int64(len(p))
	if c.more != nil {
		close(c.more)
		c.more = nil
	}
	return len(p), nil
}

func (c *counter) count() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// await returns when there are n bytes.
func (c *counter) await(t *testing.T, n int64) {
	t.Helper()
	for patience := time.After(time.Minute); ; {
		c.mu.Lock()
		if c.n >= n {
			c.mu.Unlock()
			return
		}
		if c.more == nil {
			c.more = make(chan struct{})
		}
		more := c.more
		c.mu.Unlock()
		select {
		case <-more:
		case <-patience:
			t.Errorf("%d bytes of %d have gone over the wire after a minute", c.count(), n)
			return
		}
	}
}

// TestProcessKilledGoesOn kills either side at random points of the transfer
// and starts it again: at most one window of bytes goes over the wire twice for
// each kill, and nothing is visible under the final name before it is whole.
func TestProcessKilledGoesOn(t *testing.T) {
	needsProcesses(t)
	const size, window, kills = 192 << 20, 8 << 20, 3
	for _, side := range []string{"send", "recv"} {
		t.Run(side, func(t *testing.T) {
			media(t, func(t *testing.T, m medium) {
				file, dir, journal := randomFile(t, size), t.TempDir(), newJournal(t)
				seed := uint64(time.Now().UnixNano())
				t.Logf("seed %d", seed)
				random := rand.New(rand.NewPCG(seed, 0))
				to, sent := m.through(t)
				recv := startRecv(t, "-dir", dir, "-count", "1", m.recv)
				final := filepath.Join(dir, filepath.Base(file))

				for kill := range kills {
					sender := command(t.Context(), "send", "-json", "-journal", journal, to, file)
					begin(t, sender)
					sent.await(t, int64(kill)*size/kills+random.Int64N(size/kills/2))
					if _, err := os.Stat(final); err == nil {
						t.Fatal("visible before it was whole")
					}
					if side == "recv" {
						recv.Process.Kill()
						recv.Wait()
						recv = startRecv(t, "-dir", dir, "-count", "1", m.recv)
					}
					sender.Process.Kill() // of a killed recv the sender would go on by itself
					sender.Wait()
				}
				r, err := sendOne(t, "-journal", journal, to, file)
				if err != nil || r.Status != "delivered" || r.Resumed == 0 {
					t.Fatalf("the last send: %+v, %v", r, err)
				}
				sameFiles(t, file, final)
				if extra := sent.count() - size; extra > kills*window+size/50 {
					t.Errorf("%.1f MB went over the wire again after %d kills, more than a window for each", float64(extra)/1e6, kills)
				}
			})
		})
	}
}

// TestProcessReceiverRestartIsSurvived kills recv only; the sender goes on by itself.
func TestProcessReceiverRestartIsSurvived(t *testing.T) {
	needsProcesses(t)
	media(t, func(t *testing.T, m medium) {
		const size = 192 << 20
		file, dir := randomFile(t, size), t.TempDir()
		to, sent := m.through(t)
		recv := startRecv(t, "-dir", dir, "-count", "1", m.recv)
		done := make(chan struct{})
		go func() {
			defer close(done)
			sent.await(t, size/3)
			recv.Process.Kill()
			recv.Wait()
			recv = startRecv(t, "-dir", dir, "-count", "1", m.recv)
		}()
		r, err := sendOne(t, "-journal", newJournal(t), to, file)
		<-done
		if err != nil {
			t.Fatalf("%+v, %v", r, err)
		}
		sameFiles(t, file, filepath.Join(dir, filepath.Base(file)))
	})
}

var maxResident = regexp.MustCompile(`Maximum resident set size \(kbytes\): (\d+)`)

// TestProcessMemory sends 2 GiB with either process under 64 MiB resident.
func TestProcessMemory(t *testing.T) {
	needsProcesses(t)
	const size, limit = 2 << 30, 64 << 10 // bytes, KiB
	file := randomFile(t, size)
	media(t, func(t *testing.T, m medium) {
		dir := t.TempDir()
		measured := func(args ...string) (*exec.Cmd, *bytes.Buffer) {
			cmd := exec.CommandContext(t.Context(), "/usr/bin/time", append([]string{"-v", os.Args[0]}, args...)...)
			cmd.Env = append(os.Environ(), "PIXFERRY_TEST_MAIN=1")
			stderr := new(bytes.Buffer)
			cmd.Stderr = stderr
			return cmd, stderr
		}
		recv, recvErr := measured("recv", "-dir", dir, "-count", "1", m.recv)
		out, err := recv.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		begin(t, recv)
		bufio.NewReader(out).ReadString('\n') // listening
		go io.Copy(io.Discard, out)
		send, sendErr := measured("send", "-journal", filepath.Join(dir, "journal"), m.recv, file)
		if err := send.Run(); err != nil {
			t.Fatalf("%v\n%s", err, sendErr)
		}
		if err := recv.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, recvErr)
		}
		sameFiles(t, file, filepath.Join(dir, filepath.Base(file)))
		for side, stderr := range map[string]*bytes.Buffer{"send": sendErr, "recv": recvErr} {
			kib, err := strconv.Atoi(string(maxResident.FindSubmatch(stderr.Bytes())[1]))
			if t.Logf("%s: %d KiB resident", side, kib); err != nil || kib > limit {
				t.Errorf("%s took %d KiB, over %d", side, kib, limit)
			}
		}
		os.Remove(filepath.Join(dir, filepath.Base(file)))
	})
}

// TestProcessThousandImages sends 1,000 images of 100 KB at 8 at once.
func TestProcessThousandImages(t *testing.T) {
	needsProcesses(t)
	media(t, func(t *testing.T, m medium) {
		from, dir := t.TempDir(), t.TempDir()
		random := rand.NewChaCha8([32]byte{1})
		var files []string
		for i := range 1000 {
			content := make([]byte, 100_000)
			random.Read(content)
			files = append(files, filepath.Join(from, fmt.Sprintf("%04d.bin", i)))
			if err := os.WriteFile(files[i], content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		recv := startRecv(t, "-dir", dir, "-count", "1000", m.recv)
		args := append([]string{"send", "-json", "-concurrency", "8", "-journal", newJournal(t), m.recv}, files...)
		out, err := command(t.Context(), args...).Output()
		if n := strings.Count(string(out), `"delivered"`); err != nil || n != 1000 {
			t.Fatalf("%d of 1000 delivered: %v", n, err)
		}
		if err := recv.Wait(); err != nil {
			t.Error(err)
		}
		for _, f := range files {
			sameFiles(t, f, filepath.Join(dir, filepath.Base(f)))
		}
	})
}
