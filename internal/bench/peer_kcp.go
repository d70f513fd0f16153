package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"

	"github.com/xtaci/kcp-go/v5"
)

// kcpPeer is kcp-go in its "turbo" mode (no delay, resend after 2 acknowledgements, no
// congestion control) with a window for loopback, without FEC and encryption. It sends over one
// connection; each image is answered by one byte.
type kcpPeer struct {
	listener *kcp.Listener
	conn     *kcp.UDPSession
	sockets  [2]net.PacketConn
	done     chan error
}

// kcpWindow is in packets; larger ones lose packets on loopback.
const kcpWindow = 1024

func openKCP(context.Context) (runner, error) {
	p := &kcpPeer{done: make(chan error, 1)}
	for i := range p.sockets {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, err
		}
		c.SetReadBuffer(7 << 20)
		c.SetWriteBuffer(7 << 20)
		p.sockets[i] = c
	}
	var err error
	if p.listener, err = kcp.ServeConn(nil, 0, 0, p.sockets[0]); err == nil {
		p.conn, err = kcp.NewConn2(p.sockets[0].LocalAddr(), nil, 0, 0, p.sockets[1])
	}
	if err != nil {
		return nil, err
	}
	tuneKCP(p.conn)
	go func() { p.done <- p.serve() }()
	return p, nil
}

func tuneKCP(c *kcp.UDPSession) {
	c.SetNoDelay(1, 10, 2, 1)
	c.SetWindowSize(kcpWindow, kcpWindow)
	c.SetMtu(1452)
	c.SetStreamMode(true)
	c.SetWriteDelay(false)
	c.SetACKNoDelay(false)
}

func (p *kcpPeer) serve() error {
	c, err := p.listener.AcceptKCP()
	if err != nil {
		return err
	}
	defer c.Close()
	tuneKCP(c)
	for buf := make([]byte, pieceSize); ; {
		var head [8]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return err
		}
		size := int64(binary.LittleEndian.Uint64(head[:]))
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(c, size), buf); err != nil {
			return err
		}
		if _, err := c.Write([]byte{1}); err != nil {
			return err
		}
	}
}

func (p *kcpPeer) do(ctx context.Context, w work) error {
	deadline, _ := ctx.Deadline()
	p.conn.SetDeadline(deadline)
	for range w.images {
		head := binary.LittleEndian.AppendUint64(nil, uint64(w.size))
		if _, err := p.conn.WriteBuffers([][]byte{head, image(w.size)}); err != nil {
			return err
		}
		if _, err := io.ReadFull(p.conn, make([]byte, 1)); err != nil {
			return err
		}
	}
	return nil
}

func (p *kcpPeer) close() {
	p.conn.Close()
	p.listener.Close()
	for _, s := range p.sockets {
		s.Close()
	}
	<-p.done
}
