package session

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq"
	"github.com/pixferry/pixferry/internal/wire"
)

// still is a Carrier that the test plays itself.
type still struct{ reliable bool }

func (c still) Info() LinkInfo {
	return LinkInfo{Ordered: true, Reliable: c.reliable, MaxMessage: 64 << 10}
}
func (still) Start(*Session) {}
func (still) Wake()          {}
func (still) Wait()          {}

// couple makes a session of the Conn whose carrier does nothing, and returns it and the one at a peer.
func couple(t *testing.T, c *Conn, peer *Endpoint, link still) (a, b *Session) {
	t.Helper()
	a = c.newSession(link, nil)
	buf := make([]byte, 64<<10)
	first := buf[:a.Poll(time.Now(), buf)]
	h, _, err := wire.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	b = newConn(peer, nil).newSession(link, &h)
	b.Deliver(time.Now(), nil, first)
	a.Deliver(time.Now(), nil, buf[:b.Poll(time.Now(), buf)])
	return a, b
}

// TestPollApart has a transfer given up while its bytes are being written from where they
// are: they stay until then.
func TestPollApart(t *testing.T) {
	t.Run("reliable", func(t *testing.T) { testPollApart(t, still{true}, wire.ParseReliable) })
	t.Run("may lose", func(t *testing.T) { testPollApart(t, still{}, wire.Parse) })
}

func testPollApart(t *testing.T, link still, parse func([]byte) (wire.Header, []byte, error)) {
	e := NewEndpoint(Config{})
	a, _ := couple(t, newConn(e, nil), e, link)
	var err error
	buf := make([]byte, 64<<10)
	memory := NewBuffer(40_000)
	image := memory.mem[:40_000]
	for i := range image {
		image[i] = byte(i >> 4)
	}
	memory.fill(len(image))
	x := &sending{s: a, up: &upload{moved: make(chan struct{}, 1)}, wake: make(chan struct{}, 1)}
	a.do(func(e *arq.Engine) {
		if x.handle, err = e.Offer(&wire.Offer{Size: 40_000, Algorithm: 1}); err == nil {
			a.out[x.handle] = x
			x.lent = append(x.lent, memory)
			err = e.Supply(x.handle, 0, image)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p := a.PollApart(time.Now(), buf)
	x.leave()
	if p.memory != memory || memory.refs.Load() != 1 {
		t.Fatalf("the buffer has %d references while it is written, want one", memory.refs.Load())
	}
	if !bytes.Equal(p.Payload, image) {
		t.Errorf("%d bytes of payload, want the %d of the image", len(p.Payload), len(image))
	}
	if _, _, err := parse(slices.Concat(p.Head, p.Payload, p.Tail)); err != nil {
		t.Error(err)
	}
}
