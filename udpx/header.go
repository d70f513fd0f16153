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
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/framing"
	"github.com/pixferry/pixferry/transport"
)

const (
	headerPiece       = 1024 // bytes of an image in a datagram
	defaultHeaderMax  = 64 << 20
	defaultHeaderIdle = 2 * time.Second
)

// Header is the device protocol that announces an image by a datagram with its size.
//
//	sender    the size as a signed C long, see SizeHeader
//	sender    the bytes in datagrams of 1,024, the last one shorter
//	receiver  "get message!!!"
//
// The receiver answers "bad image" if it does not keep the image, or if bytes are missing and
// nothing has come for the time Idle; it is then ready for the next one. It tells senders apart
// by address and takes headers of either width. There are no names, IDs or digests.
//
// Nothing is numbered and nothing sent again, so the sender paces itself. By default it sends 32
// datagrams at once and then one every 2 ms, 0.5 MB/s: a receiver with the usual buffer of 208
// KiB, which holds about 90, may then be busy elsewhere for 120 ms without a loss. After an image
// without a good answer the pace is halved, and after a second one halved again, until one is
// answered well; and no more than 4 go at once, then none, for as long as the Conn is open. A
// smaller Gap will do for a receiver of this package or a machine that is not busy: 250 us are 4
// MB/s. A board with lwIP has room for 6 datagrams, and loses the first image unless Gap is set:
// 3 ms, or more if it waits for a display.
//
// # What can be mistaken
//
// All datagrams of an image have 1,024 bytes but the last, so that a datagram of another length
// is a header or shows a loss. Only a last one that is as long as the sender's headers, and reads
// as a size up to MaxImage, can be either: the receiver here takes it for a header if more
// follows within 100 ms, else for the image's end. After a lost header the data are skipped, and
// answered "bad image" when they end. Datagrams of one image that overtake each other, or one
// doubled and another lost, go unnoticed: use the native protocol on networks that do so.
//
// # What a receipt means
//
// A receipt is of level Received: a receiver of this package answers when it has kept the image,
// others when as many bytes have arrived. An answer that comes before all was sent is ignored.
// Without an answer the image may have arrived or not, and sending it again may deliver it twice;
// the next one leaves from another local port, so that a late answer is not taken for its own. An
// answer that the network doubles can be taken for that to the next image.
//
// A receiver in the field that has lost a datagram, or whose sender has given up half-way (its
// context has ended, its source has failed, a newer live frame has come), takes the next image
// for the rest, from whatever port that comes.
//
// A Conn that was dialled sends, one image at a time; one that was accepted serves. Set the
// fields before the first use; then it is safe for concurrent use.
type Header struct {
	// Addr is the receiver's "host:port" to dial, or the local one to listen on; there empty
	// means ":0".
	Addr string
	// Width is the size of the headers that are sent, in bytes: 8 as on 64-bit Linux, or 4 as on
	// Windows and 32-bit systems; 0: 8.
	Width int
	// Order is the byte order of headers, sent and received; LittleEndian by default.
	Order framing.Order
	// Gap is the mean time between two datagrams of an image; after a delay at most 2 ms of it
	// are made up for. 0: none for the first 32, then 2 ms, and more and from the start after
	// losses; negative: none.
	Gap time.Duration
	// MaxImage is the largest image in bytes; 0: 64 MiB. A datagram that says more is not a
	// header.
	MaxImage int64
	// Idle is how long the receiver waits for the next datagram of an image before it gives the
	// image up; 0: 2 s, negative: for ever.
	Idle time.Duration
	// AnswerTimeout bounds the wait for an answer; 0: 10 s, negative: only the context does. It
	// should be longer than the receiver's Idle.
	AnswerTimeout time.Duration
	// MaxPeers, Forget, Logger and Socket are as in [Datagram].
	MaxPeers int
	Forget   time.Duration
	Logger   *slog.Logger
	Socket   func(ctx context.Context) (net.PacketConn, error)
}

