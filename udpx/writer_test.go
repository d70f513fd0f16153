package udpx

import (
	"cmp"
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/timers"
	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/transport"
)

func TestJoins(t *testing.T) {
	for _, c := range []struct {
		size, segment, n int
		want             bool
	}{
		{1000, 1000, 1000, true},
		{1000, 1000, 1, true},
		{1000, 1000, 1001, false},  // longer than the first
		{1001, 1000, 1, false},     // after one that was shorter
		{63000, 1000, 1000, true},  // the 64th
		{64000, 1000, 1000, false}, // the 65th
		{44 * 1472, 1472, 739, true},
		{44 * 1472, 1472, 740, false}, // over the largest datagram
	} {
		p := udpsock.Packet{Data: make([]byte, c.size), Segment: c.segment}
		if got := joins(&p, c.n); got != c.want {
			t.Errorf("%d bytes join a train of %d in segments of %d: %v; want %v", c.n, c.size, c.segment, got, c.want)
		}
	}
}

// TestHelpHastensTheWriter sets a timer from the reader while the writer sleeps longer.
func TestHelpHastensTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, alarm := range map[string]time.Duration{"for ever": 0, "longer": 2 * time.Hour, "no longer": time.Minute} {
			s, begin := &socket{refs: 1}, time.Now()
			w := newWriter(s)
			if alarm > 0 {
				s.timers.Set(new(timers.Timer[*carrier]), begin.Add(alarm))
			}
			w.sleep()
			s.timers.Set(new(timers.Timer[*carrier]), begin.Add(time.Hour))
			w.help()
			<-w.timer.C
			if got, want := time.Since(begin), min(time.Hour, cmp.Or(alarm, time.Hour)); got != want {
				t.Errorf("the writer sleeps %s: it wakes after %v; want %v", name, got, want)
			}
		}
	})
}

// A peer that is gone in the middle of an image ends the session with a burst refused while another one, polled
// meanwhile, waits for the goroutine that writes.
func TestRefusedPacketEndsTheSession(t *testing.T) {
	l, err := (&Transport{Addr: "127.0.0.1:0"}).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tr := &Transport{Addr: l.Addr().String()}
	if err := tr.check(); err != nil {
		t.Fatal(err)
	}
	var c *carrier
	conn, err := tr.endpoint.Dial(t.Context(), func(ctx context.Context) (session.Carrier, error) {
		own, err := tr.dialOwn(ctx)
		if c == nil {
			c = own.(*carrier)
		}
		return own, err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w, s := c.socket.writer, c.session
	w.turn <- struct{}{} // nobody else polls
	for w.queues() {     // until what is being written is, and this goroutine is who writes
		w.next <- newBurst()
	}
	if !w.queues() {
		t.Fatal("nobody writes")
	}
	w.next <- newBurst()
	<-w.turn
	w.refuse(c, &udpsock.Packet{Err: os.NewSyscallError("sendmmsg", syscall.ECONNREFUSED)})
	for w.follows() {
		w.write(<-w.next)
	}
	<-s.Done()
	if err := s.Err(); !errors.Is(err, transport.ErrNoReceiver) {
		t.Error(err)
	}
}
