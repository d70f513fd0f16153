package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"
)

// quicPeer is quic-go with the settings that its documentation advises for speed: GSO (on by
// default), 7 MB socket buffers (it asks for them), large flow control windows, no qlog.
// Each image has a stream of its own and is answered on it by one byte. There is no digest:
// QUIC's own tags protect the bytes.
type quicPeer struct {
	listener *quic.Listener
	udp      [2]*quic.Transport
	conn     *quic.Conn
	done     chan struct{}
}

func openQUIC(ctx context.Context) (runner, error) {
	var sockets [2]net.PacketConn
	for i := range sockets {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, err
		}
		sockets[i] = c
	}
	return openQUICOn(ctx, sockets, quicConfig(32<<20))
}

// quicConfig has flow control windows that do not limit a path with so many bytes in flight.
func quicConfig(window uint64) *quic.Config {
	return &quic.Config{
		InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: window,
		InitialConnectionReceiveWindow: 2 * window, MaxConnectionReceiveWindow: 2 * window,
		MaxIncomingStreams: 1 << 20, MaxIdleTimeout: time.Minute,
	}
}

// openQUICOn connects the second socket to the first.
func openQUICOn(ctx context.Context, sockets [2]net.PacketConn, cfg *quic.Config) (*quicPeer, error) {
	server, client, err := quicTLS()
	if err != nil {
		return nil, err
	}
	p := &quicPeer{done: make(chan struct{})}
	for i := range p.udp {
		p.udp[i] = &quic.Transport{Conn: sockets[i]}
	}
	if p.listener, err = p.udp[0].Listen(server, cfg); err != nil {
		return nil, err
	}
	go p.serve(context.WithoutCancel(ctx))
	p.conn, err = p.udp[1].Dial(ctx, sockets[0].LocalAddr(), client, cfg)
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *quicPeer) serve(ctx context.Context) {
	defer close(p.done)
	conn, err := p.listener.Accept(ctx)
	if err != nil {
		return
	}
	var streams errgroup.Group
	defer streams.Wait()
	for {
		s, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		streams.Go(func() error { return quicReceive(s) })
	}
}

// quicReceive reads an image to its end and answers.
func quicReceive(s *quic.Stream) error {
	defer s.Close()
	var head [8]byte
	if _, err := io.ReadFull(s, head[:]); err != nil {
		return err
	}
	size := int64(binary.LittleEndian.Uint64(head[:]))
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, make([]byte, min(size, pieceSize)))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		_, err = s.Write([]byte{1})
	}
	return err
}

func (p *quicPeer) do(ctx context.Context, w work) error { return w.each(ctx, p.put) }

func (p *quicPeer) put(ctx context.Context, data []byte) error {
	s, err := p.conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		s.SetDeadline(deadline)
	}
	if _, err := s.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(data)))); err != nil {
		return err
	}
	if _, err := s.Write(data); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	_, err = io.ReadFull(s, make([]byte, 1))
	return err
}

func (p *quicPeer) close() {
	if p.conn != nil {
		p.conn.CloseWithError(0, "")
	}
	p.listener.Close()
	<-p.done
	for _, t := range p.udp {
		t.Close()
		t.Conn.Close()
	}
}

// quicTLS makes a certificate for both ends.
func quicTLS() (server, client *tls.Config, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"bench"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"bench"}}
	return server, &tls.Config{RootCAs: roots, ServerName: "bench", NextProtos: []string{"bench"}}, nil
}
