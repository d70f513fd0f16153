package main

import (
	"net"
	"testing"
	"time"
)

// quic lets quic-go do the scenario, in a bubble. On sockets that are not the kernel's it does not
// search for the path's MTU. It stays at its 1,280 bytes, for with a larger InitialPacketSize
// its pacer waits for less than its sender wants, in a loop in which virtual time stands still.
func (s *scenario) quic(t *testing.T, seed uint64) (o outcome, err error) {
	// quic-go counts time from the start of the process, which must not be in the future:
	// bubbles begin in the year 2000.
	time.Sleep(100 * 365 * 24 * time.Hour)
	there, back := s.links()
	sockets := newSimSockets(there, back, seed)
	cfg := quicConfig(max(8<<20, 4*uint64(there.BDP())))
	cfg.HandshakeIdleTimeout, cfg.MaxIdleTimeout = time.Minute, 10*time.Minute
	began := time.Now()
	p, err := openQUICOn(t.Context(), [2]net.PacketConn{sockets[1], sockets[0]}, cfg)
	if err != nil {
		return o, err
	}
	defer p.close()
	if s.state == live {
		if err := p.put(t.Context(), image(s.size)); err != nil {
			return o, err
		}
		began = time.Now()
	}
	defer s.follow(sockets, there, back)()
	sent := sockets[0].sent()
	if err := p.put(t.Context(), image(s.size)); err != nil {
		return o, err
	}
	return s.outcome(time.Since(began), sockets[0].sent()-sent), nil
}
