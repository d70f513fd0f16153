package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// copyFile copies files over TCP and has the receiver sync each before it answers. With
// plain false it is io.Copy, which hands the loop to the kernel (sendfile, splice).
type copyFile struct {
	plain    bool
	dir      string // of what is received
	source   string
	listener net.Listener
	conn     net.Conn
	done     chan error
	files    int
}

func openCopy(_ context.Context, plain bool, source string) (runner, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &copyFile{plain: plain, source: source, listener: l, done: make(chan error, 1)}
	if p.dir, err = os.MkdirTemp(filepath.Dir(source), "copy"); err == nil {
		p.conn, err = net.Dial("tcp", l.Addr().String())
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	in, err := l.Accept()
	if err != nil {
		p.conn.Close()
		l.Close()
		return nil, err
	}
	go func() { p.done <- p.serve(in) }()
	return p, nil
}

func (p *copyFile) serve(c net.Conn) error {
	defer c.Close()
	for {
		var head [8]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return err
		}
		if err := p.receive(c, int64(binary.LittleEndian.Uint64(head[:]))); err != nil {
			return err
		}
		if _, err := c.Write([]byte{1}); err != nil {
			return err
		}
	}
}

func (p *copyFile) receive(c net.Conn, size int64) error {
	p.files++
	f, err := os.Create(filepath.Join(p.dir, strconv.Itoa(p.files)))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.copy(f, io.LimitReader(c, size)); err != nil {
		return err
	}
	return f.Sync()
}

func (p *copyFile) copy(to io.Writer, from io.Reader) error {
	if !p.plain {
		_, err := io.Copy(to, from)
		return err
	}
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, pieceSize))
	return err
}

func (p *copyFile) do(ctx context.Context, w work) error {
	deadline, _ := ctx.Deadline()
	p.conn.SetDeadline(deadline)
	for range w.images {
		f, err := os.Open(p.source)
		if err != nil {
			return err
		}
		_, err = p.conn.Write(binary.LittleEndian.AppendUint64(nil, uint64(w.size)))
		if err == nil {
			err = p.copy(p.conn, io.LimitReader(f, w.size))
		}
		if err == nil {
			_, err = io.ReadFull(p.conn, make([]byte, 1))
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *copyFile) close() {
	p.listener.Close()
	p.conn.Close()
	<-p.done
	os.RemoveAll(p.dir)
}
