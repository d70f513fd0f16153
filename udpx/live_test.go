package udpx_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// A camera with 15 frames a second on a path of 250 ms: one frame at a time has a round trip for each, and four
// keep up with the camera. Neither makes them old.
func TestLiveFramesOverALongPath(t *testing.T) {
	const (
		second = 15
		frames = 10 * second
		rtt    = 250 * time.Millisecond
	)
	for inFlight, fraction := range map[int]float64{0: 0.2, 4: 0.95} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t, 1, path{Delay: rtt / 2, Rate: 2_500_000, Queue: 625_000, Loss: 0.01})
			addr, _ := serve(t, &udpx.Transport{Conn: n.socket()}, &transport.MemStore{})
			c := dial(t, &udpx.Transport{Conn: n.socket(), Addr: addr.String()})
			b := noise(1, 30_000)
			var mu sync.Mutex
			var took []time.Duration // from the call of Send to the receipt
			var calls sync.WaitGroup
			for range frames {
				calls.Go(func() {
					began := time.Now()
					img := &transport.Image{Name: "frame", Body: transport.Bytes(b)}
					_, err := c.Send(t.Context(), img, &transport.SendOptions{Live: &transport.Live{InFlight: inFlight}})
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						took = append(took, time.Since(began))
					} else if !errors.Is(err, transport.ErrSuperseded) {
						t.Error(err)
					}
				})
				time.Sleep(time.Second / second)
			}
			calls.Wait()
			slices.Sort(took)
			median, last := took[len(took)/2], took[len(took)*99/100]
			t.Logf("%d of %d frames, median %v, 99th percentile %v", len(took), frames, median, last)
			if got := float64(len(took)) / frames; got < fraction || median > 2*rtt || last > 3*rtt {
				t.Errorf("with %d in flight; want %.2f of the frames, in 2 and 3 round trips", inFlight, fraction)
			}
		})
	}
}
