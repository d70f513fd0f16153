package tcpx_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// damage changes one bit of a stream of messages, once over all connections.
type damage struct {
	message int // which of a connection's messages, its prefix included; the first is 0
	least   int // bytes that a message has which counts; between large ones there may be any number of small ones
	at      int // byte of it; negative: from its end
	bit     byte
	done    atomic.Bool
	dials   atomic.Int32
}

func (d *damage) dial(back bool) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		d.dials.Add(1)
		s := &stream{damage: d}
		if back {
			return &damagedReads{conn, s}, nil
		}
		return &damagedWrites{conn, s}, nil
	}
}

// stream follows the messages of one direction.
type stream struct {
	*damage
	count  int // messages that have begun
	prefix []byte
	offset int // of the next byte in its message
	end    int // of the message; 0: in its prefix
}

// pass counts bytes, and changes the one that is to be changed.
func (s *stream) pass(p []byte) {
	for i := range p {
		at := s.at
		if at < 0 && s.end > 0 {
			at += s.end
		}
		original := p[i]
		if s.count == s.message && s.end >= s.least && s.offset == at && s.done.CompareAndSwap(false, true) {
			p[i] ^= s.bit
		}
		if s.offset++; s.end == 0 {
			if s.prefix = append(s.prefix, original); len(s.prefix) == 4 {
				s.end = 4 + int(binary.LittleEndian.Uint32(s.prefix))
				s.prefix = s.prefix[:0]
			}
		}
		if s.offset == s.end {
			if s.end >= s.least {
				s.count++
			}
			s.offset, s.end = 0, 0
		}
	}
}

type damagedWrites struct {
	net.Conn
	s *stream
}

func (c *damagedWrites) Write(p []byte) (int, error) {
	p = append([]byte(nil), p...)
	c.s.pass(p)
	return c.Conn.Write(p)
}

type damagedReads struct {
	net.Conn
	s *stream
}

func (c *damagedReads) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.s.pass(p[:n])
	return n, err
}

// A changed bit, which TCP's own checksum may miss, costs a connection: nothing hangs, and the image arrives
// as it was sent.
func TestChangedByteCostsAConnection(t *testing.T) {
	for name, d := range map[string]*damage{
		"length, over the limit": {message: 5, at: 3, bit: 1},
		"length, shorter":        {message: 5, at: 2, bit: 4},
		"length, longer":         {message: 5, at: 0, bit: 0x40},
		"flags":                  {message: 5, at: 4, bit: 0x80},
		"ID":                     {message: 5, at: 7, bit: 1},
		"number":                 {message: 5, at: 13, bit: 1},
		"frame":                  {message: 5, at: 17, bit: 2},
		"checksum":               {message: 5, at: -1, bit: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, nil)
			conn := dial(t, &tcpx.Transport{Addr: r.addr, DialContext: d.dial(false)})
			b := content(3 << 20)
			began := time.Now()
			if _, err := conn.Send(t.Context(), image("big.bin", b), nil); err != nil {
				t.Fatal(err)
			}
			if n := d.dials.Load(); n != 2 || !d.done.Load() {
				t.Errorf("%d connections", n)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			r.kept(t, "big.bin", b)
		})
	}
}

