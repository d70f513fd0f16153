package udpx_test

import (
	"context"
	"sync"
	"testing"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// zeros is a body of any size that costs nothing to read.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// nowhere is a Store that forgets what it is given. Whole images are verified before.
type nowhere struct{}

func (nowhere) Open(context.Context, transport.PartialOffer) (transport.Partial, error) {
	return nowhere{}, nil
}
func (nowhere) Receipt(context.Context, transport.ID) (transport.Receipt, bool, error) {
	return transport.Receipt{}, false, nil
}
func (nowhere) Forget(uint64, uint64)                  {}
func (nowhere) ReadAt(p []byte, _ int64) (int, error)  { clear(p); return len(p), nil }
func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhere) Held() []chunk.Block                    { return nil }
func (nowhere) Checkpoint([]chunk.Block) error         { return nil }
func (nowhere) Drop([]int64) error                     { return nil }
func (nowhere) Keep() error                            { return nil }
func (nowhere) Discard() error                         { return nil }
func (nowhere) Commit(context.Context, *transport.Image, transport.Receipt) (string, error) {
	return "", nil
}

func benchmarkSend(b *testing.B, size int64, parallel int) {
	l, err := (&udpx.Transport{Addr: "127.0.0.1:0"}).Listen(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	srv := &transport.Server{Store: nowhere{}}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(context.Background(), l) })
	c, err := (&udpx.Transport{Addr: l.Addr().String()}).Dial(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	b.ResetTimer()
	work := make(chan struct{})
	var senders sync.WaitGroup
	for range parallel {
		senders.Go(func() {
			for range work {
				if _, err := c.Send(b.Context(), &transport.Image{Body: transport.Content(zeros{}, size)}, nil); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	senders.Wait()
	b.StopTimer()
	c.Close()
	srv.Shutdown(context.Background())
	wg.Wait()
}

func BenchmarkImage256MB(b *testing.B)       { benchmarkSend(b, 256<<20, 1) }
func BenchmarkImage100KB(b *testing.B)       { benchmarkSend(b, 100<<10, 1) }
func BenchmarkImage100KBTimes8(b *testing.B) { benchmarkSend(b, 100<<10, 8) }
