package udpsock

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	batchSize   = 128 // messages that a call moves
	controlSize = 128 // of the control messages of one packet
)

// mmsg moves packets with recvmmsg and sendmmsg. golang.org/x/net/ipv4 does so for
// sockets of IPv6 too.
type mmsg struct {
	conn    *Conn
	pc      *ipv4.PacketConn
	raw     syscall.RawConn
	sources bool  // the system tells which address packets have come to
	last    *Addr // that was read

	in  []ipv4.Message
	out []ipv4.Message
	of  []int // the packet that each of out belongs to
}

func newBatcher(c *Conn, u *net.UDPConn, raw syscall.RawConn) batcher {
	m := &mmsg{conn: c, pc: ipv4.NewPacketConn(u), raw: raw}
	raw.Control(func(fd uintptr) {
		if local, ok := u.LocalAddr().(*net.UDPAddr); ok && local.IP.IsUnspecified() && !c.connected {
			err4 := unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			err6 := unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
			m.sources = err4 == nil || err6 == nil
		}
		if _, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT); err != nil {
			c.offload.Store(false)
		}
		if c.offload.Load() && groWorks() {
			c.joins = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
		}
	})
	return m
}

// groWorks reports whether the kernel is 5.12 or newer; before, UDP_GRO joined
// datagrams wrongly.
func groWorks() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	var major, minor int
	_, _ = fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	return major > 5 || major == 5 && minor >= 12
}

func (m *mmsg) await(idle func()) error {
	waited := false
	return m.raw.Read(func(fd uintptr) bool {
		if waited {
			return true
		}
		ready := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(ready[:], 0); n != 0 || err != nil {
			return true // also for an error of the socket, which is read's to report
		}
		idle()
		waited = true
		return false
	})
}

func (m *mmsg) read(ps []Packet) (int, error) {
	ps = ps[:min(len(ps), batchSize)]
	for len(m.in) < len(ps) {
		msg := ipv4.Message{Buffers: make([][]byte, 1)}
		if m.conn.joins || m.sources {
			msg.OOB = make([]byte, controlSize)
		}
		m.in = append(m.in, msg)
	}
	in := m.in[:len(ps)]
	for i := range in {
		in[i].Buffers[0] = ps[i].Data
		in[i].OOB = in[i].OOB[:cap(in[i].OOB)]
	}
	defer forget(in)
	n, err := m.pc.ReadBatch(in, 0)
	if err != nil {
		return 0, err
	}
	for i := range in[:n] {
		msg := &in[i]
		ps[i].Data = ps[i].Data[:msg.N]
		ps[i].Addr = msg.Addr
		control := received(msg.OOB[:msg.NN])
		ps[i].Segment = control.segment
		if peer, ok := msg.Addr.(*net.UDPAddr); ok && control.local.IsValid() {
			ps[i].Addr = m.from(peer, &control)
		}
	}
	return n, nil
}

// forget lets go of memory that is its owner's: a socket that rests would keep as much as it has ever moved at once.
func forget(msgs []ipv4.Message) {
	for i := range msgs {
		msgs[i].Buffers[0] = nil
	}
}

// from returns the Addr of a peer, mostly that of the packet before.
func (m *mmsg) from(peer *net.UDPAddr, c *control) *Addr {
	if a := m.last; a == nil || a.local != c.local || a.Port != peer.Port || a.Zone != peer.Zone || !a.IP.Equal(peer.IP) {
		m.last = &Addr{peer, c.local, c.source()}
	}
	return m.last
}

func (m *mmsg) write(ps []Packet) error {
	m.out, m.of = m.out[:0], m.of[:0]
	for i := range ps {
		m.add(ps, i, m.conn.offload.Load())
	}
	defer forget(m.out)
	for first := 0; first < len(m.out); {
		n, err := m.pc.WriteBatch(m.out[first:min(first+batchSize, len(m.out))], 0)
		first += max(n, 0)
		if err == nil {
			continue // what is left follows, or says what is wrong with it
		}
		p, refused := &ps[m.of[first]], m.out[first]
		first++
		switch err := m.again(p, refused, err); {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return err
		case p.Segment > 0 && len(refused.Buffers[0]) > p.Segment && (errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)):
			m.split(p)
		default:
			p.Err = err
		}
	}
	return nil
}

// again sends a message of the packet once more if the error need not be about it, and returns that of the last try.
func (m *mmsg) again(p *Packet, refused ipv4.Message, err error) error {
	if a, ok := p.Addr.(*Addr); ok && noSource(err) {
		refused.OOB = refused.OOB[len(a.source):]
		_, err = m.pc.WriteBatch([]ipv4.Message{refused}, 0)
	}
	if errors.Is(err, unix.EPERM) || m.conn.connected && errors.Is(err, unix.EMSGSIZE) {
		// Some kernels refuse the first sendmsg so (golang/go#63322), and a router's "too big" is told to
		// whoever calls next, whose packet it is not about.
		_, err = m.pc.WriteBatch([]ipv4.Message{refused}, 0)
	}
	return err
}

// add appends the messages of the packet to out.
func (m *mmsg) add(ps []Packet, i int, offload bool) {
	p := &ps[i]
	if offload && p.Segment > 0 && p.Segment < len(p.Data) {
		m.addMessage(i, p.Data, p.Addr, p.Segment)
		return
	}
	for data := range p.Segments {
		m.addMessage(i, data, p.Addr, 0)
	}
}

func (m *mmsg) addMessage(i int, data []byte, addr net.Addr, segment int) {
	n := len(m.out)
	m.out = slices.Grow(m.out, 1)[:n+1] // with what it had before
	m.of = append(m.of, i)
	msg := &m.out[n]
	if msg.Buffers == nil {
		msg.Buffers = make([][]byte, 1)
	}
	msg.Buffers[0], msg.Addr, msg.OOB = data, addr, msg.OOB[:0]
	if a, ok := addr.(*Addr); ok {
		msg.Addr, msg.OOB = a.UDPAddr, append(msg.OOB, a.source...)
	}
	if segment > 0 {
		msg.OOB = appendSegment(msg.OOB, segment)
	}
}

// split sends a train that was refused as single datagrams, and gives offloading up if
// that works: the interface or its driver cannot do it.
func (m *mmsg) split(p *Packet) {
	for data := range p.Segments {
		if err := m.conn.WriteOne(data, p.Addr); err != nil {
			p.Err = err
		}
	}
	if p.Err == nil {
		m.conn.offload.Store(false)
	}
}
