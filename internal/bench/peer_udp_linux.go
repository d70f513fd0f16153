//go:build !386 && !arm

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	datagram = 1452 // bytes of UDP payload
	train    = 44   // datagrams that GSO takes at once, under 64 KB
	batch    = 64   // messages of a sendmmsg
	// credit is how many bytes may be on their way: what the receiver's socket holds surely.
	credit = 1 << 20
	// tell is after how many bytes the receiver says how many have arrived.
	tell = credit / 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rawUDP is what the system can do with datagrams: the same ones again and again, with nothing
// that a protocol needs but credit, so that none is lost.
//
//	+------------+-----------------------+
//	| any bytes  | CRC32C, with offload  |
//	+------------+-----------------------+
//	  1448         4
type rawUDP struct {
	offload bool // GSO, GRO and CRC32C; else sendmmsg and recvmmsg
	in, out *net.UDPConn
	done    chan error

	sent, acked int64 // bytes, since the start
}

func openRawUDP(_ context.Context, offload bool) (runner, error) {
	in, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	out, err := net.DialUDP("udp4", nil, in.LocalAddr().(*net.UDPAddr))
	if err != nil {
		in.Close()
		return nil, err
	}
	p := &rawUDP{offload: offload, in: in, out: out, done: make(chan error, 1)}
	for _, c := range []*net.UDPConn{in, out} {
		if err := errors.Join(c.SetReadBuffer(7<<20), c.SetWriteBuffer(7<<20)); err != nil {
			return nil, err
		}
	}
	if offload {
		err = control(in, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) })
	}
	if err != nil {
		return nil, err
	}
	go func() { p.done <- p.serve() }()
	return p, nil
}

func control(c *net.UDPConn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = f(int(fd)) }), err)
}

func (p *rawUDP) serve() error {
	read := p.readTrain()
	if !p.offload {
		read = p.readBatch()
	}
	var got, told int64
	for {
		n, from, err := read()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if got += int64(n); got-told >= tell {
			told = got
			if _, err := p.in.WriteToUDP(binary.LittleEndian.AppendUint64(nil, uint64(got)), from); err != nil {
				return err
			}
		}
	}
}

func (p *rawUDP) readTrain() func() (int, *net.UDPAddr, error) {
	buf, oob := make([]byte, 1<<16), make([]byte, 64)
	return func() (int, *net.UDPAddr, error) {
		n, _, _, from, err := p.in.ReadMsgUDP(buf, oob)
		if err != nil {
			return 0, nil, err
		}
		for rest := buf[:n]; len(rest) > 0; rest = rest[min(datagram, len(rest)):] {
			d := rest[:min(datagram, len(rest))]
			if body := d[:len(d)-4]; crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(d[len(body):]) {
				return 0, nil, errors.New("a datagram has a wrong CRC")
			}
		}
		return n, from, nil
	}
}

func (p *rawUDP) readBatch() func() (int, *net.UDPAddr, error) {
	c, ms := ipv4.NewPacketConn(p.in), messages()
	return func() (int, *net.UDPAddr, error) {
		n, err := c.ReadBatch(ms, 0)
		if err != nil {
			return 0, nil, err
		}
		sum := 0
		for _, m := range ms[:n] {
			sum += m.N
		}
		return sum, ms[0].Addr.(*net.UDPAddr), nil
	}
}

func messages() []ipv4.Message {
	ms := make([]ipv4.Message, batch)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, datagram)}
	}
	return ms
}

// do sends whole batches and returns when all but what may be on its way has arrived.
func (p *rawUDP) do(ctx context.Context, w work) error {
	deadline, _ := ctx.Deadline()
	p.out.SetDeadline(deadline)
	write := p.writeTrain()
	if !p.offload {
		write = p.writeBatch()
	}
	for end := p.sent + w.bytes(); p.sent < end || p.acked < end-tell; {
		if p.sent < end && p.sent-p.acked < credit {
			n, err := write()
			if err != nil {
				return err
			}
			p.sent += int64(n)
			continue
		}
		var answer [8]byte
		if _, err := p.out.Read(answer[:]); err != nil {
			return fmt.Errorf("datagrams are lost: %w", err)
		}
		p.acked = int64(binary.LittleEndian.Uint64(answer[:]))
	}
	return nil
}

func (p *rawUDP) writeTrain() func() (int, error) {
	buf := append([]byte(nil), image(train*datagram)...)
	oob := make([]byte, unix.CmsgSpace(2))
	binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(oob[8:], unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(oob[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[16:], datagram)
	return func() (int, error) {
		for i := range train {
			d := buf[i*datagram:][:datagram]
			binary.LittleEndian.PutUint32(d[datagram-4:], crc32.Checksum(d[:datagram-4], castagnoli))
		}
		n, _, err := p.out.WriteMsgUDP(buf, oob, nil)
		return n, err
	}
}

func (p *rawUDP) writeBatch() func() (int, error) {
	c, ms := ipv4.NewPacketConn(p.out), messages()
	return func() (int, error) {
		n, err := c.WriteBatch(ms, 0)
		if errors.Is(err, syscall.ENOBUFS) {
			err = nil
		}
		return n * datagram, err
	}
}

func (p *rawUDP) close() {
	p.out.Close()
	p.in.Close()
	<-p.done
}
