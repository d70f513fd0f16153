package tcpx_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	transporttest.TestTransport(t, func(t testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		return &tcpx.Transport{Addr: "127.0.0.1:0"}, func(a net.Addr) transport.Transport { return &tcpx.Transport{Addr: a.String()} }
	}, transporttest.Properties{
		Confirms:    transport.Kept,
		Boundaries:  []int64{64 << 10, 256 << 10, chunk.BlockSize, 2 * chunk.BlockSize},
		UnknownSize: true, Names: true, Metadata: true, IDs: true, Digests: true, Rejections: true,
		Aborts: true, Concurrency: 8, Messages: 64 << 10, BothWays: true, TellsClose: true, Live: true, Resume: true,
	})
}

func TestAddressMistakes(t *testing.T) {
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:", "tcp://127.0.0.1:99", "127.0.0.1:65536", "127.0.0.1:1x"} {
		_, err := (&tcpx.Transport{Addr: addr}).Dial(t.Context())
		device, _ := (&tcpx.Begin{Addr: addr}).Dial(t.Context()) // joins for each image
		_, sent := device.Send(t.Context(), &transport.Image{Body: transport.Bytes([]byte("BM"))}, nil)
		for _, err := range []error{err, sent} {
			if !errors.Is(err, transport.ErrConfig) || !strings.Contains(err.Error(), "set it to the peer's host:port") {
				t.Errorf("Dial %q: %v", addr, err)
			}
		}
	}
	for name, tr := range map[string]*tcpx.Transport{
		"no port":        {Addr: "127.0.0.1"},
		"not a port":     {Addr: "127.0.0.1:65536"},
		"no certificate": {Addr: "127.0.0.1:0", TLS: &tls.Config{}},
	} {
		if _, err := tr.Listen(t.Context()); !errors.Is(err, transport.ErrConfig) {
			t.Errorf("Listen with %s: %v", name, err)
		}
	}
}

// Whoever does not answer is told by the address and what to look at, on every level.
func TestNobodyAnswers(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	nobody, silent := l.Addr().String(), mute.Addr().String()

	_, refused := (&tcpx.Transport{Addr: nobody}).Dial(t.Context())
	device, _ := (&tcpx.Begin{Addr: nobody}).Dial(t.Context())
	defer device.Close()
	_, sent := device.Send(t.Context(), &transport.Image{Body: transport.Bytes([]byte("BM"))}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, unanswered := (&tcpx.Transport{Addr: silent}).Dial(ctx)
	impatient := native.Config{IdleTimeout: 50 * time.Millisecond}
	_, handshake := (&tcpx.Transport{Addr: silent, TLS: &tls.Config{}, Config: impatient}).Dial(context.WithoutCancel(ctx))
	_, dropped := (&tcpx.Transport{Addr: silent, Config: impatient, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done() // as where a firewall drops what asks for a connection
		return nil, ctx.Err()
	}}).Dial(context.WithoutCancel(ctx))
	hasty := (&net.Dialer{Timeout: time.Nanosecond}).DialContext // or one that shares its time among several addresses
	_, limited := (&tcpx.Transport{Addr: silent, DialContext: hasty}).Dial(t.Context())
	begin, err := (&tcpx.Begin{Addr: silent, DialContext: hasty}).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer begin.Close()
	_, unsent := begin.Send(t.Context(), &transport.Image{Body: transport.Bytes([]byte("x"))}, nil)
	all := map[error]string{refused: nobody, sent: nobody, unanswered: silent, handshake: silent, dropped: silent, limited: silent, unsent: silent}
	for err, addr := range all {
		if !errors.Is(err, transport.ErrNoReceiver) || !strings.Contains(err.Error(), "at tcp "+addr) {
			t.Errorf("at %s: %v", addr, err)
		}
	}
	for _, err := range []error{refused, handshake, dropped, limited, unsent} {
		if !transport.Retryable(err) {
			t.Errorf("not retryable: %v", err)
		}
	}
	if !errors.Is(unanswered, context.DeadlineExceeded) {
		t.Error(unanswered)
	}
}
