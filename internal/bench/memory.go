package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

const (
	firstSessions  = 100
	idleSessions   = 800
	activeSessions = 8
	window         = 8 << 20 // native.Config.Window's default
	// Bytes that are allowed.
	idleMemory   = 16 << 10 // for each end of a session
	activeMemory = window + 64<<10
)

// party is many sessions with one listener.
type party struct {
	srv    *transport.Server
	served chan error
	conns  []transport.Conn
	free   func()
}

// openParties opens a party of so many sessions.
type openParties func(context.Context, *transport.Server, int) (*party, error)

// openParty serves listen and dials it n times.
func openParty(ctx context.Context, srv *transport.Server, listen transport.Transport, dial func(addr net.Addr) (transport.Conn, error), n int) (*party, error) {
	l, err := listen.Listen(ctx)
	if err != nil {
		return nil, err
	}
	p := &party{srv: srv, served: make(chan error, 1), free: func() {}}
	go func() { p.served <- srv.Serve(context.WithoutCancel(ctx), l) }()
	for range n {
		c, err := dial(l.Addr())
		if err != nil {
			p.close()
			return nil, err
		}
		p.conns = append(p.conns, c)
	}
	return p, nil
}

func (p *party) close() {
	for _, c := range p.conns {
		c.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.srv.Shutdown(ctx)
	<-p.served
	p.free()
}

func openTCPParty(ctx context.Context, srv *transport.Server, n int) (*party, error) {
	return openParty(ctx, srv, &tcpx.Transport{Addr: "127.0.0.1:0"}, func(addr net.Addr) (transport.Conn, error) {
		return (&tcpx.Transport{Addr: addr.String()}).Dial(ctx)
	}, n)
}

// openUDPParty dials from one socket.
func openUDPParty(ctx context.Context, srv *transport.Server, n int) (*party, error) {
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	dialer := &udpx.Transport{Conn: socket}
	p, err := openParty(ctx, srv, &udpx.Transport{Addr: "127.0.0.1:0"}, func(addr net.Addr) (transport.Conn, error) {
		return dialer.DialAddr(ctx, addr)
	}, n)
	if err != nil {
		socket.Close()
		return nil, err
	}
	p.free = func() { socket.Close() }
	return p, nil
}

// openUDPSockets dials from a socket for each session, as is the default.
func openUDPSockets(ctx context.Context, srv *transport.Server, n int) (*party, error) {
	return openParty(ctx, srv, &udpx.Transport{Addr: "127.0.0.1:0"}, func(addr net.Addr) (transport.Conn, error) {
		return (&udpx.Transport{Addr: addr.String()}).Dial(ctx)
	}, n)
}

// sendEach sends an image over each session, several at once, and waits for the receipts.
func (p *party) sendEach(ctx context.Context, size int64) error {
	var group errgroup.Group
	group.SetLimit(16)
	for _, c := range p.conns {
		group.Go(func() error {
			_, err := c.Send(ctx, &transport.Image{Name: "image", MediaType: "image/jpeg", Body: transport.Bytes(image(size))}, nil)
			return err
		})
	}
	return group.Wait()
}

// memoryRows measures what sessions and transfers take in memory, as Dial makes them: heap and stacks, both ends.
func memoryRows(ctx context.Context, o *options, r *report, suite string, open openParties) error {
	err := memoryRow(o, r, suite, idleCase, idleMemory, func() (float64, error) { return idle(ctx, open) })
	if err != nil {
		return err
	}
	return memoryRow(o, r, suite, "memory of an active transfer, both ends", activeMemory, func() (float64, error) { return active(ctx, open) })
}

const idleCase = "memory of an idle session, each end"

func memoryRow(o *options, r *report, suite, name string, allowed float64, measure func() (float64, error)) error {
	if !o.only.MatchString(name + ": pixferry") {
		return nil
	}
	bytes, err := measure()
	if err != nil {
		return err
	}
	v := bytes / 1024
	r.figure(row{Suite: suite, Case: name, System: "pixferry", Role: ours, Unit: "KiB", Median: v, Min: v, Max: v, Ratio: bytes / allowed, Want: 1, AtMost: true})
	return nil
}

// udpMemoryRows measures sessions that share a socket too.
func udpMemoryRows(ctx context.Context, o *options, r *report) error {
	if err := memoryRows(ctx, o, r, "udp", openUDPSockets); err != nil {
		return err
	}
	return memoryRow(o, r, "udp", idleCase+", one socket dials all", idleMemory, func() (float64, error) { return idle(ctx, openUDPParty) })
}

// idle returns what each of many more sessions takes: what the first ones take too belongs to
// the listener.
func idle(ctx context.Context, open openParties) (float64, error) {
	var used [2]float64
	for i, n := range []int{firstSessions, firstSessions + idleSessions} {
		v, err := idleParty(ctx, open, n)
		if err != nil {
			return 0, err
		}
		used[i] = v
	}
	return (used[1] - used[0]) / idleSessions / 2, nil
}

func idleParty(ctx context.Context, open openParties, n int) (float64, error) {
	const size = 100_000
	image(size)
	before := memory()
	p, err := open(ctx, &transport.Server{Store: nowhere{}}, n)
	if err != nil {
		return 0, err
	}
	defer p.close()
	if err := p.sendEach(ctx, size); err != nil {
		return 0, err
	}
	return settled() - before, nil
}

// active lets a Store that takes nothing fill all windows.
func active(ctx context.Context, open openParties) (float64, error) {
	const size = 64 << 20
	image(size)
	before := memory()
	store := stalled{make(chan struct{}, activeSessions), make(chan struct{})}
	p, err := open(ctx, &transport.Server{Store: store}, activeSessions)
	if err != nil {
		return 0, err
	}
	defer p.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- p.sendEach(ctx, size) }()
	for range activeSessions {
		select {
		case <-store.entered:
		case err := <-sent:
			return 0, fmt.Errorf("not all transfers have begun: %w", err)
		}
	}
	used := (settled() - before) / activeSessions
	cancel()
	close(store.release)
	if err := <-sent; !errors.Is(err, context.Canceled) {
		return 0, errors.New("a transfer went on although its Store takes nothing")
	}
	return used, nil
}

// stalled is a Store whose writes wait.
type stalled struct{ entered, release chan struct{} }

func (s stalled) Open(ctx context.Context, o transport.PartialOffer) (transport.Partial, error) {
	p, err := nowhere{}.Open(ctx, o)
	return stalledPartial{p, s}, err
}
func (stalled) Receipt(context.Context, transport.ID) (transport.Receipt, bool, error) {
	return transport.Receipt{}, false, nil
}
func (stalled) Forget(instance, below uint64) {}

type stalledPartial struct {
	transport.Partial
	store stalled
}

func (p stalledPartial) WriteAt(b []byte, off int64) (int, error) {
	select {
	case p.store.entered <- struct{}{}:
	default:
	}
	<-p.store.release
	return p.Partial.WriteAt(b, off)
}

// settled is memory once it neither grows nor shrinks any more, for 10 s at most.
func settled() float64 {
	before := memory()
	for range 50 {
		time.Sleep(200 * time.Millisecond)
		now := memory()
		if math.Abs(now-before) < now/1000 {
			break
		}
		before = now
	}
	return before
}

// memory is what the heap and the stacks hold, after everything that can be freed was.
func memory() float64 {
	runtime.GC()
	runtime.GC() // pools are emptied in two steps
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}
