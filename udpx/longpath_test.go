package udpx_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/udpx"
)

// TestLongPath measures 10 MB over 100 Mbit/s, 200 ms and 1 % loss in a first session, a second time in it, and in
// another session of the same Transport, which remembers the path; each over the time that no protocol can beat.
func TestLongPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, rtt, loss, size = 12_500_000, 200 * time.Millisecond, 0.01, 10_000_000
		n := newNetwork(t, 1, path{Delay: rtt / 2, Rate: rate, Queue: rate / 5, Loss: loss})
		store := &transport.MemStore{}
		addr, _ := serve(t, &udpx.Transport{Conn: n.socket()}, store)
		b := noise(1, size)
		bound := rtt.Seconds() + size/(rate*(1-loss))
		send := func(c transport.Conn, name string, began time.Time, most float64) {
			r, err := c.Send(t.Context(), &transport.Image{Name: name, Body: transport.Bytes(b)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if lost := float64(r.Resent) / size; lost < loss/2 || lost > loss+0.06 {
				t.Errorf("%s: %.3f of the image was sent again where %.2f is lost", name, lost, loss)
			}
			took := time.Since(began).Seconds() / bound
			t.Logf("%s: %.2f of %.2f", name, took, most)
			if took > most {
				t.Errorf("%s took %.2f times the bound, want %.2f", name, took, most)
			}
			kept(t, store, name, b)
		}
		tr := &udpx.Transport{Conn: n.socket(), Addr: addr.String()}
		began := time.Now()
		c := dial(t, tr)
		send(c, "cold", began, 2.6)
		time.Sleep(time.Second)
		send(c, "again", time.Now(), 1.25)
		c.Close()
		began = time.Now()
		send(dial(t, tr), "remembered", began, 1.5)
	})
}

// CUBIC takes each loss for congestion; without it the same path is used to the full.
func TestCubicByChoice(t *testing.T) {
	var took [2]time.Duration
	for i, cubic := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const rtt = 50 * time.Millisecond
			n := newNetwork(t, 1, path{Delay: rtt / 2, Rate: 2_500_000, Queue: 125_000, Loss: 0.03})
			store := &transport.MemStore{}
			addr, _ := serve(t, &udpx.Transport{Conn: n.socket()}, store)
			c := dial(t, &udpx.Transport{Conn: n.socket(), Addr: addr.String(), Config: native.Config{Cubic: cubic}})
			b, began := noise(1, 2<<20), time.Now()
			if _, err := c.Send(t.Context(), &transport.Image{Name: "a", Body: transport.Bytes(b)}, nil); err != nil {
				t.Fatal(err)
			}
			took[i] = time.Since(began)
			kept(t, store, "a", b)
			c.Close()
		})
	}
	if took[1] < 3*took[0] {
		t.Errorf("%v with CUBIC and %v without: is it used?", took[1], took[0])
	}
}

// TestSmallImagesOverALossyPath measures images of 10 KB on a live session over 20 Mbit/s, 50 ms and 5 % loss.
func TestSmallImagesOverALossyPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 50 * time.Millisecond
		n := newNetwork(t, 3, path{Delay: rtt / 2, Rate: 2_500_000, Queue: 125_000, Loss: 0.05})
		store := &transport.MemStore{}
		addr, _ := serve(t, &udpx.Transport{Conn: n.socket()}, store)
		device := n.socket()
		c := dial(t, &udpx.Transport{Conn: device, Addr: addr.String()})
		const warm, images, size = 20, 300, 10_000
		var took []time.Duration
		before := 0
		for i := range warm + images {
			if i == warm {
				took = nil
				_, before = device.sent()
			}
			b, name := noise(uint64(i), size), fmt.Sprint("image", i)
			began := time.Now()
			if _, err := c.Send(t.Context(), &transport.Image{Name: name, Body: transport.Bytes(b)}, nil); err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(began))
			kept(t, store, name, b)
			time.Sleep(100 * time.Millisecond)
		}
		slices.Sort(took)
		_, after := device.sent()
		median, last, bytes := took[images/2], took[images*99/100], float64(after-before)/(images*size)
		t.Logf("median %v, 99th percentile %v, %.2f of their bytes", median, last, bytes)
		if median > rtt*5/4 || last > 2*rtt || bytes > 2 {
			t.Error("want 1.25 and 2 round trips, and at most 2")
		}
	})
}
