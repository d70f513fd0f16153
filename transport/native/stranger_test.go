package native_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	codec "github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// refuse answers the first message on a link as a peer does that speaks version 2 alone.
func refuse(t *testing.T, l native.Link) {
	defer l.Close()
	buf := make([]byte, l.Info().MaxMessage)
	n, err := l.ReadMessage(buf)
	if err != nil {
		t.Error(err)
		return
	}
	h, _, err := codec.Parse(buf[:n])
	if err != nil {
		t.Error(err)
		return
	}
	answer := codec.Header{Long: true, Dest: h.Source, Source: h.Dest, Number: h.Number, Version: codec.VersionNone}
	if err := l.WriteMessage(codec.Seal((&codec.Versions{Spoken: []byte{2}}).Append(answer.Append(nil)))); err != nil {
		t.Error(err)
	}
}

// ofAnotherVersion checks the error of a call whose peer refuses.
func ofAnotherVersion(t *testing.T, err error, began time.Time) {
	t.Helper()
	if !errors.Is(err, errors.ErrUnsupported) || transport.Retryable(err) || !strings.Contains(err.Error(), "versions [2]") || time.Since(began) > time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestDialAPeerOfAnotherVersion(t *testing.T) {
	for _, info := range []native.LinkInfo{
		{Ordered: true, Reliable: true, MaxMessage: 4000},
		{Ordered: true, MaxMessage: 4000},
		{MaxMessage: 1200},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMedium(info)
			go func() { refuse(t, <-m.links) }()
			began := time.Now()
			_, err := native.Over(m.dial, nil, native.Config{}).Dial(t.Context())
			ofAnotherVersion(t, err, began)
		})
	}
}

// A peer that was exchanged for one of another version while the link was down is not dialled for ever.
func TestRedialOfAPeerOfAnotherVersion(t *testing.T) {
	bubble(t, nil, func(t *testing.T, e *ends) {
		e.mu.Lock()
		e.pair = func() (near, far native.Link) {
			a, b := memLinks(e.info, e.depth)
			go refuse(t, b)
			c, d := memLinks(e.info, e.depth) // for who listens, who has nothing to do with it
			c.Close()
			return a, d
		}
		e.mu.Unlock()
		e.cut(nil)
		began := time.Now()
		_, err := e.conn.Send(t.Context(), image("x", []byte("x")), &transport.SendOptions{Retry: &transport.RetryPolicy{}})
		ofAnotherVersion(t, err, began)
	})
}

// answers offers transfers as a program does that is not of this package, and returns what is refused, in order.
func answers(t *testing.T, l native.Link, offers ...*codec.Offer) []*codec.Reject {
	info := l.Info()
	e := arq.New(arq.Config{Initiator: true, Ordered: info.Ordered, Reliable: info.Reliable, MaxMessage: info.MaxMessage,
		Local: codec.Hello{MaxMessage: uint32(info.MaxMessage), AckRanges: 1}, LocalCID: 1, RemoteCID: 2}, time.Now())
	byHandle := map[uint16]int{}
	for i, o := range offers {
		h, err := e.Offer(o)
		if err != nil {
			t.Fatal(err)
		}
		byHandle[h] = i
	}
	rejects, missing := make([]*codec.Reject, len(offers)), len(offers)
	for buf := make([]byte, info.MaxMessage); missing > 0; {
		for n := e.Poll(time.Now(), buf); n > 0; n = e.Poll(time.Now(), buf) {
			if err := l.WriteMessage(buf[:n]); err != nil {
				t.Fatal(err)
			}
		}
		n, err := l.ReadMessage(buf)
		if err != nil {
			t.Fatal(err)
		}
		e.Receive(time.Now(), buf[:n])
		for ev := e.NextEvent(); ev != nil; ev = e.NextEvent() {
			switch ev.Kind {
			case arq.Rejected:
				rejects[byHandle[ev.Handle]] = ev.Reject
				missing--
			case arq.Receipted:
				missing--
			case arq.Closed:
				t.Fatal(ev.Err)
			}
		}
	}
	return rejects
}

func TestOffersThatNoConnMakes(t *testing.T) {
	bubble(t, func(s *transport.Server, _ *medium) {
		s.Message = func(context.Context, transport.Conn, transport.Message) error {
			t.Error("a message has come")
			return nil
		}
	}, func(t *testing.T, e *ends) {
		l, err := e.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		offer := func(id byte, kind uint8, size int64) *codec.Offer {
			return &codec.Offer{ID: [16]byte{15: id}, Attempt: 1, Kind: kind, Size: size, Algorithm: 1}
		}
		most := int64(64 << 10) // of Limits
		got := answers(t, l, offer(1, 9, 10), offer(2, codec.KindMessage, most+1), offer(3, codec.KindMessage, 1<<20+1), offer(4, codec.KindMessage, -1))
		for i, want := range []transport.Reason{transport.ReasonMalformed, transport.ReasonTooLarge, transport.ReasonTooLarge, transport.ReasonTooLarge} {
			if r := got[i]; r == nil || transport.Reason(r.Reason) != want || r.Flags&codec.RejectRetryable != 0 || r.Text == "" {
				t.Errorf("offer %d: %+v", i, r)
			}
		}
	})
}