// Dial returns a Conn that sends to Addr. It does not wait for the receiver.
func (t *Header) Dial(ctx context.Context) (transport.Conn, error) {
	width, err := headerWidth(t.Width)
	if err != nil {
		return nil, dialError(fmt.Errorf("%w: udp+header: %w", transport.ErrConfig, err))
	}
	d := t.device()
	d.info.MaxImage = min(d.info.MaxImage, maxHeaderSize(width))
	c, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	lost, free := 0, defaultPace.free // lost: images in a row without a good answer; of whoever exchanges
	pace := func() pacer {
		if lost > 0 { // a board may have room for 6, and loses each image that begins with more
			free >>= 3
		}
		lost++
		p := defaultPace.slower(lost - 1)
		p.free = free
		return p
	}
	if t.Gap != 0 {
		pace = func() pacer { return pacer{gap: t.Gap} }
	}
	return &imageConn{c, func(ctx context.Context, out *transport.Outgoing) (int64, error) {
		var body io.Reader = out.Body
		size := out.Body.Size
		if size < 0 {
			b, err := content(out, d.info.MaxImage)
			if err != nil {
				return 0, err
			}
			body, size = bytes.NewReader(b), int64(len(b))
		}
		if size == 0 {
			return 0, errEmpty
		}
		header, err := SizeHeader{size, width, t.Order}.Append(nil)
		if err != nil {
			return 0, err
		}
		return size, c.exchange(ctx, func(ctx context.Context, l *line) error {
			return sendPieces(ctx, l, header, chunk.Split(body, size, headerPiece), pace(), out)
		}, func(answer []byte) error {
			err := judgeImage(answer)
			if err == nil {
				lost = 0
			}
			return err
		})
	}}, nil
}

// Listen receives images at Addr.
func (t *Header) Listen(ctx context.Context) (transport.Listener, error) {
	return t.device().listen(ctx)
}

func (t *Header) device() *device {
	most := cmp.Or(max(t.MaxImage, 0), defaultHeaderMax)
	return device{
		info: transport.Info{Protocol: "udp+header", Confirms: transport.Received, Concurrency: 1, MaxImage: most},
		addr: t.Addr, socket: t.Socket, answer: t.AnswerTimeout, forget: t.Forget, peers: t.MaxPeers, log: t.Logger,
		serve: func(ctx context.Context, p *peer, in *transport.Inbox) error {
			s := headerServer{peer: p, in: in, state: headerState{
				order: t.Order, most: most, idle: cmp.Or(t.Idle, defaultHeaderIdle),
			}}
			return s.run(ctx)
		},
	}.withDefaults()
}

// headerServer takes the images of one peer.
type headerServer struct {
	*peer
	in      *transport.Inbox
	state   headerState
	arrival *transport.Arrival // nil: none, or it is refused
}

func (s *headerServer) run(ctx context.Context) error {
	for {
		d, err := s.next(ctx, s.state.phase != headerIdle, s.state.deadline)
		var steps []headerStep
		switch {
		case err == nil:
			steps = s.state.take(d.at, d.data)
		case errors.Is(err, errNothing):
			steps = s.state.expire()
		default:
			s.lose(err)
			return err
		}
		for _, step := range steps {
			s.do(ctx, step)
		}
	}
}

// do does one step. An image that is refused goes on without an Arrival, for its sender
// listens at its end.
func (s *headerServer) do(ctx context.Context, step headerStep) {
	a := s.arrival
	switch step.kind {
	case headerBegins:
		s.arrival, _ = s.in.Offer(ctx, transport.Offer{Size: step.at})
	case headerData:
		if a == nil {
			return
		}
		if _, err := a.WriteAt(step.data, step.at); err != nil {
			s.arrival = nil
		}
	case headerWhole:
		s.arrival = nil
		if a == nil {
			s.reply(AnswerBad)
			return
		}
		_, err := a.Finish(ctx, -1, chunk.Digest{})
		s.replyImage(ctx, err)
	case headerLost:
		s.hub.device.log.Warn("image lost", "peer", s.addr, "err", step.err)
		s.lose(step.err)
	case headerBad:
		s.reply(AnswerBad)
	}
}

// lose gives up the image that is on its way.
func (s *headerServer) lose(err error) {
	if s.arrival != nil {
		s.arrival.Abort(err)
		s.arrival = nil
	}
}
