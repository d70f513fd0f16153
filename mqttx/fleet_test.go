package mqttx

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/transport"
)

// connections returns how many connections the transport's client has had.
func connections(t *Transport) int {
	t.hub.mu.Lock()
	defer t.hub.mu.Unlock()
	return t.hub.lives
}

// stats returns the counters of the transport's only session.
func stats(t *Transport) arq.Stats {
	return t.hub.sessions.all(everyone)[0].session.Stats()
}

// Sixteen senders share the receiver's queue in the broker, 1,000 messages by default
// in mosquitto, which drops what does not fit. Small messages fill it sooner.
func TestSixteenSenders(t *testing.T) {
	const senders, size, message = 16, 2 << 20, 2 << 10
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		r := receive(t, &Transport{Broker: b.URL(), Name: "receiver"})
		content := random(size)
		var group errgroup.Group
		var from [senders]*Transport
		began := time.Now()
		for i := range senders {
			from[i] = &Transport{Broker: b.URL(), Peer: "receiver", MaxMessage: message}
			c := dial(t, from[i])
			group.Go(func() error {
				_, err := send(within(t), c, fmt.Sprint("from ", i), content)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		total := int64(0)
		for i := range senders {
			total += stats(from[i]).ResentBytes
			r.expect(t, fmt.Sprint("from ", i), content)
		}
		t.Logf("%v, %.0f MB/s, %d bytes resent", took, senders*size/1e6/took.Seconds(), total)
		if total > senders*size/20 {
			t.Errorf("%d of %d bytes were sent again", total, senders*size)
		}
	})
}

func TestBrokerRestartsInMidTransfer(t *testing.T) {
	const size = 48 << 20
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		r := receive(t, &Transport{Broker: b.URL(), Name: "receiver"})
		from := &Transport{Broker: b.URL(), Peer: "receiver"}
		c := dial(t, from)
		content := random(size)
		started := make(chan struct{})
		once := false
		_, err := c.Send(within(t), &transport.Image{Name: "image", Body: transport.Bytes(content)}, &transport.SendOptions{
			Require: transport.Kept,
			Progress: func(acked, _ int64) {
				if !once && acked > size/4 {
					once = true
					b.Stop()
					go func() {
						b.Start()
						close(started)
					}()
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		<-started
		r.expect(t, "image", content)
		resent := stats(from).ResentBytes
		t.Logf("%d bytes resent", resent)
		if resent > 2*window {
			t.Errorf("%d bytes were sent again, with a window of %d", resent, window)
		}
		if lives := connections(from); lives < 2 {
			t.Errorf("%d connections", lives)
		}
		mustSend(t, c, "next", content[:1000])
	})
}

func TestContextEndsDial(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := (&Transport{Broker: b.URL(), Peer: "nobody"}).Dial(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
