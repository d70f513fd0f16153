package udpsock

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

func listen(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetReadBuffer(4 << 20)
	return c
}

// plain hides what a socket can do.
type plain struct{ net.PacketConn }

// train returns a packet of n datagrams of size bytes and a last one of rest bytes, each with
// its own content.
func train(n, size, rest int, to net.Addr) Packet {
	p := Packet{Segment: size, Addr: to}
	for i := range n {
		p.Data = append(p.Data, bytes.Repeat([]byte{byte(i + 1)}, size)...)
	}
	p.Data = append(p.Data, bytes.Repeat([]byte{0xff}, rest)...)
	return p
}

// datagrams reads n datagrams.
func datagrams(t *testing.T, c *Conn, n int) (got [][]byte, from net.Addr) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	memory := make([]byte, 8*ReadSize)
	for len(got) < n {
		ps := make([]Packet, 8)
		for i := range ps {
			ps[i].Data = memory[i*ReadSize:][:ReadSize:ReadSize]
		}
		k, err := c.Read(ps)
		if err != nil {
			t.Fatalf("after %d of %d datagrams: %v", len(got), n, err)
		}
		for i := range ps[:k] {
			for d := range ps[i].Segments {
				got = append(got, bytes.Clone(d))
			}
			from = ps[i].Addr
		}
	}
	return got, from
}

// offloads reports whether the system cuts trains into datagrams by itself.
func (c *Conn) offloads() bool { return c.batch != nil && c.offload.Load() }

func TestTrains(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, c net.PacketConn) *Conn{
		"offload": func(t *testing.T, c net.PacketConn) *Conn { return New(c, quiet) },
		"batches": func(t *testing.T, c net.PacketConn) *Conn {
			t.Setenv(OffloadVariable, "off")
			return New(c, quiet)
		},
		"plain": func(t *testing.T, c net.PacketConn) *Conn { return New(plain{c}, quiet) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := make(t, listen(t)), make(t, listen(t))
			if want := name == "offload" && runtime.GOOS == "linux"; a.offloads() != want {
				t.Logf("offload is %v", a.offloads())
			}
			to := b.LocalAddr()
			var ps []Packet
			var want [][]byte
			for i, s := range [][3]int{{1, 1200, 0}, {3, 1200, 0}, {MaxTrain, 1000, 0}, {5, 1200, 1}, {1, 30, 7}, {2, 8000, 7999}, {1, 60000, 0}} {
				p := train(s[0], s[1], s[2], to)
				if i == 0 {
					p.Segment = 0
				}
				ps = append(ps, p)
				for d := range p.Segments {
					want = append(want, d)
				}
			}
			if err := a.Write(ps); err != nil {
				t.Fatal(err)
			}
			for i, p := range ps {
				if p.Err != nil {
					t.Errorf("packet %d: %v", i, p.Err)
				}
			}
			got, from := datagrams(t, b, len(want))
			for i, d := range want {
				if !bytes.Equal(got[i], d) {
					t.Fatalf("datagram %d has %d bytes %x..., want %d %x...", i, len(got[i]), got[i][:1], len(d), d[:1])
				}
			}
			if from.String() != a.LocalAddr().String() {
				t.Errorf("from %v; want %v", from, a.LocalAddr())
			}
		})
	}
}

// TestRefusedTrain writes a train that no kernel takes: it is split, and no more are tried.
func TestRefusedTrain(t *testing.T) {
	a, b := New(listen(t), quiet), New(listen(t), quiet)
	if !a.offloads() {
		t.Skip("no offload here")
	}
	const n = 200
	ps := []Packet{train(1, 10, 0, b.LocalAddr()), train(n, 10, 0, b.LocalAddr()), train(2, 10, 0, b.LocalAddr())}
	if err := a.Write(ps); err != nil || ps[1].Err != nil {
		t.Fatal(err, ps[1].Err)
	}
	got, _ := datagrams(t, b, 1+n+2)
	if len(got) != 1+n+2 || got[1+n][0] != 1 {
		t.Errorf("%d datagrams; want %d in order", len(got), 1+n+2)
	}
	if a.offloads() {
		t.Error("offload goes on after the system has refused it")
	}
}

