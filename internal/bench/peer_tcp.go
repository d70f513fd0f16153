package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"net"

	"golang.org/x/sync/errgroup"

	"github.com/pixferry/pixferry/chunk"
)

// pieceSize is what loops read and write at once.
const pieceSize = 256 << 10

// rawTCP is what one would write by hand: on each connection a length, the bytes, and for an
// answer one byte, or with an algorithm the digest that the receiver has made, which the sender
// compares with its own.
//
//	+--------+-------+        +--------+
//	| length | image |  --->  | answer |
//	+--------+-------+        +--------+
//	  8                         1 or the digest's length
type rawTCP struct {
	alg      chunk.Algorithm
	listener net.Listener
	conns    []net.Conn
	serving  errgroup.Group
}

// openRawTCP makes as many connections as there will be images at once. An algorithm without
// New makes no digests.
func openRawTCP(_ context.Context, alg chunk.Algorithm, at int) (runner, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &rawTCP{alg: alg, listener: l}
	for range at {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			p.close()
			return nil, err
		}
		p.conns = append(p.conns, c)
		in, err := l.Accept()
		if err != nil {
			p.close()
			return nil, err
		}
		p.serving.Go(func() error { return p.serve(in) })
	}
	return p, nil
}

func (p *rawTCP) hash() hash.Hash {
	if p.alg.New == nil {
		return nil
	}
	return p.alg.New()
}

func sum(h hash.Hash) []byte {
	if h == nil {
		return []byte{1}
	}
	return h.Sum(nil)
}

func (p *rawTCP) serve(c net.Conn) error {
	defer c.Close()
	buf, h := make([]byte, pieceSize), p.hash()
	for {
		var head [8]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return err
		}
		for left := int64(binary.LittleEndian.Uint64(head[:])); left > 0; {
			n, err := c.Read(buf[:min(left, pieceSize)])
			if err != nil {
				return err
			}
			if h != nil {
				h.Write(buf[:n])
			}
			left -= int64(n)
		}
		if _, err := c.Write(sum(h)); err != nil {
			return err
		}
		if h != nil {
			h.Reset()
		}
	}
}

func (p *rawTCP) do(ctx context.Context, w work) error {
	var group errgroup.Group
	data := image(w.size)
	for i, c := range p.conns {
		deadline, _ := ctx.Deadline()
		c.SetDeadline(deadline)
		group.Go(func() error {
			h := p.hash()
			for range share(w.images, len(p.conns), i) {
				if err := p.send(c, data, h); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (p *rawTCP) send(c net.Conn, data []byte, h hash.Hash) error {
	head := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	for first := true; len(data) > 0; first = false {
		piece := data[:min(len(data), pieceSize)]
		if h != nil {
			h.Write(piece)
		}
		var err error
		if first {
			_, err = (&net.Buffers{head, piece}).WriteTo(c)
		} else {
			_, err = c.Write(piece)
		}
		if err != nil {
			return err
		}
		data = data[len(piece):]
	}
	want := sum(h)
	answer := make([]byte, len(want))
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if h != nil {
		h.Reset()
	}
	if !bytes.Equal(answer, want) {
		return fmt.Errorf("the receiver has the digest %x, the sender %x", answer, want)
	}
	return nil
}

func (p *rawTCP) close() {
	p.listener.Close()
	for _, c := range p.conns {
		c.Close()
	}
	_ = p.serving.Wait() // a receiver that fails has its sender fail too
}
