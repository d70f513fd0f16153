package tcpx

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"path"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// Frames is the protocol of cameras that send many images over one TCP connection.
//
//	client  FORMAT|DIR       server  ok, or it closes       (FrameSource)
//	client  LENGTH|NAME      server  ok                     (FrameHeader)
//	client  LENGTH bytes     server  ok
//	client  continue, then the next LENGTH|NAME; or over
//
// Texts are UTF-8 of at most 1024 bytes without terminators. The server takes them however TCP
// cuts and joins them, from any number of clients at once. The client waits after continue, for
// servers that take one receive for one text, and sends over with Close.
//
// A receipt is of level [transport.Received]: the peer has answered that it has the bytes. The
// server here answers when its Server has kept the image; those in the field answer before. There
// is no word for a refusal: a server closes the connection instead, as the one here does for what
// its Server refuses.
//
// A received image has FORMAT as its Source and DIR as Meta["dir"]; [FramePath] stores it below
// DIR. Names and DIRs that are not plain names are refused. ID, media type and other metadata are
// not carried.
//
// A Conn that was dialled sends one image at a time, in the order of the calls. It connects with
// the first one. A failure ends the connection, as does an image that is cancelled between
// LENGTH|NAME and the last ok; the next image makes a new one. Bodies of unknown size cannot be
// sent. It cannot serve, and an accepted one cannot send.
//
// Only Addr is needed. A Frames is safe for concurrent use; do not change or copy it after its
// first use.
type Frames struct {
	// Addr is the "host:port" to dial, or to listen on if Listener is nil.
	Addr string
	// Format and Dir are what the client sends first; empty: "visible" and "images".
	Format, Dir string
	// Formats are those that the server accepts; empty: all.
	Formats []string
	// Tiny says that the server takes images of 0 and 1 byte, as the one here does. Those in the
	// field hang at such an image, so that the client refuses it without Tiny.
	Tiny bool
	// Pause is how long the client waits after continue, as in [Begin], and the server between its
	// two answers to an empty image; 0: 50 ms, negative: none, for peers that need none, such as
	// those here.
	Pause time.Duration
	// Quiet is the pause after which the server takes a text as complete if nothing else tells:
	// FORMAT|DIR, and names without the extension of an image. 0: 100 ms, negative: only Timeout
	// does.
	Quiet time.Duration
	// Timeout is how long the peer may be silent when something is due: an answer, the rest of a
	// text, and the next bytes of the image or their acceptance. 0: 30 s, negative: no limit.
	Timeout time.Duration
	// IdleTimeout is how long a client may wait before its next text; 0: 10 minutes, negative: no
	// limit.
	IdleTimeout time.Duration
	// DialContext replaces net.Dialer's.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Listener replaces net.Listen. The transport.Listener owns and closes it.
	Listener net.Listener
}

var _ transport.Transport = (*Frames)(nil)

// frameDir is the metadata key of DIR.
const frameDir = "dir"

// FramePath is a [transport.DirStore].Path: it returns DIR/NAME for an image that came by
// [Frames], and the plain name for others.
func FramePath(img *transport.Image) string { return path.Join(img.Meta[frameDir], img.Name) }

func (f *Frames) info() transport.Info {
	return transport.Info{Protocol: "tcp+frames", Peer: f.Addr, Confirms: transport.Received, Concurrency: 1}
}

func (f *Frames) pause() time.Duration { return limit(f.Pause, 50*time.Millisecond) }

// Dial implements transport.Transport. It does not connect: Send does.
func (f *Frames) Dial(ctx context.Context) (transport.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, dialError(err)
	}
	source := FrameSource{Format: cmp.Or(f.Format, "visible"), Dir: cmp.Or(f.Dir, "images")}
	text, err := source.Append(nil)
	if err != nil {
		return nil, dialError(fmt.Errorf("%w: tcpx.Frames: %w", transport.ErrConfig, err))
	}
	conn := &framesConn{f: f, source: string(text)}
	conn.deviceConn = newDeviceConn(f.info(), conn.hangUp)
	return conn, nil
}

// Listen implements transport.Transport.
func (f *Frames) Listen(ctx context.Context) (transport.Listener, error) {
	times := waits{timeout: limit(f.Timeout, deviceTimeout), idle: limit(f.IdleTimeout, deviceIdle), quiet: limit(f.Quiet, 100*time.Millisecond)}
	return listenDevice(ctx, f.Listener, f.Addr, f.info(), times, func(ctx context.Context, r *deviceReader, in *transport.Inbox) error {
		s := framesServer{f: f, r: r, in: in}
		return s.serve(ctx)
	})
}
