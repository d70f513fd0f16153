package native_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// port is one end of a serial line, opened. To close it tells the other end nothing, and what nobody reads is lost.
type port struct {
	in, out chan []byte
	left    []byte
	closed  chan struct{}
	once    sync.Once
	dead    atomic.Bool // nothing leaves any more
}

func (p *port) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		select {
		case p.left = <-p.in:
		case <-p.closed:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

func (p *port) Write(b []byte) (int, error) {
	if p.dead.Load() {
		return len(b), nil
	}
	select {
	case p.out <- bytes.Clone(b):
	default:
	}
	return len(b), nil
}

func (p *port) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// A serial line does not tell when the program at its other end is killed. The next one is heard all the same.
func TestRestartedProgramOnASerialLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there, back := make(chan []byte, 64), make(chan []byte, 64)
		far := native.Over(nil, native.OneAtATime(func(context.Context) (native.Link, error) {
			return native.Stream(&port{in: there, out: back, closed: make(chan struct{})}), nil
		}), native.Config{})
		l := mustListen(t, far)
		var ended []error
		srv := &transport.Server{Store: &transport.MemStore{}, Hooks: transport.Hooks{ConnClosed: func(_ transport.Info, err error) { ended = append(ended, err) }}}
		served := async(func() error { return srv.Serve(context.Background(), l) })
		for i := range 3 {
			begin := time.Now()
			p := &port{in: back, out: there, closed: make(chan struct{})}
			near := native.Over(func(context.Context) (native.Link, error) { return native.Stream(p), nil }, nil, native.Config{})
			conn := mustDial(t, near)
			if _, err := conn.Send(t.Context(), image("a", []byte{byte(i)}), nil); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("program %d was heard after %v", i+1, took)
			}
			p.dead.Store(true)
			conn.Close()
		}
		srv.Shutdown(t.Context())
		<-served
		for _, err := range ended[:2] {
			if !errors.Is(err, transport.ErrPeerRestarted) {
				t.Error("a killed program's Conn ends with", err)
			}
		}
	})
}

// What was sent to the program before lies in the line when the next one is started.
func TestSerialLineFullOfWhatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there, back := make(chan []byte, 64), make(chan []byte, 64)
		open := func(in, out chan []byte) native.DialLink {
			return func(context.Context) (native.Link, error) {
				return native.Stream(&port{in: in, out: out, closed: make(chan struct{})}), nil
			}
		}
		before, _ := open(back, there)(t.Context())
		for range cap(there) - 1 {
			if err := before.WriteMessage(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		l := mustListen(t, native.Over(nil, native.OneAtATime(open(there, back)), native.Config{}))
		defer l.Close()
		began := time.Now()
		conn := mustDial(t, native.Over(open(back, there), nil, native.Config{}))
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v to be heard", took)
		}
		conn.Close()
	})
}

// A line on which nobody speaks stays open: to open it anew resets some boards.
func TestIdleSerialLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		opened := 0
		far := native.Over(nil, native.OneAtATime(func(context.Context) (native.Link, error) {
			opened++
			return native.Stream(&port{in: make(chan []byte), out: make(chan []byte), closed: make(chan struct{})}), nil
		}), native.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		l := mustListen(t, far)
		time.Sleep(time.Hour)
		if l.Close(); opened != 1 || log.Len() > 0 {
			t.Errorf("opened %d times in an hour, and logged:\n%s", opened, log.String())
		}
	})
}

func TestSilentSerialLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near := native.Over(func(context.Context) (native.Link, error) {
			return native.Stream(&port{in: make(chan []byte), out: make(chan []byte), closed: make(chan struct{})}), nil
		}, nil, native.Config{})
		_, err := near.Dial(t.Context())
		if !errors.Is(err, transport.ErrNoReceiver) || !strings.Contains(err.Error(), "nothing answers at stream (after 30s)") {
			t.Error(err)
		}
	})
}
