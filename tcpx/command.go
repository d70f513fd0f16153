package tcpx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pixferry/pixferry/transport"
)

// Command is the protocol of serial-to-Wi-Fi microcontrollers that send commands and a picture to
// a PC. A connection carries any number of commands and at most one image, whose end is the
// connection's end.
//
//	server  hello client             (on accept)
//	client  hello server
//	client  c   then a command       (any number of times)
//	client  f   then the image's bytes and the end of the stream
//
// A command is a [transport.Message] of 1 to 1,024 bytes of UTF-8 without control characters. Its
// Type is not carried; received ones have the Type "command". Nothing has a terminator. The
// server takes texts however TCP cuts and joins them, and finds the end of a command by Commands,
// else by Quiet. The client separates them by pauses, for servers that take one receive for one
// text.
//
// Nothing answers: receipts are of level [transport.Sent], as with [Begin], and nil from
// SendMessage means that the command has left. If the Server refuses a command, the connection
// goes on and the client does not hear of it. Cut images and names are as with [Begin].
//
// A Conn that was dialled connects when there is something to send. Commands share a connection
// with later commands and with the next image, which ends it; what comes after that makes a new
// one. It cannot serve, and an accepted one cannot send.
//
// Only Addr is needed. A Command is safe for concurrent use; do not change or copy it after its
// first use.
type Command struct {
	// Addr is the "host:port" to dial, or to listen on if Listener is nil.
	Addr string
	// Commands are those that clients may send, if known: the server then finds their end without
	// a pause. Others are still taken, up to the next pause.
	Commands []string
	// Quiet is the pause after which the server takes a command as complete if Commands does not
	// tell; 0: 100 ms, negative: only Timeout does.
	Quiet time.Duration
	// Name is the name of the images that are received, as in [Begin].
	Name string
	// Pause is how long the client waits after each text, as in [Begin]: hello server, c, the
	// command, and f. 0: 300 ms, negative: none, for servers with Commands, such as this one.
	Pause time.Duration
	// Timeout is how long the peer may be silent when something is due: the other side's hello,
	// the rest of a command, and the next bytes of the image or their acceptance. 0: 30 s,
	// negative: no limit.
	Timeout time.Duration
	// IdleTimeout is how long a client may wait before its next command or image; 0: 10 minutes,
	// negative: no limit.
	IdleTimeout time.Duration
	// DialContext replaces net.Dialer's.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Listener replaces net.Listen. The transport.Listener owns and closes it.
	Listener net.Listener
}

var _ transport.Transport = (*Command)(nil)

const (
	commandServer = "hello client" // what the server says
	commandClient = "hello server"
	commandTag    = "c"
	fileTag       = "f"
)

func (c *Command) info() transport.Info {
	return transport.Info{Protocol: "tcp+command", Peer: c.Addr, Confirms: transport.Sent, Concurrency: 1, Messages: true}
}

// Dial implements transport.Transport. It does not connect: Send and SendMessage do.
func (c *Command) Dial(ctx context.Context) (transport.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, dialError(err)
	}
	conn := &commandConn{c: c, pause: limit(c.Pause, devicePause)}
	conn.deviceConn = newDeviceConn(c.info(), conn.hangUp)
	return conn, nil
}

// Listen implements transport.Transport.
func (c *Command) Listen(ctx context.Context) (transport.Listener, error) {
	for _, command := range c.Commands {
		if err := checkCommand([]byte(command)); err != nil {
			return nil, listenError(fmt.Errorf("%w: tcpx.Command.Commands: %w", transport.ErrConfig, err))
		}
	}
	names, err := newNames(c.Name)
	if err != nil {
		return nil, listenError(err)
	}
	times := waits{timeout: limit(c.Timeout, deviceTimeout), idle: limit(c.IdleTimeout, deviceIdle), quiet: limit(c.Quiet, 100*time.Millisecond)}
	return listenDevice(ctx, c.Listener, c.Addr, c.info(), times, func(ctx context.Context, r *deviceReader, in *transport.Inbox) error {
		return c.serve(ctx, r, in, names)
	})
}

func (c *Command) serve(ctx context.Context, r *deviceReader, in *transport.Inbox, names *namePattern) error {
	if err := r.greet(ctx, commandServer); err != nil {
		return err
	}
	if _, err := r.text(ctx, literal(commandClient)); err != nil {
		return orderlyEnd(err)
	}
	for {
		tag, err := r.text(ctx, splitTag)
		if err != nil {
			return orderlyEnd(err)
		}
		if tag == fileTag {
			return r.rest(ctx, in, names.next())
		}
		command, err := r.announced(ctx, splitCommand(c.Commands))
		if err != nil {
			return fmt.Errorf("no command came: %w", noEOF(err))
		}
		// The protocol has no word for a command that is refused.
		_ = in.Message(ctx, transport.Message{Type: "command", Data: []byte(command)})
	}
}

