// Package udpsock reads and writes datagrams in batches over any net.PacketConn:
// on Linux with recvmmsg, sendmmsg and the kernel's segmentation offloads (GSO and
// GRO), elsewhere and on sockets that are not *net.UDPConn one call a datagram.
package udpsock

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// MaxDatagram is the largest payload of UDP over IPv4, in bytes.
	MaxDatagram = 65507
	// MaxTrain is how many datagrams a packet may hold at most (UDP_MAX_SEGMENTS of
	// kernels before 6.9).
	MaxTrain = 64
	// ReadSize is what the buffer of a packet must have for reading, in bytes, where
	// packets may be trains (Joins).
	ReadSize = 64 << 10

	// socketBuffer is what is asked of the kernel for each direction: 7 MB, as
	// quic-go and wireguard-go measured.
	socketBuffer = 7 << 20
)

// OffloadVariable is the environment variable whose value "off" turns GSO and GRO off.
const OffloadVariable = "PIXFERRY_UDP_OFFLOAD"

// Packet is one datagram, or a train: several to or from one peer that lie behind each
// other and have Segment bytes each but the last, which may be shorter.
type Packet struct {
	// Data is what to write. For reading it is memory, of ReadSize bytes or, where no trains
	// are read, of the largest datagram that is waited for: more is cut off. Read cuts it to what arrived.
	Data    []byte
	Segment int      // 0: one datagram
	Addr    net.Addr // the peer, of Read perhaps an *Addr; nil: the one that the socket is connected to
	Err     error    // why Write could not send it, or not all of it
}

// An Addr is a peer, with the address of this host's that it has sent to. What is written to it leaves from
// there, while this host has that address: the system would choose among all addresses of a socket that is bound to none.
type Addr struct {
	*net.UDPAddr
	local  netip.Addr
	source []byte // the control message that says so
}

// Segments returns the datagrams one by one.
func (p *Packet) Segments(yield func([]byte) bool) {
	rest := p.Data
	for p.Segment > 0 && len(rest) > p.Segment {
		if !yield(rest[:p.Segment:p.Segment]) {
			return
		}
		rest = rest[p.Segment:]
	}
	yield(rest)
}

// Conn is a socket. One goroutine at a time may read and one write.
type Conn struct {
	net.PacketConn
	connected    bool       // to one peer: no address is needed
	local        netip.Addr // while connected; Follow's
	log          *slog.Logger
	dontFragment bool
	batch        batcher // nil: one call a datagram
	offload      atomic.Bool
	joins        bool
}

// batcher is the system's way to move several packets in a call.
type batcher interface {
	await(idle func()) error
	read(ps []Packet) (int, error)
	write(ps []Packet) error
}

// New prepares a socket, which stays the caller's: its options are set if it is a
// *net.UDPConn, and if not it is used as it is. What the system does not grant is
// logged.
func New(pc net.PacketConn, log *slog.Logger) *Conn {
	c := &Conn{PacketConn: pc, log: log}
	u, ok := pc.(*net.UDPConn)
	if !ok {
		return c
	}
	if c.connected = u.RemoteAddr() != nil; c.connected {
		c.local = addrOf(u.LocalAddr())
	}
	c.offload.Store(os.Getenv(OffloadVariable) != "off")
	c.prepare(u, log)
	return c
}

// Connected reports whether the socket is connected to one peer.
func (c *Conn) Connected() bool { return c.connected }

// Fragments reports whether datagrams over the path's MTU may be fragmented, so that
// probing for it would not find it. It is known for real sockets only.
func (c *Conn) Fragments() bool {
	_, isReal := c.PacketConn.(*net.UDPConn)
	return isReal && !c.dontFragment
}

// Joins reports whether the system joins datagrams that arrive to trains.
func (c *Conn) Joins() bool { return c.joins }

// Await returns when there may be something to read. Before it waits it calls idle, so that a socket at rest needs no
// memory to read into; on sockets for which it cannot wait without reading, it returns at once.
func (c *Conn) Await(idle func()) error {
	if c.batch == nil {
		return nil
	}
	return c.batch.await(idle)
}

// Read waits for datagrams and returns how many packets it has filled, at least one
// without an error. Each must have its Data at full length.
func (c *Conn) Read(ps []Packet) (int, error) {
	if c.batch != nil {
		return c.batch.read(ps)
	}
	n, addr, err := c.ReadFrom(ps[0].Data)
	if err != nil && !tooLong(err) {
		return 0, err
	}
	ps[0].Data, ps[0].Segment, ps[0].Addr = ps[0].Data[:n], 0, addr
	return 1, nil
}

// Write sends the packets. What is wrong with one of them stands in its Err, and does
// not keep others from being sent; an error of the socket itself is returned.
func (c *Conn) Write(ps []Packet) error {
	if c.batch != nil {
		return c.batch.write(ps)
	}
	for i := range ps {
		if err := c.writeEach(&ps[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) writeEach(p *Packet) error {
	for data := range p.Segments {
		switch err := c.WriteOne(data, p.Addr); {
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			p.Err = err
		}
	}
	return nil
}

// WriteOne sends one datagram. It may be called at any time.
func (c *Conn) WriteOne(data []byte, to net.Addr) (err error) {
	switch a := to.(type) {
	case nil:
		_, err = c.PacketConn.(io.Writer).Write(data)
	case *Addr:
		if _, _, err = c.PacketConn.(*net.UDPConn).WriteMsgUDP(data, a.source, a.UDPAddr); noSource(err) {
			_, err = c.WriteTo(data, a.UDPAddr)
		}
	default:
		_, err = c.WriteTo(data, to)
	}
	return err
}

// noSource reports whether a write to an Addr may have failed because this host has the address no more that the peer has
// asked at; which of the errors says so depends on the kernel.
func noSource(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENETUNREACH)
}

// Interrupt frees a blocked Read with an error that matches os.ErrDeadlineExceeded,
// and all later ones until Resume.
func (c *Conn) Interrupt() error { return c.SetReadDeadline(time.Unix(1, 0)) }

// Resume undoes Interrupt.
func (c *Conn) Resume() error { return c.SetReadDeadline(time.Time{}) }
