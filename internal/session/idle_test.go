package session

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// The carrier cannot take messages when a transfer begins after a long silence, such as an MQTT client whose broker
// is just being restarted: the transfer has all of the idle time.
func TestTransferBeginsWhileNothingCanLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewEndpoint(Config{})
		conn := newConn(e, nil)
		a := conn.newSession(still{}, nil)
		buf := make([]byte, 64<<10)
		first := buf[:a.Poll(time.Now(), buf)]
		h, _, err := wire.Parse(first)
		if err != nil {
			t.Fatal(err)
		}
		b := newConn(e, nil).newSession(still{}, &h)
		b.Deliver(time.Now(), nil, first)
		a.Deliver(time.Now(), nil, buf[:b.Poll(time.Now(), buf)])
		conn.adopt(a)

		idle := e.cfg.IdleTimeout
		time.Sleep(2 * idle)
		ctx, cancel := context.WithCancel(t.Context())
		go conn.Send(ctx, &transport.Image{Name: "x", Body: transport.Bytes([]byte("x"))}, nil)
		synctest.Wait()
		for end := time.Now().Add(idle - time.Second); time.Now().Before(end); { // as a carrier does
			time.Sleep(min(time.Until(end), max(0, time.Until(a.Deadline()))))
			if a.Advance(time.Now()); a.Err() != nil {
				t.Fatalf("%v before the idle time is over: %v", time.Until(end)+time.Second, a.Err())
			}
		}
		cancel()
		synctest.Wait()
		a.Fail(transport.ErrClosed)
		b.Fail(transport.ErrClosed)
	})
}
