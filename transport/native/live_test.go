package native_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// A camera with 20 frames a second on a path that carries 6, with much room for what waits on its way, or
// before a Handler that takes 6.
func TestLiveFramesStayYoung(t *testing.T) {
	const frames, size, piece = 100, 40_000, 4 << 10
	reliable := native.LinkInfo{Protocol: "mem", Peer: "peer", Ordered: true, Reliable: true, MaxMessage: piece}
	ordered := reliable
	ordered.Reliable = false
	for name, c := range map[string]struct {
		info           native.LinkInfo
		piece, handler time.Duration // that each takes
	}{
		"slow reliable path": {reliable, 16 * time.Millisecond, 0},
		"slow ordered path":  {ordered, 16 * time.Millisecond, 0},
		"slow Handler":       {ordered, 0, 160 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMedium(c.info)
				m.depth = 10_000
				m.wrap = func(l native.Link) native.Link { return newSlowReader(l, c.piece) }
				var mu sync.Mutex
				var ages []time.Duration
				s := &transport.Server{Store: &transport.MemStore{}, Handler: func(_ context.Context, in *transport.Incoming) error {
					if !mu.TryLock() {
						t.Error("two Handlers of one source run at once")
						return nil
					}
					defer mu.Unlock()
					time.Sleep(c.handler)
					ages = append(ages, time.Since(in.Image.Captured))
					return nil
				}}
				l := mustListen(t, native.Over(nil, m.listen, native.Config{}))
				served := async(func() error { return s.Serve(t.Context(), l) })
				c := mustDial(t, native.Over(m.dial, nil, native.Config{}))
				var wg sync.WaitGroup
				for range frames {
					img := &transport.Image{Name: "frame.jpg", Captured: time.Now(), Body: transport.Bytes(make([]byte, size))}
					wg.Go(func() {
						_, err := c.Send(t.Context(), img, &transport.SendOptions{Live: &transport.Live{Source: "camera", MaxAge: time.Second}})
						if err != nil && !errors.Is(err, transport.ErrSuperseded) {
							t.Error(err)
						}
					})
					time.Sleep(50 * time.Millisecond)
				}
				wg.Wait()
				c.Close()
				if err := s.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				<-served
				if n := len(ages); n < 20 || n > 40 {
					t.Errorf("%d frames have arrived in 5 s; there is time for 6 a second", n)
				}
				for _, age := range ages {
					if age > 450*time.Millisecond { // its own time twice, and the wait for its turn
						t.Errorf("a frame is %v old", age)
					}
				}
			})
		})
	}
}

// slowReader is a Link whose messages come at a pace, from memory for many.
type slowReader struct {
	native.Link
	pace time.Duration
}

func newSlowReader(l native.Link, pace time.Duration) native.Link { return &slowReader{l, pace} }

func (s *slowReader) ReadMessage(buf []byte) (int, error) {
	n, err := s.Link.ReadMessage(buf)
	if err == nil && n > 200 {
		time.Sleep(s.pace)
	}
	return n, err
}
