package tcpx_test

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// pattern is content of any size without memory: bytes that depend on their offset.
type pattern struct{ size int64 }

func (p pattern) ReadAt(b []byte, off int64) (int, error) {
	n := len(b)
	if rest := p.size - off; int64(n) >= rest {
		n = int(max(rest, 0))
	}
	for i := 0; i < n; i += copy(b[i:n], noise[(off+int64(i))%int64(len(noise)):]) {
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// noise has a prime number of bytes, so that no two blocks are alike.
var noise = func() []byte {
	b := make([]byte, 1<<16+1)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}()

// nowhere is a Store that keeps nothing but can be read like pattern.
type nowhere struct{}

func (nowhere) Open(_ context.Context, o transport.PartialOffer) (transport.Partial, error) {
	return discarded{pattern{o.Size}}, nil
}
func (nowhere) Receipt(context.Context, transport.ID) (transport.Receipt, bool, error) {
	return transport.Receipt{}, false, nil
}
func (nowhere) Forget(instance, below uint64) {}

type discarded struct{ pattern }

func (discarded) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (discarded) Held() []chunk.Block                    { return nil }
func (discarded) Checkpoint([]chunk.Block) error         { return nil }
func (discarded) Drop([]int64) error                     { return nil }
func (discarded) Keep() error                            { return nil }
func (discarded) Discard() error                         { return nil }
func (discarded) Commit(context.Context, *transport.Image, transport.Receipt) (string, error) {
	return "", nil
}

// joined returns a Conn to a Server.
func joined(tb testing.TB, srv *transport.Server) transport.Conn {
	l, err := (&tcpx.Transport{Addr: "127.0.0.1:0"}).Listen(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	conn, err := (&tcpx.Transport{Addr: l.Addr().String()}).Dial(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		conn.Close()
		srv.Shutdown(context.Background())
		<-served
	})
	return conn
}

func BenchmarkLarge(b *testing.B) {
	conn := joined(b, &transport.Server{Store: nowhere{}})
	const size = 1 << 30
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Send(b.Context(), &transport.Image{Name: "large.bin", Body: transport.Content(pattern{size}, size)}, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSmall(b *testing.B) {
	for _, parallel := range []int{1, 8} {
		b.Run(fmt.Sprint(parallel), func(b *testing.B) {
			conn := joined(b, &transport.Server{Store: nowhere{}})
			const size = 100_000
			b.SetBytes(size)
			b.ReportAllocs()
			todo := make(chan struct{})
			done := make(chan error, parallel)
			for range parallel {
				go func() {
					var err error
					for range todo {
						if err == nil {
							_, err = conn.Send(b.Context(), &transport.Image{Name: "small.bin", Body: transport.Content(pattern{size}, size)}, nil)
						}
					}
					done <- err
				}()
			}
			for b.Loop() {
				todo <- struct{}{}
			}
			close(todo)
			for range parallel {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
