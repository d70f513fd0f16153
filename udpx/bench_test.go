package udpx_test

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/udpsock"
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

// raw returns a function that moves an image in datagrams of 1,452 bytes with a checksum that
// is made and verified, in batches as the system offers them, with at most 2 MiB on the way.
func raw(b *testing.B, image []byte) func() error {
	const segment, train, window = 1452, 45 * 1452, 2 << 20
	in, out := rawSocket(b), rawSocket(b)
	arrived := make(chan int, 1024)
	go func() {
		defer close(arrived)
		ps, memory := make([]udpsock.Packet, 32), make([]byte, 32*udpsock.ReadSize)
		for {
			for i := range ps {
				ps[i] = udpsock.Packet{Data: memory[i*udpsock.ReadSize:][:udpsock.ReadSize:udpsock.ReadSize]}
			}
			n, err := in.Read(ps)
			if err != nil {
				return
			}
			sum := 0
			for i := range ps[:n] {
				for msg := range ps[i].Segments {
					if chunk.CRC32C(msg[4:]) == binary.LittleEndian.Uint32(msg) {
						sum += len(msg)
					}
				}
			}
			arrived <- sum
		}
	}()
	buf := make([]byte, 2*train)
	return func() error {
		timeout := time.After(10 * time.Second)
		flight := 0
		wait := func(most int) error {
			for flight > most {
				select {
				case n := <-arrived:
					flight -= n
				case <-timeout:
					return errors.New("datagrams were lost")
				}
			}
			return nil
		}
		for rest := image; len(rest) > 0; {
			var ps []udpsock.Packet
			for used := 0; used < len(buf) && len(rest) > 0; used += train {
				p := udpsock.Packet{Data: buf[used:used], Segment: segment, Addr: in.LocalAddr()}
				for len(p.Data) < train && len(rest) > 0 {
					n := min(segment-4, len(rest))
					p.Data = binary.LittleEndian.AppendUint32(p.Data, chunk.CRC32C(rest[:n]))
					p.Data = append(p.Data, rest[:n]...)
					rest = rest[n:]
				}
				flight += len(p.Data)
				ps = append(ps, p)
			}
			if err := out.Write(ps); err != nil {
				return err
			}
			if err := wait(window); err != nil {
				return err
			}
		}
		return wait(0)
	}
}

func rawSocket(b *testing.B) *udpsock.Conn {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return udpsock.New(c, slog.New(slog.DiscardHandler))
}

func benchmarkSend(b *testing.B, size int64, n, parallel int) {
	addr, _ := serve(b, &udpx.Transport{Addr: "127.0.0.1:0", MaxDatagram: 1452}, nowhere{})
	c := dial(b, &udpx.Transport{Addr: addr.String(), MaxDatagram: 1452})
	image := noise(1, int(size))
	limit := raw(b, image)
	compare(b, int64(n)*size, func() error {
		var g errgroup.Group
		g.SetLimit(parallel)
		for range n {
			g.Go(func() error {
				_, err := c.Send(b.Context(), &transport.Image{Name: "a", MediaType: "image/jpeg", Body: transport.Bytes(image)}, nil)
				return err
			})
		}
		return g.Wait()
	}, func() error {
		for range n {
			if err := limit(); err != nil {
				return err
			}
		}
		return nil
	})
	c.Close()
}

func BenchmarkLarge(b *testing.B)       { benchmarkSend(b, 256<<20, 1, 1) }
func BenchmarkSmall(b *testing.B)       { benchmarkSend(b, 100_000, 100, 1) }
func BenchmarkSmallTimes8(b *testing.B) { benchmarkSend(b, 100_000, 100, 8) }
