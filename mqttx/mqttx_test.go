package mqttx

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// A receiver keeps in memory what comes to a name.
type receiver struct {
	store *transport.MemStore
	srv   *transport.Server
	done  chan error // the end of Serve
}

// receive serves a Transport until the end of the test.
func receive(t testing.TB, tr transport.Transport) *receiver {
	l, err := tr.Listen(within(t))
	if err != nil {
		t.Fatal("listen:", err)
	}
	r := &receiver{store: &transport.MemStore{MaxBytes: 1 << 30}, done: make(chan error, 1)}
	r.srv = &transport.Server{Store: r.store, Message: func(context.Context, transport.Conn, transport.Message) error { return nil }}
	go func() { r.done <- r.srv.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		if err := r.srv.Shutdown(within(t)); err != nil {
			t.Error("shutdown:", err)
		}
	})
	return r
}

// expect fails unless the store has the content under the name.
func (r *receiver) expect(t testing.TB, name string, want []byte) {
	t.Helper()
	img, ok := r.store.Get(name)
	if !ok {
		t.Errorf("%s has not arrived", name)
		return
	}
	got, err := img.Body.ReadAll(t.Context())
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes (%v); want %d, identical", name, len(got), err, len(want))
	}
}

func dial(t testing.TB, tr transport.Transport) transport.Conn {
	t.Helper()
	c, err := tr.Dial(within(t))
	if err != nil {
		t.Fatal("dial:", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func send(ctx context.Context, c transport.Conn, name string, content []byte) (transport.Receipt, error) {
	return c.Send(ctx, &transport.Image{Name: name, Body: transport.Bytes(content)}, &transport.SendOptions{Require: transport.Kept})
}

func mustSend(t testing.TB, c transport.Conn, name string, content []byte) transport.Receipt {
	t.Helper()
	receipt, err := send(within(t), c, name, content)
	if err != nil {
		t.Fatalf("send %s: %v", name, err)
	}
	return receipt
}

func TestSizes(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		r := receive(t, &Transport{Broker: b.URL(), Name: "receiver"})
		c := dial(t, &Transport{Broker: b.URL(), Peer: "receiver"})
		for _, n := range []int{0, 1, firstSize - 26, firstSize, 64<<10 + 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 2_000_000} {
			name, content := fmt.Sprint(n), random(n)
			receipt := mustSend(t, c, name, content)
			if receipt.Bytes != int64(n) || receipt.Level != transport.Kept {
				t.Errorf("receipt %+v", receipt)
			}
			r.expect(t, name, content)
		}
	})
}

func TestNoReceiver(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	for _, tt := range []struct {
		answer, idle time.Duration
		want         string
	}{
		{0, 0, "has not answered for 3s"},
		{time.Second, 0, "has not answered for 1s"},
		{-1, 4 * time.Second, "nothing has come back"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			tr := &Transport{Broker: b.URL(), Peer: "nobody", AnswerTimeout: tt.answer, Config: native.Config{IdleTimeout: tt.idle}}
			_, err := tr.Dial(within(t))
			if !errors.Is(err, transport.ErrNoReceiver) || !strings.Contains(err.Error(), tt.want) {
				t.Error(err)
			}
			if took := time.Since(began); took > 14*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestConformance(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		n := 0
		transporttest.TestTransport(t, func(testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
			n++
			name := fmt.Sprint("receiver", n)
			return &Transport{Broker: b.URL(), Name: name}, func(net.Addr) transport.Transport { return &Transport{Broker: b.URL(), Peer: name} }
		}, transporttest.Properties{
			Confirms:    transport.Kept,
			Boundaries:  []int64{firstSize, 64 << 10, chunk.BlockSize},
			UnknownSize: true, Names: true, Metadata: true, IDs: true, Digests: true, Rejections: true,
			Aborts: true, Concurrency: 8, Messages: 64 << 10, BothWays: true, TellsClose: true, Live: true, Resume: true,
		})
	})
}
