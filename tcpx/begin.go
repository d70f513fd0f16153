package tcpx

import (
	"context"
	"net"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// Begin is the protocol of serial-to-Wi-Fi microcontrollers that send a picture to a PC: one
// image per connection, whose end is the image's end.
//
//	server  Welcome from server!     (on accept)
//	client  begin to send
//	client  the image's bytes, in pieces of at most 1024, and the end of the stream
//
// The texts have no terminators. The server takes them however TCP cuts and joins them; the
// client separates them by pauses, for servers that take one receive for one text.
//
// Nothing answers, so receipts are of level [transport.Sent]: the bytes have left. On Linux the
// peer's system has acknowledged them, however long a slow device takes for it. Name, ID, digest
// and size of an image are not carried, and empty images cannot be sent.
//
// A sender that fails, is cancelled or closed within an image resets the connection, and the
// server drops the image. But a device that dies may still close in good order. A BMP, JPEG, PNG
// or WebP that is cut is recognised by its own structure and refused (ReasonIncomplete); of other
// formats a part cannot be told from the whole. A device that closes without having read the
// welcome resets the connection too, and one that sleeps or never closes is silent for the time
// Timeout: then the image is taken only if it is a whole one of these four formats.
//
// A Conn that was dialled makes a connection for each Send, when there is something to send, and
// sends any number of images, one at a time. It cannot serve, and an accepted one cannot send.
//
// Only Addr is needed. A Begin is safe for concurrent use; do not change or copy it after its
// first use.
type Begin struct {
	// Addr is the "host:port" to dial, or to listen on if Listener is nil.
	Addr string
	// Name is the name of the images that are received. In it {n} stands for their number, from
	// 1, and {time} for the local time: "cam-{n}.bmp". Empty means a name made of the transfer ID
	// and the format. To replace a single file by each image set it to "image.bmp", and
	// DirStore.Existing to Replace.
	Name string
	// Pause is how long the client waits after its text, and once more while that is not known to
	// have arrived (Linux); 0: 300 ms, negative: none, for servers that need none, such as this one.
	Pause time.Duration
	// Timeout is how long the peer may be silent when something is due: the server's welcome, and
	// the next bytes of the image or their acceptance. 0: 30 s, negative: no limit.
	Timeout time.Duration
	// IdleTimeout is how long a client may wait before it begins; 0: 10 minutes, negative: no
	// limit.
	IdleTimeout time.Duration
	// DialContext replaces net.Dialer's.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Listener replaces net.Listen. The transport.Listener owns and closes it.
	Listener net.Listener
}

var _ transport.Transport = (*Begin)(nil)

const (
	beginWelcome = "Welcome from server!"
	beginText    = "begin to send"
)

func (b *Begin) info() transport.Info {
	return transport.Info{Protocol: "tcp+begin", Peer: b.Addr, Confirms: transport.Sent, Concurrency: 1}
}

// Dial implements transport.Transport. It does not connect: Send does.
func (b *Begin) Dial(ctx context.Context) (transport.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, dialError(err)
	}
	return &beginConn{deviceConn: newDeviceConn(b.info(), func() {}), b: b}, nil
}

// Listen implements transport.Transport.
func (b *Begin) Listen(ctx context.Context) (transport.Listener, error) {
	names, err := newNames(b.Name)
	if err != nil {
		return nil, listenError(err)
	}
	times := waits{timeout: limit(b.Timeout, deviceTimeout), idle: limit(b.IdleTimeout, deviceIdle)}
	return listenDevice(ctx, b.Listener, b.Addr, b.info(), times, func(ctx context.Context, r *deviceReader, in *transport.Inbox) error {
		if err := r.greet(ctx, beginWelcome); err != nil {
			return err
		}
		if _, err := r.text(ctx, literal(beginText)); err != nil {
			return orderlyEnd(err)
		}
		return r.rest(ctx, in, names.next())
	})
}

type beginConn struct {
	deviceConn
	b *Begin
}

// Send implements transport.Conn.
func (c *beginConn) Send(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
	return c.sender.Send(ctx, c.info, img, o, func(ctx context.Context, out *transport.Outgoing) (transport.Receipt, error) {
		if err := refuseEmpty(out.Body.Size); err != nil {
			return transport.Receipt{}, err
		}
		if err := c.take(ctx); err != nil {
			return transport.Receipt{}, err
		}
		defer c.release()
		l, err := joinDevice(ctx, c.b.DialContext, c.b.Addr, limit(c.b.Timeout, deviceTimeout))
		if err != nil {
			return transport.Receipt{}, err
		}
		w, err := l.welcome(ctx, beginWelcome)
		if err != nil {
			return transport.Receipt{}, err
		}
		return w.sendRest(ctx, out, beginText, limit(c.b.Pause, devicePause))
	})
}
