package tcpx_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

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
	b := make([]byte, 1<<17+1)
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

// compare measures ours, and beside it, in turns, what the system can do at best.
func compare(b *testing.B, size int64, ours, limit func() error) {
	var took, least time.Duration
	measure := func(f func() error) time.Duration {
		begin := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
	for b.Loop() {
		took += measure(ours)
		least += measure(limit)
	}
	speed := func(d time.Duration) float64 { return float64(b.N) * float64(size) / 1e6 / d.Seconds() }
	b.ReportMetric(speed(took), "MB/s")
	b.ReportMetric(speed(least), "limit-MB/s")
	b.ReportMetric(least.Seconds()/took.Seconds(), "of-limit")
	b.ReportMetric(0, "ns/op")
}

// raw returns a function that writes an image over a connection of its own behind its length
// and waits for one byte in answer.
func raw(b *testing.B, image []byte) func() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	const piece = 256 << 10
	go func() {
		buf := make([]byte, piece)
		for {
			if _, err := io.ReadFull(in, buf[:8]); err != nil {
				return
			}
			for left := int(binary.LittleEndian.Uint64(buf)); left > 0; {
				n, err := in.Read(buf[:min(left, piece)])
				if err != nil {
					return
				}
				left -= n
			}
			in.Write(buf[:1])
		}
	}()
	b.Cleanup(func() { out.Close(); in.Close(); l.Close() })
	return func() error {
		rest := image
		head := binary.LittleEndian.AppendUint64(nil, uint64(len(image)))
		first := net.Buffers{head, rest[:min(piece, len(rest))]}
		rest = rest[len(first[1]):]
		_, err := first.WriteTo(out)
		for len(rest) > 0 && err == nil {
			_, err = out.Write(rest[:min(piece, len(rest))])
			rest = rest[min(piece, len(rest)):]
		}
		if err == nil {
			_, err = io.ReadFull(out, make([]byte, 1))
		}
		return err
	}
}

// images returns a function that sends an image so many times.
func images(b *testing.B, conn transport.Conn, image []byte, n, parallel int) func() error {
	return func() error {
		var g errgroup.Group
		g.SetLimit(parallel)
		for range n {
			g.Go(func() error {
				img := &transport.Image{Name: "image.jpg", MediaType: "image/jpeg", Body: transport.Bytes(image)}
				_, err := conn.Send(b.Context(), img, nil)
				return err
			})
		}
		return g.Wait()
	}
}

func BenchmarkLarge(b *testing.B) {
	image := slices.Repeat(noise, 1<<11)
	conn := joined(b, &transport.Server{Store: nowhere{}})
	compare(b, int64(len(image)), images(b, conn, image, 1, 1), raw(b, image))
}

// BenchmarkMemory has the receiver keep the image in memory for its Handler.
func BenchmarkMemory(b *testing.B) {
	image := slices.Repeat(noise, 3<<9)
	conn := joined(b, &transport.Server{Handler: func(context.Context, *transport.Incoming) error { return nil }})
	compare(b, int64(len(image)), images(b, conn, image, 1, 1), raw(b, image))
}

func BenchmarkSmall(b *testing.B) {
	const n = 100
	image := noise[:100_000]
	for _, parallel := range []int{1, 8} {
		b.Run(fmt.Sprint(parallel), func(b *testing.B) {
			conn := joined(b, &transport.Server{Store: nowhere{}})
			var g errgroup.Group
			g.SetLimit(parallel)
			raws := make([]func() error, parallel)
			for i := range raws {
				raws[i] = raw(b, image)
			}
			compare(b, n*int64(len(image)), images(b, conn, image, n, parallel), func() error {
				for _, f := range raws {
					g.Go(func() error {
						for range n / parallel {
							if err := f(); err != nil {
								return err
							}
						}
						return nil
					})
				}
				return g.Wait()
			})
		})
	}
}
