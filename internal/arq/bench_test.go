package arq

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// stream is two engines that move one endless image in memory, in batches of 64 messages.
type stream struct {
	a, b   *Engine
	now    time.Time
	tick   time.Duration
	handle uint16
	piece  []byte
	offset int64
	bufs   [64][1400]byte
	lens   [64]int
	ack    [1400]byte
}

func newStream(tb testing.TB, change func(a, b *Config)) *stream {
	a, b := couple(tb, func(ca, cb *Config) {
		for _, c := range [...]*Config{ca, cb} {
			c.Ordered, c.Reliable = false, false
			c.Local.Window, c.Local.Reorder = 8<<20, 8<<20
			c.ReadAhead = 256 << 10
		}
		if change != nil {
			change(ca, cb)
		}
	})
	exchange(start, a, b)
	s := &stream{a: a.Engine, b: b.Engine, now: start, tick: 200 * time.Microsecond, piece: make([]byte, 128<<10)}
	var err error
	if s.handle, err = s.a.Offer(&wire.Offer{ID: [16]byte{1}, Size: wire.UnknownSize, Algorithm: 2}); err != nil {
		tb.Fatal(err)
	}
	return s
}

// round moves one batch there and its acknowledgement back, and returns how many messages
// the batch had.
func (s *stream) round(lose func(i int) bool) int {
	for {
		ev := s.a.NextEvent()
		if ev == nil {
			break
		}
		if ev.Kind == Closed {
			panic(ev.Err)
		}
	}
	for s.a.Want(s.handle) > 0 {
		if err := s.a.Supply(s.handle, s.offset, s.piece); err != nil {
			panic(err)
		}
		s.offset += int64(len(s.piece))
	}
	n := 0
	for ; n < len(s.bufs); n++ {
		if s.lens[n] = s.a.Poll(s.now, s.bufs[n][:]); s.lens[n] == 0 {
			break
		}
	}
	s.now = s.now.Add(s.tick)
	for i := range n {
		if lose != nil && lose(i) {
			continue
		}
		s.b.Receive(s.now, s.bufs[i][:s.lens[i]])
	}
	for {
		ev := s.b.NextEvent()
		if ev == nil {
			break
		}
		if ev.Kind == Received {
			s.b.Consumed(len(ev.Data), 1)
		}
	}
	s.b.Deadline()
	s.b.Advance(s.now)
	ack := s.ack[:]
	for {
		m := s.b.Poll(s.now, ack)
		if m == 0 {
			break
		}
		s.a.Receive(s.now, ack[:m])
	}
	s.a.Advance(s.now)
	return n
}

func BenchmarkEngineToEngine(b *testing.B) {
	for _, c := range []struct {
		name   string
		change func(a, b *Config)
		lose   func(i int) bool
	}{
		{"reliable", func(ca, cb *Config) { ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = true, true, true, true }, nil},
		{"lossy/0", nil, nil},
		{"lossy/3%", nil, func(i int) bool { return i == 20 || i == 51 }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newStream(b, c.change)
			for range 2000 {
				s.round(c.lose)
			}
			b.ReportAllocs()
			b.ResetTimer()
			n := 0
			for n < b.N {
				sent := s.round(c.lose)
				n += sent
			}
			b.SetBytes(1374)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n)/2, "ns/message/side")
		})
	}
}

// "no allocation per chunk in the steady state of the engine"
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	for name, reliable := range map[string]bool{"reliable": true, "lossy": false} {
		s := newStream(t, func(ca, cb *Config) {
			ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = reliable, reliable, reliable, reliable
		})
		lose := func(i int) bool { return !reliable && i == 40 }
		for range 3000 {
			s.round(lose)
		}
		sent := 0
		per := testing.AllocsPerRun(500, func() { sent += s.round(lose) })
		if per > 0 {
			t.Errorf("%s: %.1f allocations in a batch", name, per)
		}
		if sent < 500*8 {
			t.Errorf("%s: only %d messages moved", name, sent)
		}
	}
}

// "memory per idle session: 16 KiB", of which the engine may have three
func TestIdleSessionIsSmall(t *testing.T) {
	const sessions = 20
	idle := make([]*Engine, 0, 2*sessions)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC() // pools are emptied in two steps
	runtime.ReadMemStats(&before)
	for range sessions {
		a, b := couple(t, func(ca, cb *Config) { ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = false, false, false, false })
		h := a.send(pattern(100_000), nil)
		settleUntil(start, a, b, func() bool { return a.receipts[h] && a.Quiet() && b.Quiet() })
		a.Deadline()
		b.Deadline()
		a.run()
		b.run()
		idle = append(idle, a.Engine, b.Engine)
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if per := (after.HeapAlloc - before.HeapAlloc) / (2 * sessions); per > 3<<10 {
		t.Errorf("%d bytes for each idle engine", per)
	} else {
		t.Log(per, "bytes for each idle engine")
	}
	runtime.KeepAlive(idle)
}

// BenchmarkManyOffers offers so many transfers at once to a peer that takes as many, and polls their offers.
func BenchmarkManyOffers(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000, 60_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			buf := make([]byte, 1400)
			for b.Loop() {
				x, y := couple(b, func(_, c *Config) { c.Local.Transfers = 1<<16 - 1 })
				exchange(start, x, y)
				for range n {
					if _, err := x.Offer(&wire.Offer{ID: [16]byte{1}, Size: 1}); err != nil {
						b.Fatal(err)
					}
				}
				for x.Poll(start, buf) > 0 {
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/offer")
		})
	}
}