func TestErrorsOfOnePacket(t *testing.T) {
	for _, off := range []string{"on", "off"} {
		t.Run(off, func(t *testing.T) {
			t.Setenv(OffloadVariable, off)
			a, b := New(listen(t), quiet), New(listen(t), quiet)
			ps := []Packet{train(1, 10, 0, b.LocalAddr()), {Data: make([]byte, MaxDatagram+10), Addr: b.LocalAddr()}, train(1, 12, 0, b.LocalAddr())}
			if err := a.Write(ps); err != nil {
				t.Fatal(err)
			}
			if ps[0].Err != nil || !TooLarge(ps[1].Err) || ps[2].Err != nil {
				t.Errorf("errors %v, %v, %v; want one of size for the second", ps[0].Err, ps[1].Err, ps[2].Err)
			}
			if got, _ := datagrams(t, b, 2); len(got[1]) != 12 {
				t.Errorf("the last packet has %d bytes; want 12", len(got[1]))
			}
		})
	}
}

// TestCut reads into memory for less than what comes: the rest is lost, and what follows is not.
func TestCut(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("what is longer is lost")
	}
	t.Setenv(OffloadVariable, "off")
	for _, pc := range []func(net.PacketConn) net.PacketConn{
		func(c net.PacketConn) net.PacketConn { return c },
		func(c net.PacketConn) net.PacketConn { return plain{c} },
	} {
		c := New(pc(listen(t)), quiet)
		t.Run(fmt.Sprintf("%T", c.PacketConn), func(t *testing.T) {
			if c.Joins() {
				t.Fatal("trains are read with the offload off")
			}
			if err := c.Write([]Packet{{Data: make([]byte, 100), Addr: c.LocalAddr()}, {Data: []byte("next"), Addr: c.LocalAddr()}}); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			var sizes []int
			for len(sizes) < 2 {
				ps := []Packet{{Data: make([]byte, 10)}, {Data: make([]byte, 10)}}
				n, err := c.Read(ps)
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range ps[:n] {
					sizes = append(sizes, len(p.Data))
				}
			}
			if sizes[0] != 10 || sizes[1] != 4 {
				t.Errorf("read %v bytes; want 10 of 100, then 4", sizes)
			}
		})
	}
}

// refused returns a socket that is connected to a closed port, for ten seconds.
func refused(t *testing.T) *Conn {
	l := listen(t)
	u, err := net.DialUDP("udp", nil, l.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	l.Close()
	u.SetReadDeadline(time.Now().Add(10 * time.Second))
	return New(u, quiet)
}

func TestRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("package net turns the system's word for it off")
	}
	c := refused(t)
	if !c.Connected() {
		t.Error("not connected")
	}
	if err := c.Write([]Packet{{Data: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read([]Packet{{Data: make([]byte, ReadSize)}}); !Refused(err) {
		t.Errorf("Read after a datagram to a closed port: %v; want refused", err)
	}
}

func TestInterrupt(t *testing.T) {
	for _, pc := range []func(net.PacketConn) net.PacketConn{
		func(c net.PacketConn) net.PacketConn { return c },
		func(c net.PacketConn) net.PacketConn { return plain{c} },
	} {
		c := New(pc(listen(t)), quiet)
		t.Run(fmt.Sprintf("%T", c.PacketConn), func(t *testing.T) {
			done := make(chan error)
			go func() {
				_, err := c.Read([]Packet{{Data: make([]byte, ReadSize)}})
				done <- err
			}()
			c.Interrupt()
			if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("an interrupted Read: %v; want os.ErrDeadlineExceeded", err)
			}
			c.Resume()
			if err := c.Write([]Packet{{Data: []byte("x"), Addr: c.LocalAddr()}}); err != nil {
				t.Fatal(err)
			}
			datagrams(t, c, 1)
		})
	}
}
