package udpx

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/transport"
)

// What receivers of the device protocols answer, each as a datagram of its own.
const (
	AnswerImage   = "get message!!!" // an image has come
	AnswerBad     = "bad image"      // it was not kept, or bytes of it are missing and no longer awaited
	AnswerMessage = "get the msg"    // a JSON text has come
	AnswerError   = "error: "        // a JSON text was not taken; the reason follows
)

// isAnswer reports whether a datagram is an answer. A receiver takes none for an image
// or a message: two of them would answer each other without end.
func isAnswer(d []byte) bool {
	switch string(d) {
	case AnswerImage, AnswerBad, AnswerMessage:
		return true
	}
	return bytes.HasPrefix(d, []byte(AnswerError))
}

const (
	defaultAnswerTimeout = 10 * time.Second
	defaultForget        = time.Minute
	defaultPeers         = 1024
)

// device is what the device protocols have in common: a request in one or more
// datagrams, an answer in one, and peers that are told apart by their addresses.
type device struct {
	info   transport.Info
	addr   string
	socket func(context.Context) (net.PacketConn, error) // nil: the system's
	answer time.Duration                                 // to wait for it; negative: without limit
	forget time.Duration                                 // silent peers after it; negative: never
	peers  int
	log    *slog.Logger

	// serve takes what a peer sends, until the peer ends or the context does.
	serve func(ctx context.Context, p *peer, in *transport.Inbox) error
}

func (d device) withDefaults() *device {
	d.answer = cmp.Or(d.answer, defaultAnswerTimeout)
	d.forget = cmp.Or(d.forget, defaultForget)
	d.peers = cmp.Or(max(d.peers, 0), defaultPeers)
	d.log = cmp.Or(d.log, slog.New(slog.DiscardHandler))
	return &d
}

// listen takes peers.
func (d *device) listen(ctx context.Context) (transport.Listener, error) {
	pc, err := d.listenSocket(ctx)
	if err != nil {
		return nil, &transport.Error{Op: "listen", Err: err}
	}
	return startHub(d, udpsock.New(pc, d.log)), nil
}

func (d *device) listenSocket(ctx context.Context) (net.PacketConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.socket != nil {
		return d.socket(ctx)
	}
	if err := checkLocal(d.info.Protocol, d.addr); err != nil {
		return nil, err
	}
	var c net.ListenConfig
	return c.ListenPacket(ctx, "udp", d.addr)
}

// dial returns a caller with a local port.
func (d *device) dial(ctx context.Context) (*caller, error) {
	l, err := d.open(ctx)
	if err != nil {
		return nil, dialError(err)
	}
	return newCaller(d, l), nil
}

// open opens a local port.
func (d *device) open(ctx context.Context) (*line, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkPeer(d.info.Protocol, d.addr); err != nil {
		return nil, err
	}
	if d.socket == nil {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "udp", d.addr)
		if err != nil {
			return nil, err
		}
		u := conn.(*net.UDPConn)
		// A datagram of the largest size has to fit, which not all systems begin with.
		_ = u.SetWriteBuffer(1 << 20)
		return startLine(u, nil), nil
	}
	peer, err := resolve(ctx, d.addr)
	if err != nil {
		return nil, err
	}
	pc, err := d.socket(ctx)
	if err != nil {
		return nil, err
	}
	return startLine(pc, peer), nil
}

// imageConn is the side that sends images.
type imageConn struct {
	*caller
	attempt func(context.Context, *transport.Outgoing) (size int64, err error)
}

func (c *imageConn) Send(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
	return c.sender.Send(ctx, c.Info(), img, o, func(ctx context.Context, out *transport.Outgoing) (transport.Receipt, error) {
		size, err := c.attempt(ctx, out)
		return transport.Receipt{Level: transport.Received, Bytes: size}, err
	})
}

// judgeImage tells what an answer to an image means.
func judgeImage(answer []byte) error {
	switch string(answer) {
	case AnswerImage:
		return nil
	case AnswerBad:
		return &transport.RejectedError{Retryable: true, Text: "the receiver answers " + strconv.Quote(AnswerBad)}
	}
	return fmt.Errorf("the receiver answers %.80q, which is no answer to an image", answer)
}

// errEmpty is the end of the sending of an image without a byte.
var errEmpty = fmt.Errorf("an empty image cannot be told from none in this protocol: %w", errors.ErrUnsupported)

// content reads an image of at most most bytes into memory.
func content(out *transport.Outgoing, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(out.Body, most+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(b)) > most:
		return nil, &transport.TooLargeError{What: "image", Size: int64(len(b)), Max: most}
	case len(b) == 0:
		return nil, errEmpty
	}
	return b, out.Body.Check()
}
