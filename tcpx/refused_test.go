package tcpx_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// logged is a log that a test can wait on.
type logged struct{ lines chan string }

func (l logged) Write(p []byte) (int, error) {
	select {
	case l.lines <- string(p):
	default:
	}
	return len(p), nil
}

// find returns the next line that has one of two texts in it.
func (l logged) find(t *testing.T, one, other string) string {
	t.Helper()
	for {
		select {
		case line := <-l.lines:
			if strings.Contains(line, one) || strings.Contains(line, other) {
				return line
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("neither %q nor %q in the log", one, other)
		}
	}
}

// A health check comes every few seconds, for ever.
func TestHealthChecksAreNoWarnings(t *testing.T) {
	pair, trusted := certificate(t, "receiver")
	for name, config := range map[string]*tls.Config{"tcp": nil, "tls": {Certificates: []tls.Certificate{pair}}} {
		for end, linger := range map[string]int{"closed": -1, "reset": 0} {
			log := logged{make(chan string, 100)}
			r := receive(t, func(_ *transport.Server, tr *tcpx.Transport) {
				tr.TLS = config
				tr.Config.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			conn, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			conn.(*net.TCPConn).SetLinger(linger)
			conn.Close()
			if line := log.find(t, "refused a peer", "left without"); !strings.Contains(line, "level=DEBUG") || !strings.Contains(line, "health check") {
				t.Errorf("%s, %s: %s", name, end, line)
			}
			if config == nil {
				continue
			}
			conn, err = net.Dial("tcp", r.addr) // as one that does not like the certificate, and does not say so
			if err != nil {
				t.Fatal(err)
			}
			tls.Client(conn, &tls.Config{RootCAs: trusted, ServerName: "127.0.0.1", VerifyConnection: func(tls.ConnectionState) error {
				return conn.Close()
			}}).Handshake()
			if line := log.find(t, "refused a peer", "left without"); !strings.Contains(line, "level=WARN") || !strings.Contains(line, "trust") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}

func TestGarbageIsRefused(t *testing.T) {
	log := logged{make(chan string, 100)}
	r := receive(t, func(_ *transport.Server, tr *tcpx.Transport) {
		tr.Config.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	long := binary.LittleEndian.AppendUint32(nil, 1<<31)
	small := append(binary.LittleEndian.AppendUint32(nil, 100), content(100)...)
	small[4] = 0 // or else it may look like another version, which is answered
	for name, c := range map[string]struct {
		bytes  []byte
		reason string
	}{
		"a browser":                 {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "does not speak pixferry"},
		"a TLS client":              {[]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), "speaks TLS"},
		"a proxy, in text":          {[]byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), "PROXY protocol"},
		"a proxy, in binary":        {[]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"), "PROXY protocol"},
		"an oversized length":       {long, "does not speak pixferry"},
		"random bytes in a frame":   {small, "message"},
		"an empty message":          {make([]byte, 4), "message"},
		"a message that ends early": {small[:50], "EOF"},
	} {
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(c.bytes)
		conn.(*net.TCPConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if answer, err := io.ReadAll(conn); len(answer) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: got %q, %v; want the connection closed", name, answer, err)
		}
		conn.Close()
		if line := log.find(t, "refused a peer", "left without"); !strings.Contains(line, c.reason) {
			t.Errorf("%s: %s; want it to say %q", name, line, c.reason)
		}
	}
	b := content(1000)
	if _, err := dial(t, &tcpx.Transport{Addr: r.addr}).Send(t.Context(), image("after.bin", b), nil); err != nil {
		t.Fatalf("after garbage: %v", err)
	}
	r.kept(t, "after.bin", b)
}

// answering has serve answer each connection to an address, and closes it then.
func answering(t *testing.T, serve func(net.Conn)) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			all.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

func TestDialOfAnotherProtocol(t *testing.T) {
	addr := answering(t, func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH_9.6\r\n") })
	_, err := (&tcpx.Transport{Addr: addr}).Dial(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does not speak pixferry") {
		t.Errorf("%v; want it to say that the peer speaks something else", err)
	}
}

// A proxy takes the connection before it knows whether the receiver is there.
func TestDialOfAProxyWithoutAReceiver(t *testing.T) {
	addr := answering(t, func(net.Conn) {})
	_, err := (&tcpx.Transport{Addr: addr}).Dial(t.Context())
	if err == nil || !strings.Contains(err.Error(), "a proxy or a tunnel that does not reach the receiver") {
		t.Errorf("%v; want it to name a proxy", err)
	}
}

func TestDialOfASilentPeerEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody accepts, but the system does
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = (&tcpx.Transport{Addr: l.Addr().String()}).Dial(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v; want the context's end", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("Dial took %v after a context of 100 ms", took)
	}
}
