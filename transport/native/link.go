package native

import (
	"cmp"
	"context"
	"net"
	"sync"
	"time"

	"github.com/pixferry/pixferry/internal/sleep"
)

// A Link is a pipe for messages: the medium below one session of the native protocol. Implement
// it to carry pixferry over a medium of your own, and test it with transporttest.TestLink. One
// goroutine reads and one writes; Info and Close may be called from any.
type Link interface {
	// ReadMessage reads the next message into buf, which has room for Info().MaxMessage bytes or
	// more, and returns its length. A message that is longer than buf is cut or skipped, or ends
	// the link with an error. io.EOF is the orderly end of the peer's side.
	ReadMessage(buf []byte) (int, error)
	// WriteMessage sends one message. It may block, and keeps no reference to msg. For a message
	// over what the medium takes at present it returns a *transport.TooLargeError with that as
	// Max, and the session lowers its message size. A link that is Ordered and Reliable must take
	// MaxMessage bytes: there the error ends the Conn with transport.ErrConfig.
	WriteMessage(msg []byte) error
	// Info describes the medium as it is now.
	Info() LinkInfo
	// Close frees a blocked ReadMessage and WriteMessage. What was written before is still sent
	// if the medium can.
	Close() error
}

// LinkInfo describes a Link.
type LinkInfo struct {
	Protocol string // for transport.Info, for example "serial"; not empty
	Peer     string // for transport.Info: the address or proven name of the other end
	// Ordered: messages arrive in the order they were written, if they arrive.
	// A gap then means loss.
	Ordered bool
	// Reliable: every message arrives as it was sent until the link fails, and its end at either
	// side ends ReadMessage at the other, as over TCP. A medium that is opened at each end by
	// itself, such as a serial line or a pair of named pipes, is not: what one side writes while
	// the other has it closed, or reads for a session that is over, is lost. A link that is also
	// Ordered needs no loss recovery: nothing is sent twice on it. Its checksums leave out an
	// image's bytes, which the digest covers: if some were changed after all, a block is sent
	// again. Both ends must say the same of a link.
	Reliable bool
	// MaxMessage is the largest message in bytes, at least 256; less is transport.ErrConfig.
	MaxMessage int
	// Sizes are larger message sizes, ascending, that the session may probe for (path MTU, a
	// broker's limit); nil: none. Until one is found to work MaxMessage is used.
	Sizes []int
}

// A DialLink joins the peer. It is called for the first link and for each reconnect.
type DialLink func(ctx context.Context) (Link, error)

// A LinkListener accepts links, one for each session of a peer. On one that is reliable a session
// begins within 10 s, or the link is closed; others may be silent for as long as their peers like,
// but of all links at most 256 wait for their session: for one more the oldest is closed, which has
// had a second at least, or Accept is not called until there is room.
type LinkListener interface {
	Accept(ctx context.Context) (Link, error) // after Close: an error that matches net.ErrClosed
	Addr() net.Addr
	Close() error
}

// A ListenLinks starts to accept peers. The context bounds only the start.
type ListenLinks func(ctx context.Context) (LinkListener, error)

// OneAtATime listens on a medium with a single peer, such as a serial line: it calls open for the
// first session, and again after each has ended.
func OneAtATime(open DialLink) ListenLinks {
	return func(context.Context) (LinkListener, error) {
		l := &single{open: open, free: make(chan struct{}, 1)}
		l.ctx, l.cancel = context.WithCancel(context.Background())
		l.free <- struct{}{}
		return l, nil
	}
}

// single is a LinkListener with at most one Link that is not closed.
type single struct {
	open   DialLink
	free   chan struct{} // has a token while there is none
	ctx    context.Context
	cancel context.CancelFunc

	opened time.Time     // the last one; zero: that failed
	pause  time.Duration // before the next one
}

const (
	lasting   = time.Second // for a link that was worth opening
	leastWait = 5 * time.Millisecond
)

func (s *single) Accept(ctx context.Context) (Link, error) {
	opening, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(s.ctx, stop)()
	select {
	case <-s.free:
	case <-opening.Done():
		return nil, s.ended(opening.Err())
	}
	var link Link
	err := cmp.Or(ctx.Err(), s.rest(opening)) // who closes the Listener frees the medium too
	if err == nil {
		link, err = s.open(opening)
		s.opened = time.Now()
	}
	if err != nil {
		s.opened = time.Time{} // whoever accepts rests after an error
		s.free <- struct{}{}
		return nil, s.ended(err)
	}
	return &freeing{Link: link, free: sync.OnceFunc(func() { s.free <- struct{}{} })}, nil
}

// rest waits if the last links have ended soon, as those of a device do that is not there.
func (s *single) rest(ctx context.Context) error {
	if s.opened.IsZero() || time.Since(s.opened) >= lasting {
		s.pause = 0
		return nil
	}
	s.pause = min(max(2*s.pause, leastWait), lasting)
	return sleep.For(ctx, s.pause)
}

func (s *single) ended(err error) error {
	if s.ctx.Err() != nil {
		return net.ErrClosed
	}
	return err
}

func (s *single) Addr() net.Addr { return singleAddr{} }

func (s *single) Close() error {
	s.cancel()
	return nil
}

type singleAddr struct{}

func (singleAddr) Network() string { return "link" }
func (singleAddr) String() string  { return "link" }

// freeing says when its Link is closed.
type freeing struct {
	Link
	free func()
}

func (f *freeing) Close() error {
	defer f.free()
	return f.Link.Close()
}
