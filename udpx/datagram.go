package udpx

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/transport"
)

// Datagram is the device protocol that sends an image as one datagram.
//
//	sender    the encoded image, 1 to 65,507 bytes
//	receiver  "get message!!!"
//
// If the receiver does not keep the image it answers "bad image". It tells senders apart by
// address. There are no names, IDs or digests.
//
// An image of more than 1,472 bytes travels in fragments. Boards with lwIP take none of these, as
// ESP32 by default, or as many as they have buffers, 10 by default: there is no answer then.
// [Header] does without.
//
// A receipt is of level Received: a receiver of this package answers when it has kept the image,
// others when it has arrived. Without an answer the image may have arrived or not, and sending it
// again may deliver it twice; the next one leaves from another local port, so that a late answer
// is not taken for its own. If the network doubles an image or an answer, the second answer can
// be taken for that to the next image.
//
// A Conn that was dialled sends, one image at a time; one that was accepted serves. Set the
// fields before the first use; then it is safe for concurrent use.
type Datagram struct {
	// Addr is the receiver's "host:port" to dial, or the local one to listen on; there empty
	// means ":0".
	Addr string
	// AnswerTimeout bounds the wait for an answer; 0: 10 s, negative: only the context does.
	AnswerTimeout time.Duration
	// MaxPeers is how many senders are known at once; 0: 1,024. Another takes the place of the
	// one that has been silent longest, or is not heard if all have an image on its way.
	MaxPeers int
	// Forget is how long a sender may be silent before its Conn ends; 0: a minute, negative: for
	// ever. If it is heard again it has a new Conn.
	Forget time.Duration
	// Logger gets records about what is lost; nil is silent.
	Logger *slog.Logger
	// Socket makes the sockets instead of the system: one for each Listen and Dial, and one after
	// each missing answer, each with another local address. They are closed after use.
	Socket func(ctx context.Context) (net.PacketConn, error)
}

// Dial returns a Conn that sends to Addr. It does not wait for the receiver.
func (t *Datagram) Dial(ctx context.Context) (transport.Conn, error) {
	c, err := t.device().dial(ctx)
	if err != nil {
		return nil, err
	}
	return &imageConn{c, func(ctx context.Context, out *transport.Outgoing) (int64, error) {
		b, err := content(out, udpsock.MaxDatagram)
		if err != nil {
			return 0, err
		}
		return int64(len(b)), c.exchange(ctx, func(_ context.Context, l *line) error {
			out.LastByteSent()
			out.Count(int64(len(b)))
			return l.write(b, true)
		}, judgeImage)
	}}, nil
}

// Listen receives images at Addr.
func (t *Datagram) Listen(ctx context.Context) (transport.Listener, error) {
	return t.device().listen(ctx)
}

func (t *Datagram) device() *device {
	return device{
		info: transport.Info{Protocol: "udp+datagram", Confirms: transport.Received, Concurrency: 1, MaxImage: udpsock.MaxDatagram},
		addr: t.Addr, socket: t.Socket, answer: t.AnswerTimeout, forget: t.Forget, peers: t.MaxPeers, log: t.Logger,
		serve: serveDatagrams,
	}.withDefaults()
}

func serveDatagrams(ctx context.Context, p *peer, in *transport.Inbox) error {
	for {
		d, err := p.next(ctx, false, time.Time{})
		if err != nil {
			return err
		}
		if len(d.data) > 0 && !isAnswer(d.data) {
			p.replyImage(ctx, takeWhole(ctx, in, d.data))
		}
	}
}

// takeWhole delivers an image that came at once.
func takeWhole(ctx context.Context, in *transport.Inbox, b []byte) error {
	a, err := in.Offer(ctx, transport.Offer{Size: int64(len(b))})
	if err != nil {
		return err
	}
	if _, err := a.WriteAt(b, 0); err != nil {
		return err
	}
	_, err = a.Finish(ctx, -1, chunk.Digest{})
	return err
}