// A bit that has changed in a payload is the digest's to notice: the image is sent again over the same connection, of a
// large one no more than the block.
func TestChangedPayloadCostsABlock(t *testing.T) {
	for name, c := range map[string]struct {
		size    int
		message int
		again   int64 // bytes at most
	}{
		"small":            {50_000, 0, 50_000},
		"one of the first": {3 << 20, 2, 1 << 20},
		"one of the last":  {3<<20 + 12_345, 10, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, nil)
			d := &damage{message: c.message, least: 20_000, at: 10_000, bit: 16}
			conn := dial(t, &tcpx.Transport{Addr: r.addr, DialContext: d.dial(false)})
			b := content(c.size)
			receipt, err := conn.Send(t.Context(), image("big.bin", b), nil)
			if err != nil {
				t.Fatal(err)
			}
			if n := d.dials.Load(); n != 1 || !d.done.Load() {
				t.Errorf("%d connections", n)
			}
			if receipt.Resent > c.again {
				t.Errorf("%d bytes were sent again, want at most %d", receipt.Resent, c.again)
			}
			r.kept(t, "big.bin", b)
		})
	}
	t.Run("message", func(t *testing.T) {
		t.Parallel()
		got := make(chan string, 2)
		r := receive(t, func(s *transport.Server, _ *tcpx.Transport) {
			s.Message = func(_ context.Context, _ transport.Conn, m transport.Message) error {
				got <- string(m.Data)
				return nil
			}
		})
		d := &damage{message: 1, at: -10, bit: 16}
		conn := dial(t, &tcpx.Transport{Addr: r.addr, DialContext: d.dial(false)})
		if err := conn.SendMessage(t.Context(), transport.Message{Data: []byte("some words")}); err != nil || !d.done.Load() {
			t.Fatal(err, d.done.Load())
		}
		if m := <-got; m != "some words" || len(got) > 0 {
			t.Errorf("%q, and %d more", m, len(got))
		}
	})
	t.Run("stream", func(t *testing.T) {
		t.Parallel()
		r := receive(t, nil)
		d := &damage{message: 2, least: 20_000, at: 10_000, bit: 16}
		conn := dial(t, &tcpx.Transport{Addr: r.addr, DialContext: d.dial(false)})
		img := image("big.bin", nil)
		img.Body = transport.Stream(bytes.NewReader(content(3 << 20)))
		_, err := conn.Send(t.Context(), img, nil)
		if !errors.Is(err, transport.ErrBodyConsumed) || !errors.Is(err, transport.ErrDigest) {
			t.Errorf("%v; want that the digest is wrong and the body cannot be read again", err)
		}
		for img := range r.store.All() {
			t.Errorf("%s is kept", img.Name)
		}
		b := content(1000)
		if _, err := conn.Send(t.Context(), image("next.bin", b), nil); err != nil {
			t.Fatal(err)
		}
		r.kept(t, "next.bin", b)
	})
}

// What changes in the receiver's messages is the dialler's to notice.
func TestChangedAnswerCostsAConnection(t *testing.T) {
	for name, d := range map[string]*damage{
		"length, over the limit": {message: 1, at: 3, bit: 1},
		"length, shorter":        {message: 1, at: 0, bit: 1},
		"number":                 {message: 1, at: 13, bit: 1},
		"frame":                  {message: 1, at: 20, bit: 2},
		"checksum":               {message: 1, at: -1, bit: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, nil)
			tr := &tcpx.Transport{Addr: r.addr, DialContext: d.dial(true)}
			conn, err := tr.Dial(t.Context())
			if err != nil && d.done.Load() { // the message came early, and the connection was Dial's
				conn, err = tr.Dial(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			b := content(3 << 20)
			if _, err := conn.Send(t.Context(), image("big.bin", b), nil); err != nil {
				t.Fatal(err)
			}
			if n := d.dials.Load(); n != 2 || !d.done.Load() {
				t.Errorf("%d connections", n)
			}
			r.kept(t, "big.bin", b)
		})
	}
}

// A length that is longer by mistake, with nothing behind it, looks like silence and ends as that does. Where the
// receiver notices first the image goes on over another connection; where the sender does, the call ends.
func TestLongerLengthOfTheLastMessageEndsWithTheIdleTime(t *testing.T) {
	t.Parallel()
	r := receive(t, nil)
	d := &damage{message: 1, at: 1, bit: 0x80}
	conn := dial(t, &tcpx.Transport{Addr: r.addr, DialContext: d.dial(false), Config: native.Config{IdleTimeout: time.Second}})
	b := content(1000)
	send := func() error {
		_, err := conn.Send(t.Context(), image("small.bin", b), &transport.SendOptions{ID: transport.ID{1}})
		return err
	}
	began := time.Now()
	err := send()
	if took := time.Since(began); took < 900*time.Millisecond || took > 20*time.Second {
		t.Errorf("it took %v; want the idle time", took)
	}
	if err != nil && !transport.Retryable(err) {
		t.Fatalf("%v; want an error after which another try is worthwhile", err)
	}
	if err != nil {
		err = send()
	}
	if err != nil || !d.done.Load() {
		t.Fatal(err, d.done.Load())
	}
	r.kept(t, "small.bin", b)
}
