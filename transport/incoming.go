package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/pixferry/pixferry/chunk"
)

// An Incoming is an image as a Handler sees it.
type Incoming struct {
	ID   ID
	Peer string // Conn.Info().Peer
	Conn Conn   // where the image comes from, for an answer; it may have ended
	// Image has the metadata as the sender states them, not checked for truth; an empty Name or
	// MediaType is filled in. To change them here changes nothing of what is kept. Its Body can be
	// read any number of times until the Handler returns. With Server.Streaming it can be read
	// once, while it arrives.
	Image *Image
	Size  int64 // bytes; -1: unknown, which only a streaming Handler sees
	// Digest was computed here, with the sender's algorithm, or XXH3 if the protocol has no
	// digests. It is zero while streaming.
	Digest chunk.Digest
}

var errTakenBack = errors.New("the image can be read only until the Handler returns: copy what you need later")

// lent is a Partial lent to a Handler: readable until it is taken back.
type lent struct {
	mu sync.RWMutex
	r  io.ReaderAt
}

func (l *lent) ReadAt(p []byte, off int64) (int, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.r == nil {
		return 0, errTakenBack
	}
	return l.r.ReadAt(p, off)
}

// takeBack waits for the reads that run.
func (l *lent) takeBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.r = nil
}

// A stream is what a streaming Handler reads: the part of the image that has
// arrived without a gap. It buffers nothing.
type stream struct {
	lent    *lent
	ctx     context.Context
	cancel  context.CancelCauseFunc
	outcome *outcome // of the Handler

	mu    sync.Mutex
	more  chan struct{} // closed at the next change
	ready int64         // bytes that may be read
	err   error         // what follows them; io.EOF: verified
	pos   int64
}

func newStream(ctx context.Context, part Partial) *stream {
	st := &stream{lent: &lent{r: part}, more: make(chan struct{})}
	st.ctx, st.cancel = context.WithCancelCause(ctx)
	return st
}

// advance lets the Handler read up to ready, and then have err if there is one.
func (st *stream) advance(ready int64, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if ready == st.ready && err == nil || st.err != nil {
		return
	}
	st.ready, st.err = ready, err
	close(st.more)
	st.more = make(chan struct{})
}

// stop ends the Handler's reading and its context.
func (st *stream) stop(err error) {
	st.advance(0, err)
	st.cancel(err)
	st.lent.takeBack()
}

// Read waits for bytes. It is for one goroutine at a time.
func (st *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		st.mu.Lock()
		ready, err, more := st.ready, st.err, st.more
		st.mu.Unlock()
		switch {
		case st.pos < ready:
			n, err := st.lent.ReadAt(p[:min(int64(len(p)), ready-st.pos)], st.pos)
			st.pos += int64(n)
			switch {
			case n > 0:
				return n, nil
			case errors.Is(err, errTakenBack) && st.ctx.Err() != nil:
				err = context.Cause(st.ctx)
			case errors.Is(err, io.EOF): // the Partial is shorter than what was written to it
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		case err != nil:
			return 0, err
		}
		select {
		case <-more:
		case <-st.ctx.Done():
			return 0, context.Cause(st.ctx)
		}
	}
}

// An outcome is the result of a user's function that runs.
type outcome struct {
	done chan struct{}
	err  error // when done
}

// call runs a function of the user's on a goroutine of its own, so that neither
// a panic nor runtime.Goexit (a test's FailNow) can take the Server's along.
func (s *Server) call(fn func() error, after func()) *outcome {
	o := &outcome{done: make(chan struct{})}
	go func() {
		failed := later(ReasonHandler, "the handler has failed")
		failed.cause = errGoexit
		o.err = failed
		defer func() {
			if p := recover(); p != nil {
				failed.cause = fmt.Errorf("panic: %v", p)
				s.log.Error("handler panicked", "panic", p, "stack", string(debug.Stack()))
			}
			after()
			close(o.done)
		}()
		o.err = fn()
	}()
	return o
}

var errGoexit = errors.New("it has ended its goroutine by runtime.Goexit")

// handlerError is what the sender hears of a Handler's error.
func handlerError(err error) error {
	if err == nil {
		return nil
	}
	if r := (*RejectedError)(nil); errors.As(err, &r) && r == nil { // which an interface does not show
		return reject(ReasonHandler, "the handler has returned a nil *RejectedError as its error: return nil itself")
	}
	return asRejected(err, ReasonHandler)
}
