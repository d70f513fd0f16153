package tcpx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/complete"
	"github.com/pixferry/pixferry/transport"
)

// What Begin and Command have in common: the server greets, and the end of the
// stream is the end of the image.

// devicePause is how long a client keeps its texts apart by default. The programs
// in the field need 200 to 500 ms.
const devicePause = 300 * time.Millisecond

// oneWay is a client's connection to a server that says nothing after its welcome.
type oneWay struct {
	*deviceLink
	ended chan struct{} // the peer has closed its side
}

// welcome takes the server's first text. What comes after it is read and thrown
// away: closing with unread bytes would reset the connection and destroy what the
// server has not read yet.
func (l *deviceLink) welcome(ctx context.Context, want string) (*oneWay, error) {
	r := &deviceReader{deviceLink: l, waits: waits{timeout: l.timeout, idle: l.timeout, quiet: l.timeout}, buf: make([]byte, 2*deviceText)}
	if _, err := r.text(ctx, literal(want)); err != nil {
		l.reset()
		return nil, fmt.Errorf("the server at %v does not say %q: %w", l.RemoteAddr(), want, noEOF(err))
	}
	w := &oneWay{l, make(chan struct{})}
	l.SetReadDeadline(time.Time{})
	go func() {
		defer close(w.ended)
		_, _ = io.Copy(io.Discard, l.Conn)
	}()
	return w, nil
}

// reset and finish end the connection and the goroutine that reads. The stream has ended before finish.

func (w *oneWay) reset() {
	w.deviceLink.reset()
	<-w.ended
}

func (w *oneWay) finish() error {
	err := w.Close()
	<-w.ended
	return err
}

// sendRest says text and sends the image to the end of the stream.
func (w *oneWay) sendRest(ctx context.Context, out *transport.Outgoing, text string, pause time.Duration) (transport.Receipt, error) {
	size, err := w.stream(ctx, out, text, pause)
	if err == nil {
		err = w.arrive(ctx) // before its end: a cancel is then a reset, and TLS waits only 5 s for room for that
	}
	if err == nil {
		err = w.endStream()
	}
	if err != nil {
		w.reset()
		return transport.Receipt{}, err
	}
	if err := w.finish(); err != nil {
		return transport.Receipt{}, err
	}
	return transport.Receipt{Level: transport.Sent, Bytes: size}, nil
}

func (w *oneWay) stream(ctx context.Context, out *transport.Outgoing, text string, pause time.Duration) (size int64, err error) {
	if err := w.say(ctx, text, pause); err != nil {
		return 0, err
	}
	if err := w.settle(ctx); err != nil {
		return 0, err
	}
	if w.left() {
		return 0, errLeft
	}
	for piece, err := range chunk.Split(out.Body, out.Body.Size, devicePiece) {
		if err == nil && piece.Last {
			if err = out.Body.Check(); err == nil {
				out.LastByteSent()
			}
		}
		if err == nil {
			err = w.write(ctx, piece.Data)
		}
		if err != nil {
			return size, err
		}
		size += int64(len(piece.Data))
		out.Count(int64(len(piece.Data)))
	}
	return size, refuseEmpty(size)
}

// errLeft is of a server that was gone before the first byte left: who takes something waits for it.
var errLeft = errors.New("the server has closed the connection instead of waiting for what comes")

// left reports whether the server is known to be gone.
func (w *oneWay) left() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// refuseEmpty refuses an image of 0 bytes: a connection that ends without one looks
// the same.
func refuseEmpty(size int64) error {
	if size == 0 {
		return fmt.Errorf("this protocol cannot carry an empty image: %w", errors.ErrUnsupported)
	}
	return nil
}

// rest takes an image that goes on to the end of the stream.
func (r *deviceReader) rest(ctx context.Context, in *transport.Inbox, name string) error {
	if len(r.ahead) == 0 {
		if err := r.fill(ctx, r.timeout); err != nil {
			return fmt.Errorf("no image came: %w", noEOF(err))
		}
	}
	a, err := in.Offer(ctx, transport.Offer{Image: transport.Image{Name: name}, Size: -1})
	if err != nil {
		return err
	}
	var whole complete.Checker
	if err := r.image(ctx, a, -1, &whole); err != nil {
		return err
	}
	if err := whole.Err(); err != nil {
		refusal := &transport.RejectedError{Reason: transport.ReasonIncomplete, Retryable: true, Text: "the sender has closed early: " + err.Error()}
		a.Abort(refusal)
		return refusal
	}
	_, err = a.Finish(ctx, -1, chunk.Digest{})
	return err
}

// orderlyEnd is nil for a peer that has left before it began anything.
func orderlyEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
