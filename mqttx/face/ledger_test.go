package face

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/transport"
)

// A broker that ends each connection at a record that is too large for it: the terminal gives that record up, and goes on.
func TestRecordTooLargeForTheBroker(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{MaxPacket: 100_000})
	d := serve(t, b, &Transport{}, nil)
	c := dial(t, b, &Transport{})
	_, err := c.Send(within(t), &transport.Image{Body: transport.Bytes(make([]byte, 100_000))}, nil)
	if err == nil || !strings.Contains(err.Error(), "set MaxPayload") {
		t.Error(err)
	}
	if _, err := c.Send(within(t), &transport.Image{Body: transport.Bytes([]byte("small"))}, nil); err != nil {
		t.Error(err)
	}
	if got := await(t, "a record", d.images); string(got.body) != "small" {
		t.Errorf("%d bytes", len(got.body))
	}
}

// A record that the broker has not acknowledged is not sent, whatever becomes of connections.
func TestRecordIsSentAgain(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	c := dial(t, b, &Transport{})
	var times atomic.Int32
	lost := make(chan struct{})
	b.SetFaults(func(string, []byte) testbroker.Fault {
		if times.Add(1) == 1 {
			close(lost)
			return testbroker.Lose
		}
		return testbroker.None
	})
	sent := make(chan error, 1)
	go func() {
		_, err := c.Send(within(t), &transport.Image{Body: transport.Bytes([]byte("x"))}, nil)
		sent <- err
	}()
	await(t, "the record", lost)
	b.Stop()
	b.Start()
	if err := await(t, "the end of Send", sent); err != nil || times.Load() != 2 {
		t.Errorf("%v, and the record was at the broker %d times", err, times.Load())
	}
	waitUp(t, c.(*terminal).client, true) // one that ends while it subscribes takes its time
}

func TestLedger(t *testing.T) {
	store := mqtt.NewMemoryStore()
	store.Open()
	put := func(s mqtt.Store, key string, size int) {
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.Payload = make([]byte, size)
		s.Put(key, p)
	}
	put(store, "o.1", 3) // by an earlier program
	var log strings.Builder
	l := newLedger(store, slog.New(slog.NewTextHandler(&log, nil)))
	put(l, "o.3", 2)
	l.Reset()
	if keys := store.All(); len(keys) != 1 || keys[0] != "o.3" {
		t.Errorf("%q are left", keys)
	}
	put(store, "o.1", 3)
	put(l, "i.2", 9)
	put(l, "o.4", 1)
	small, tiny := l.open["o.3"], l.open["o.4"]
	for n := range maxEnds {
		if got := len(l.All()); got != 4 && n < maxEnds-1 {
			t.Errorf("%d messages are sent again after %d connections", got, n)
		}
	}
	for range maxEnds {
		put(l, "i.2", 9) // what comes does not count
		l.All()
	}
	l.Del("o.4")
	keys := l.All()
	slices.Sort(keys)
	if fmt.Sprint(keys) != "[i.2]" || len(l.open) != 0 {
		t.Errorf("%q are left, and %d are open", keys, len(l.open))
	}
	if err := await(t, "an end", tiny.over); err != nil {
		t.Error(err)
	}
	if err := await(t, "an end", small.over); err == nil || !strings.Contains(err.Error(), "of 2 bytes") {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "is given up"); n != 2 {
		t.Errorf("%d are logged, want 2:\n%s", n, log.String())
	}
}
