package udpx_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
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
			if _, err := c.Send(t.Context(), &transport.Image{Name: name, Body: transport.Bytes(b)}, nil); err != nil {
				t.Fatal(err)
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