func splitTag(data []byte, _ bool) (int, error) {
	if tag := string(data[:1]); tag != commandTag && tag != fileTag {
		return 0, fmt.Errorf("%.40q came, where %q and a command or %q and a file is due", data, commandTag, fileTag)
	}
	return 1, nil
}

// splitCommand splits off a command: one of those that are known once no longer one
// can come of it, or else what comes before a pause.
func splitCommand(known []string) splitFunc {
	return func(data []byte, paused bool) (int, error) {
		found, more := 0, false
		for _, k := range known {
			if bytes.HasPrefix(data, []byte(k)) {
				found = max(found, len(k))
			} else if bytes.HasPrefix([]byte(k), data) {
				more = true
			}
		}
		next := data[found:]
		switch ends := len(next) == 0 || next[0] == commandTag[0] || next[0] == fileTag[0]; {
		case more && !paused:
			return 0, nil
		case found > 0 && ends:
			return found, nil
		case !paused:
			return 0, nil
		}
		if err := checkCommand(data); err != nil {
			return 0, fmt.Errorf("%w: if an image follows a command without a pause name the command in Commands", err)
		}
		return len(data), nil
	}
}

// checkCommand refuses what is no command: none at all, or bytes that belong to an
// image.
func checkCommand(text []byte) error {
	switch {
	case len(text) == 0 || len(text) > deviceText:
		return fmt.Errorf("a command has 1 to %d bytes, and this one %d: %w", deviceText, len(text), errors.ErrUnsupported)
	case !utf8.Valid(text) || bytes.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("%.40q is no command, which is a text: %w", text, errors.ErrUnsupported)
	}
	return nil
}

type commandConn struct {
	deviceConn
	c     *Command
	pause time.Duration
	link  *oneWay // nil: not connected
}

// connect returns the connection that is there, or a new one.
func (c *commandConn) connect(ctx context.Context) error {
	if c.link != nil {
		select {
		case <-c.link.ended:
			c.drop()
		default:
			return nil
		}
	}
	l, err := joinDevice(ctx, c.c.DialContext, c.c.Addr, limit(c.c.Timeout, deviceTimeout))
	if err != nil {
		return err
	}
	w, err := l.welcome(ctx, commandServer)
	if err != nil {
		return err
	}
	if err := w.say(ctx, commandClient, c.pause); err != nil {
		w.reset()
		return err
	}
	c.link = w
	return nil
}

func (c *commandConn) drop() {
	c.link.reset()
	c.link = nil
}

// hangUp ends the connection in good order.
func (c *commandConn) hangUp() {
	if c.link != nil {
		_ = c.link.endStream()
		_ = c.link.finish()
		c.link = nil
	}
}

// Send implements transport.Conn.
func (c *commandConn) Send(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
	return c.sender.Send(ctx, c.info, img, o, func(ctx context.Context, out *transport.Outgoing) (transport.Receipt, error) {
		if err := refuseEmpty(out.Body.Size); err != nil {
			return transport.Receipt{}, err
		}
		if err := c.take(ctx); err != nil {
			return transport.Receipt{}, err
		}
		defer c.release()
		if err := c.connect(ctx); err != nil {
			return transport.Receipt{}, err
		}
		if err := c.link.settleOr(ctx, c.drop); err != nil {
			return transport.Receipt{}, err
		}
		l := c.link
		c.link = nil
		return l.sendRest(ctx, out, fileTag, c.pause)
	})
}

// SendMessage sends a command of 1 to 1024 bytes of UTF-8 without control
// characters. Nil means that it has left.
func (c *commandConn) SendMessage(ctx context.Context, m transport.Message) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	outcome, err := c.command(ctx, m.Data)
	if err == nil {
		return nil
	}
	if c.closed.Load() {
		err = transport.ErrClosed
	}
	return &transport.Error{Op: "message", Outcome: outcome, Err: err}
}

func (c *commandConn) command(ctx context.Context, command []byte) (transport.Outcome, error) {
	if err := checkCommand(command); err != nil {
		return transport.NotKept, err
	}
	if err := c.take(ctx); err != nil {
		return transport.NotKept, err
	}
	defer c.release()
	if err := c.connect(ctx); err != nil {
		return transport.NotKept, err
	}
	if err := c.link.settleOr(ctx, c.drop); err != nil {
		return transport.NotKept, err
	}
	if err := c.link.say(ctx, commandTag, c.pause); err != nil {
		c.drop()
		return transport.NotKept, err
	}
	if err := c.link.settle(ctx); err != nil {
		c.drop()
		return transport.NotKept, err
	}
	if c.link.left() {
		c.drop()
		return transport.NotKept, errLeft
	}
	if err := c.link.say(ctx, string(command), c.pause); err != nil {
		c.drop()
		return transport.Unknown, err
	}
	return transport.NotKept, nil
}
