package tcpx

import (
	"cmp"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pixferry/pixferry/framing"
	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

const (
	// maxMessage has room for 256 KiB of an image. Larger messages are hardly
	// faster, and what is urgent waits behind each.
	maxMessage = 256<<10 + 128

	// drainTime bounds how long Close waits for the peer to read to the end.
	drainTime = time.Second
)

// prefix is how messages lie in the stream:
//
//	+-----------------------+---------+
//	| length, little endian | message |
//	+-----------------------+---------+
//	  4                       length
var prefix = framing.Prefix{Width: 4, Order: framing.LittleEndian, Max: maxMessage}

// link is one TCP or TLS connection.
type link struct {
	conn net.Conn
	r    messageReader
	w    *framing.Writer

	accepted bool    // else dialled
	heard    bool    // a whole message has come
	first    [2]byte // that came, before heard

	// For WriteApart.
	head  []byte
	parts [3][]byte
	queue net.Buffers // what is left of parts; a field, as a local one would escape

	drain time.Duration
	close func() error
}

// newLink takes the connection over. idle is how long the peer may be silent within a message.
func newLink(conn net.Conn, idle time.Duration) *link {
	setOptions(conn)
	l := &link{conn: conn, r: messageReader{conn: conn, stall: stall{idle: idle, end: func() { conn.Close() }}}, w: framing.NewWriter(conn, prefix), drain: drainTime}
	l.close = sync.OnceValue(l.shut)
	return l
}

func (l *link) Info() native.LinkInfo {
	return native.LinkInfo{Protocol: protocolOf(l.conn), Peer: peerOf(l.conn), Ordered: true, Reliable: true, MaxMessage: maxMessage}
}

// WaitMessage returns when a message has begun to arrive, so that a connection
// without traffic holds no buffer for one.
func (l *link) WaitMessage() error {
	return l.explain(l.r.await(1))
}

func (l *link) ReadMessage(buf []byte) (int, error) {
	if !l.heard && l.r.await(len(l.first)) == nil {
		copy(l.first[:], l.r.ahead)
	}
	n, err := l.r.read(buf)
	if err != nil {
		return 0, l.explain(err)
	}
	l.heard = true
	return n, nil
}

// What the headers of the PROXY protocol, versions 1 and 2, begin with ("PROX", "\r\n\r\n"), as a length.
const (
	proxyText   = 0x584f5250
	proxyBinary = 0x0a0d0a0d
)

// Slow has slow called now and then while bytes of a message come, which takes its time.
func (l *link) Slow(slow func()) { l.r.stall.slow.Store(&slow) }

// explain says what is likely the cause if a peer has not sent one message.
func (l *link) explain(err error) error {
	if err == nil {
		return nil
	}
	tooLong := (*framing.TooLongError)(nil)
	peer := l.conn.RemoteAddr().String()
	left := l.accepted && (errors.Is(err, io.EOF) || wasReset(err))
	switch {
	case l.heard && !errors.As(err, &tooLong), errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.ErrShortBuffer), errors.Is(err, transport.ErrIdle):
		return err
	case !l.heard && l.first[1] == 3 && (l.first[0] == 0x15 || l.first[0] == 0x16): // an alert or a handshake, RFC 8446 5.1
		return fmt.Errorf("the peer at %s speaks TLS and this side does not: %s", peer, oneSided)
	case errors.As(err, &tooLong) && !l.heard && (tooLong.Length == proxyText || tooLong.Length == proxyBinary):
		return fmt.Errorf("the peer at %s begins with the PROXY protocol, which is not read here: turn that off in the proxy (send-proxy, proxy_protocol)", peer)
	case errors.As(err, &tooLong):
		return fmt.Errorf("the peer at %s does not speak pixferry over TCP: %w", peer, err)
	case left && l.silent():
		return fmt.Errorf("the peer at %s has left before it said anything, as a health check does: %w", peer, io.EOF)
	case left && inTLS(l.conn, err):
		return fmt.Errorf("the peer at %s has left during the TLS handshake; it may not trust this side's certificate: %w", peer, noEOF(err))
	case inTLS(l.conn, err):
		return tlsError(peer, err)
	}
	return fmt.Errorf("the peer at %s has ended the connection before it said anything; it may expect TLS (%s), or be a proxy or a tunnel that does not reach the receiver: %w", peer, oneSided, noEOF(err))
}

// silent reports whether the peer has not sent a byte, or in TLS not its hello.
func (l *link) silent() bool {
	if t, ok := l.conn.(*tls.Conn); ok && t.ConnectionState().Version != 0 {
		return false
	}
	return len(l.r.ahead) == 0 && l.first == [2]byte{}
}

func (l *link) WriteMessage(msg []byte) error {
	err := l.w.WriteFrames(msg)
	if err != nil {
		if tooLong := (*framing.TooLongError)(nil); errors.As(err, &tooLong) {
			err = &transport.TooLargeError{What: "message", Size: int64(len(msg)), Max: maxMessage}
		}
	}
	return err
}

func (l *link) Close() error { return l.close() }

// Apart says that a connection of the kernel's writes from several places at once.
func (l *link) Apart() bool {
	_, ok := l.conn.(*net.TCPConn)
	return ok
}

// WriteApart writes one message that lies in parts, of which payload may be empty.
func (l *link) WriteApart(head, payload, tail []byte) error {
	length := len(head) + len(payload) + len(tail)
	l.head = append(binary.LittleEndian.AppendUint32(l.head[:0], uint32(length)), head...)
	if len(payload) == 0 {
		l.head = append(l.head, tail...)
		_, err := l.conn.Write(l.head)
		return err
	}
	l.parts = [...][]byte{l.head, payload, tail}
	l.queue = l.parts[:]
	_, err := l.queue.WriteTo(l.conn)
	clear(l.parts[:])
	return err
}

// Abort closes without regard to what was written.
func (l *link) Abort() { l.conn.Close() }

// shut ends the stream after what was written, then reads until the peer has
// done the same: closing with unread bytes would send a reset, which destroys
// what the peer has not read yet, such as the last receipt.
func (l *link) shut() error {
	l.conn.SetDeadline(time.Now()) // frees a blocked write
	half, ok := l.conn.(interface{ CloseWrite() error })
	if ok && half.CloseWrite() == nil {
		l.conn.SetReadDeadline(time.Now().Add(l.drain))
		_, _ = io.Copy(io.Discard, l.conn)
	}
	return l.conn.Close()
}

func protocolOf(conn net.Conn) string {
	if _, ok := conn.(*tls.Conn); ok {
		return "tcp+tls"
	}
	return "tcp"
}

// peerOf is the name in the peer's verified certificate, or its address.
func peerOf(conn net.Conn) string { return cmp.Or(nameOf(conn), conn.RemoteAddr().String()) }
