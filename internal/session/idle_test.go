package session

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/transport"
)

// join is couple, and the Conn takes the session.
func join(t *testing.T, c *Conn) (a, b *Session) { return joinOver(t, c, still{}) }

func joinOver(t *testing.T, c *Conn, link still) (a, b *Session) {
	a, b = couple(t, c, c.ep, link)
	c.adopt(a)
	return a, b
}

// The carrier cannot take messages when a transfer begins after a long silence, such as an MQTT client whose broker
// is just being restarted: the transfer has all of the idle time.
func TestTransferBeginsWhileNothingCanLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewEndpoint(Config{})
		conn := newConn(e, nil)
		a, b := join(t, conn)

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

// The session's time is over, and its carrier has not looked at the clock yet, when a transfer is to begin on it: the
// transfer begins on the next one.
func TestTransferBeginsWhenItsSessionIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialled := 0
		again := errors.New("nobody is there")
		e := NewEndpoint(Config{})
		conn := newConn(e, func(context.Context) (Carrier, error) { dialled++; return nil, again })
		a, b := join(t, conn)
		a.do(func(e *arq.Engine) { e.Attend(time.Now(), true) })

		time.Sleep(2 * e.cfg.IdleTimeout)
		_, err := conn.Send(t.Context(), &transport.Image{Name: "x", Body: transport.Bytes([]byte("x"))}, nil)
		if dialled == 0 || !errors.Is(err, transport.ErrIdle) || !errors.Is(err, again) {
			t.Errorf("dialled %d times: %v", dialled, err)
		}
		conn.Close()
		b.Fail(transport.ErrClosed)
	})
}

// A program that was frozen for longer than the idle time, as containers are, does not take that for silence of the
// peer's: it asks first, and when the peer has given it up for its own silence the transfer goes on in another session.
func TestTransferOutlastsAFreeze(t *testing.T) {
	for _, reliable := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			dialled := 0
			again := errors.New("nobody is there")
			e := NewEndpoint(Config{})
			conn := newConn(e, func(context.Context) (Carrier, error) { dialled++; return nil, again })
			a, b := joinOver(t, conn, still{reliable})
			sent := make(chan error, 1)
			go func() {
				_, err := conn.Send(t.Context(), &transport.Image{Name: "x", Body: transport.Bytes(make([]byte, 100))}, nil)
				sent <- err
			}()
			synctest.Wait()
			b.do(func(e *arq.Engine) { e.Attend(time.Now(), true) })
			a.Deadline()
			buf := make([]byte, 64<<10)
			var said [][]byte // by the peer, until it gives up
			for b.Err() == nil {
				time.Sleep(time.Until(b.Deadline()))
				b.Advance(time.Now())
				for n := b.Poll(time.Now(), buf); n > 0; n = b.Poll(time.Now(), buf) {
					said = append(said, bytes.Clone(buf[:n]))
				}
			}
			a.Advance(time.Now())
			if a.Err() != nil {
				t.Error("the peer was not asked:", a.Err())
			}
			for _, msg := range said {
				a.Deliver(time.Now(), nil, msg)
			}
			if err := <-sent; dialled == 0 || !errors.Is(err, again) {
				t.Errorf("reliable %t: dialled %d times: %v", reliable, dialled, err)
			}
			conn.Close()
		})
	}
}
