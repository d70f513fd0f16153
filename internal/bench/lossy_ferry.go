package main

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/pixferry/pixferry/internal/arq/sim"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
	"github.com/pixferry/pixferry/udpx"
)

// simFerry is udpx on simulated sockets, the second of which listens.
type simFerry struct {
	sockets  [2]*simSocket
	dialer   *udpx.Transport
	listener net.Addr
	srv      *transport.Server
	served   chan error
}

func newSimFerry(ctx context.Context, there, back sim.Config, window int, seed uint64) (*simFerry, error) {
	s, cfg := newSimSockets(there, back, seed), native.Config{Window: window}
	l, err := (&udpx.Transport{Conn: s[1], Config: cfg}).Listen(ctx)
	if err != nil {
		return nil, err
	}
	f := &simFerry{
		sockets: s, dialer: &udpx.Transport{Conn: s[0], Config: cfg}, listener: s[1].addr,
		srv: &transport.Server{Store: nowhere{}}, served: make(chan error, 1),
	}
	go func() { f.served <- f.srv.Serve(context.WithoutCancel(ctx), l) }()
	return f, nil
}

func (f *simFerry) dial(ctx context.Context) (transport.Conn, error) {
	return f.dialer.DialAddr(ctx, f.listener)
}

func (f *simFerry) close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f.srv.Shutdown(ctx)
	<-f.served
	for _, s := range f.sockets {
		s.Close()
	}
}

// ferry lets pixferry do the scenario, in a bubble.
func (s *scenario) ferry(t *testing.T, seed uint64) (o outcome, err error) {
	ctx := t.Context()
	there, back := s.links()
	f, err := newSimFerry(ctx, there, back, s.window, seed)
	if err != nil {
		return o, err
	}
	defer f.close()
	img := &transport.Image{Name: "image", MediaType: "image/jpeg", Body: transport.Bytes(image(s.size))}
	began, sent := time.Now(), f.sockets[0].sent()
	conn, err := f.dial(ctx)
	if err != nil {
		return o, err
	}
	defer func() { conn.Close() }()
	if s.state != cold {
		if _, err := conn.Send(ctx, img, nil); err != nil {
			return o, err
		}
		if s.state == remembered {
			conn.Close()
		}
		time.Sleep(time.Second)
		began, sent = time.Now(), f.sockets[0].sent()
		if s.state == remembered {
			if conn, err = f.dial(ctx); err != nil {
				return o, err
			}
		}
	}
	defer s.follow(f.sockets, there, back)()
	if _, err := conn.Send(ctx, img, nil); err != nil {
		return o, err
	}
	return s.outcome(time.Since(began), f.sockets[0].sent()-sent), nil
}

// follow changes the links as the scenario says until the function that it returns is called.
func (s *scenario) follow(sockets [2]*simSocket, there, back sim.Config) (stop func()) {
	if s.change == nil {
		return func() {}
	}
	began, done, ended := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			now := s.change(time.Since(began))
			sockets[0].link(func(l *sim.Link) { now.apply(l, there) })
			sockets[1].link(func(l *sim.Link) { now.apply(l, back) })
			select {
			case <-tick.C:
			case <-done:
				tick.Stop()
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}
