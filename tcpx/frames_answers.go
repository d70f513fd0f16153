package tcpx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// frameAnswers counts the oks of a server as they come. Only those that come after a
// question are answers to it, and whoever asks knows how many there were before.
type frameAnswers struct {
	server  net.Addr
	timeout time.Duration
	ended   chan struct{} // nothing more is read

	mu      sync.Mutex
	count   int
	half    bool // the o of one has come
	err     error
	changed chan struct{} // closed with each change
}

// awaitAnswers reads from a connection until it ends or says something else.
func awaitAnswers(l *deviceLink) *frameAnswers {
	a := &frameAnswers{server: l.RemoteAddr(), timeout: l.timeout, ended: make(chan struct{}), changed: make(chan struct{})}
	go func() {
		defer close(a.ended)
		l.SetReadDeadline(time.Time{})
		for buf := make([]byte, 256); ; {
			n, err := l.Read(buf)
			if !a.take(buf[:n], err) {
				return
			}
		}
	}()
	return a
}

// take counts what has come, and reports whether more may.
func (a *frameAnswers) take(data []byte, err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range data {
		if b != frameOK[0] && !a.half || b != frameOK[1] && a.half {
			err = fmt.Errorf("%.40q came instead of %q", data, frameOK)
			break
		}
		if a.half = !a.half; !a.half {
			a.count++
		}
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("it has closed the connection instead")
	}
	a.err = err
	close(a.changed)
	a.changed = make(chan struct{})
	return err == nil
}

// seen returns how many oks have come.
func (a *frameAnswers) seen() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}

// failed returns why nothing more comes, or nil.
func (a *frameAnswers) failed() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// answered waits until want oks have come, the last of them to what.
func (a *frameAnswers) answered(ctx context.Context, want int, what string) error {
	var late <-chan time.Time
	if a.timeout > 0 {
		late = time.After(a.timeout)
	}
	for {
		a.mu.Lock()
		count, err, changed := a.count, a.err, a.changed
		a.mu.Unlock()
		if count >= want {
			return nil
		}
		if err == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			case <-late:
				err = errSilent(a.timeout)
			}
		}
		return fmt.Errorf("the server at %v does not say %q to %.80q: %w", a.server, frameOK, what, err)
	}
}
