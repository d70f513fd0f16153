package udpx_test

import (
	"testing"
	"time"

	"github.com/pixferry/pixferry/udpx"
)

// After images that were lost the sender goes slower, until one is answered well, and no more so
// many at once; with a Gap of the user's it does not.
func TestHeaderGoesSlowerAfterLosses(t *testing.T) {
	for gap, want := range map[time.Duration][]time.Duration{ // ms for 99 datagrams
		0:                {134, 380, 784, 784, 196},
		time.Millisecond: {98, 98, 98, 98, 98},
	} {
		deviceBubble(t, func(t *testing.T, n *network) {
			pc := n.socket()
			defer pc.Close()
			answers := []string{"bad image", "noise", "bad image", "get message!!!", "get message!!!"}
			go func() {
				b := make([]byte, 2048)
				for _, answer := range answers {
					for got := -1; got < 98; got++ {
						_, from, err := pc.ReadFrom(b)
						if err != nil {
							return
						}
						if got == 97 {
							pc.WriteTo([]byte(answer), from)
						}
					}
				}
			}()
			c := dialDevice(t, &udpx.Header{Socket: n.sockets, Addr: pc.LocalAddr().String(), Gap: gap})
			for i, answer := range answers {
				began := time.Now()
				if err := sendImage(t, c, photo[:98<<10]); (err == nil) != (answer == "get message!!!") {
					t.Errorf("answered %q: %v", answer, err)
				}
				// Both ways of the network and what the pacer makes up for are within 20 ms.
				if took := time.Since(began) - want[i]*time.Millisecond; took < -5*time.Millisecond || took > 20*time.Millisecond {
					t.Errorf("Gap %v: image %d took %v more than %d ms", gap, i, took, want[i])
				}
			}
		})
	}
}
