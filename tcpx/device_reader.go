package tcpx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/pixferry/pixferry/internal/complete"
	"github.com/pixferry/pixferry/transport"
)

// waits are the times that a server gives its peer; 0: no limit.
type waits struct {
	timeout time.Duration // in the middle of something
	idle    time.Duration // before it begins something
	quiet   time.Duration // after a text of which nothing else tells the end
}

// deviceReader takes texts and images from a connection, however TCP has cut and
// joined them.
type deviceReader struct {
	*deviceLink
	waits waits
	buf   []byte // memory
	ahead []byte // the part of it that is read and not taken
}

func newDeviceReader(conn net.Conn, w waits) *deviceReader {
	return &deviceReader{deviceLink: newDeviceLink(conn, w.timeout), waits: w, buf: make([]byte, 32<<10)}
}

// greet says the first text. On a connection whose TLS handshake it begins it reads as well.
func (r *deviceReader) greet(ctx context.Context, text string) error {
	_, err := bounded(ctx, r.timeout, r.SetDeadline, func() (int, error) { return r.Write([]byte(text)) })
	return err
}

// A splitFunc finds a text at the start of data, which is not empty, and returns
// its length: 0 while it is not all there. paused says that nothing more has come
// for a while, or that the stream has ended.
type splitFunc func(data []byte, paused bool) (n int, err error)

// text returns the next text. If the stream ends the error is io.EOF before it, and
// io.ErrUnexpectedEOF within.
func (r *deviceReader) text(ctx context.Context, split splitFunc) (string, error) {
	return r.textWithin(ctx, r.waits.idle, split)
}

// announced is text for one that another has announced, and that comes soon therefore.
func (r *deviceReader) announced(ctx context.Context, split splitFunc) (string, error) {
	return r.textWithin(ctx, r.timeout, split)
}

// textWithin waits so long for a text to begin; 0: without a limit.
func (r *deviceReader) textWithin(ctx context.Context, begin time.Duration, split splitFunc) (string, error) {
	for paused := error(nil); ; { // why: silence, or the end
		wait := begin
		if len(r.ahead) > 0 {
			if text, err := r.take(split, paused != nil); text != "" || err != nil {
				return text, err
			}
			wait = r.waits.quiet
			if paused != nil {
				wait = r.timeout - r.waits.quiet
			}
			switch {
			case errors.Is(paused, io.EOF):
				return "", r.within(io.ErrUnexpectedEOF)
			case paused != nil && r.timeout > 0 && wait <= 0:
				return "", r.within(paused)
			}
		}
		err := r.fill(ctx, wait)
		switch {
		case err == nil:
			paused = nil
		case len(r.ahead) > 0 && paused == nil && ctx.Err() == nil && (errors.Is(err, io.EOF) || errors.Is(err, transport.ErrIdle)):
			paused = err
		case len(r.ahead) > 0:
			return "", r.within(noEOF(err))
		default:
			return "", err
		}
	}
}

// take takes the text that there is, or none while it is not all there.
func (r *deviceReader) take(split splitFunc, paused bool) (string, error) {
	n, err := split(r.ahead, paused)
	if err == nil && n == 0 && len(r.ahead) > deviceText {
		err = fmt.Errorf("%.40q... is no text of this protocol: one has at most %d bytes", r.ahead, deviceText)
	}
	if err != nil {
		return "", err
	}
	text := string(r.ahead[:n])
	r.ahead = r.ahead[n:]
	return text, nil
}

// within is the end of what has begun as a text.
func (r *deviceReader) within(err error) error { return fmt.Errorf("behind %.80q: %w", r.ahead, err) }

// fill reads more behind what is there already.
func (r *deviceReader) fill(ctx context.Context, wait time.Duration) error {
	r.ahead = r.buf[:copy(r.buf, r.ahead)]
	n, err := r.read(ctx, r.buf[len(r.ahead):], wait)
	r.ahead = r.buf[:len(r.ahead)+n]
	if n > 0 {
		err = nil // it comes again
	}
	return err
}

// literal splits off a text that is known beforehand.
func literal(text string) splitFunc {
	return func(data []byte, _ bool) (int, error) {
		n := min(len(text), len(data))
		if string(data[:n]) != text[:n] {
			return 0, fmt.Errorf("%.40q came, where %q is due", data, text)
		}
		if n < len(text) {
			return 0, nil
		}
		return n, nil
	}
}

// image feeds the Arrival from offset 0 on: size bytes, or with -1 all up to the
// end of the stream. Each byte is shown to whole too, if that is set. A device that has
// not read the welcome when it closes resets the connection thereby, and one that sleeps at
// once is just silent: behind an image that says itself where it ends this is the end of the
// stream too. An error has aborted the Arrival.
func (r *deviceReader) image(ctx context.Context, a *transport.Arrival, size int64, whole *complete.Checker) error {
	for off := int64(0); off != size; {
		if len(r.ahead) == 0 {
			err := r.fill(ctx, r.timeout)
			if size < 0 && (errors.Is(err, io.EOF) || err != nil && ctx.Err() == nil && whole.Ended()) {
				return nil
			}
			if err != nil {
				a.Abort(cutShort(off, size, err))
				return fmt.Errorf("the image was cut: %w", err)
			}
		}
		p := r.ahead
		if size >= 0 {
			p = p[:min(int64(len(p)), size-off)]
		}
		if _, err := a.WriteAt(p, off); err != nil {
			return err
		}
		if whole != nil {
			whole.Write(p)
		}
		off += int64(len(p))
		r.ahead = r.ahead[len(p):]
	}
	return nil
}

// cutShort is what becomes of an image whose sender has failed.
func cutShort(got, size int64, cause error) error {
	of := ""
	if size >= 0 {
		of = fmt.Sprintf(" of %d", size)
	}
	return &transport.RejectedError{Reason: transport.ReasonIncomplete, Retryable: true, Text: fmt.Sprintf("the sender's connection failed after %d%s bytes: %v", got, of, cause)}
}

// startsLike reports whether one of a and b is the beginning of the other.
func startsLike(a []byte, b string) bool {
	n := min(len(a), len(b))
	return bytes.Equal(a[:n], []byte(b[:n]))
}
