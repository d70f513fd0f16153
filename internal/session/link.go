package session

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// A Link is what native.Link is, described there.
type Link interface {
	ReadMessage(buf []byte) (int, error)
	WriteMessage(msg []byte) error
	Info() LinkInfo
	Close() error
}

// An ExtendedLink can do more than it must.
type ExtendedLink interface {
	Link
	// WaitMessage returns when a message has begun to arrive, so that a session
	// without traffic holds no buffer for one.
	WaitMessage() error
	// Apart reports whether WriteApart is cheaper than to put a message together.
	Apart() bool
	// WriteApart is WriteMessage of a message in parts.
	WriteApart(head, payload, tail []byte) error
	// Slow has slow called now and then while bytes of a message come, which takes its time.
	Slow(slow func())
	// Abort is Close without regard to what was written.
	Abort()
}

// LinkCarrier carries one session over a Link, with a goroutine that reads and, while
// there is something to write, one that writes. A timer of its own runs the engine's
// timers, because the writer may be blocked in the Link when the peer has vanished.
type LinkCarrier struct {
	link     Link
	extended ExtendedLink // link, or nil
	size     int          // of buffers for messages
	writer   func()       // write, made once
	closed   atomic.Bool

	s  *Session
	wg sync.WaitGroup

	mu      sync.Mutex
	started bool
	writing bool // the writer runs, or has run for the last time
	again   bool // it is to look again before it ends
	timer   *time.Timer
	due     time.Time // of timer
	last    bool      // timer is not to be set any more
}

// Carry returns a Carrier that owns link.
func Carry(link Link) *LinkCarrier {
	extended, _ := link.(ExtendedLink)
	info := link.Info()
	c := &LinkCarrier{link: link, extended: extended, size: slices.Max(append([]int{info.MaxMessage}, info.Sizes...))}
	c.writer = c.write
	return c
}

// Info implements Carrier.
func (c *LinkCarrier) Info() LinkInfo { return c.link.Info() }

// Start implements Carrier.
func (c *LinkCarrier) Start(s *Session) {
	c.s = s
	if c.extended != nil {
		if c.extended.Apart() {
			s.Apart()
		}
		c.extended.Slow(c.partly)
	}
	c.wg.Go(c.read)
	c.mu.Lock()
	c.started = true
	c.mu.Unlock()
	c.Wake()
}

// Wake implements Carrier.
func (c *LinkCarrier) Wake() {
	if c.begin() {
		c.s.crew.run(c.writer)
	}
}

// Flush implements flusher.
func (c *LinkCarrier) Flush() {
	if c.begin() {
		c.write()
	}
}

// begin reports whether the caller is to run write, because nobody does.
func (c *LinkCarrier) begin() (write bool) {
	c.mu.Lock()
	if write = c.started && !c.writing; write {
		c.writing = true
		c.wg.Add(1) // the reader still runs, so nobody has waited in vain
	} else {
		c.again = true
	}
	started := c.started
	c.mu.Unlock()
	if started && c.s.Err() != nil {
		c.arm(time.Now().Add(flushTime), true)
	}
	return write
}

// idle lets the writer end unless it is to look again.
func (c *LinkCarrier) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing, c.again = c.again, false
	return !c.writing
}

// Wait implements Carrier.
func (c *LinkCarrier) Wait() { c.wg.Wait() }

func (c *LinkCarrier) read() {
	msg := make([][]byte, 1)
	var worker yielder
	for {
		b, n, err := c.receive()
		if err != nil {
			c.s.Fail(linkError(err))
			<-c.s.Done() // whoever has ended it may be about to say so
			c.Wake()     // the last writer begins before Wait could see that nothing runs
			return
		}
		msg[0] = b.mem[:n]
		c.s.Deliver(time.Now(), b, msg...)
		msg[0] = nil // while it waits it holds no memory
		b.Release()
		c.look()
		if n > mediumBuffer {
			worker.yield()
		}
	}
}

// look begins to write if what was received asks for it.
func (c *LinkCarrier) look() {
	if poll, deadline := c.s.look(); poll {
		c.Wake()
	} else {
		c.arm(deadline, false)
	}
}

// partly notes that a message comes slowly.
func (c *LinkCarrier) partly() {
	c.s.Partly(time.Now())
	c.look()
}

// receive reads the next message.
func (c *LinkCarrier) receive() (*Buffer, int, error) {
	if c.extended != nil {
		if err := c.extended.WaitMessage(); err != nil {
			return nil, 0, err
		}
	}
	b := NewBuffer(c.size)
	n, err := c.link.ReadMessage(b.mem)
	if err == nil && (n < 0 || n > len(b.mem)) {
		err = fmt.Errorf("ReadMessage has returned %d bytes for a buffer of %d: a longer message is to be cut or skipped", n, len(b.mem))
	}
	if err != nil {
		b.Release()
		return nil, 0, err
	}
	return b, n, nil
}

// linkError is the end of a session by its link. That a message is too large it says in words, as no image is.
func linkError(err error) error {
	large := (*transport.TooLargeError)(nil)
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the link has ended without a CLOSE: %w", io.ErrUnexpectedEOF)
	case errors.As(err, &large):
		return fmt.Errorf("the link has failed: %s", err.Error())
	}
	return fmt.Errorf("the link has failed: %w", err)
}

// writeError is linkError of a write that adapt could not help.
func (c *LinkCarrier) writeError(err error) error {
	large := (*transport.TooLargeError)(nil)
	switch {
	case !errors.As(err, &large):
		return linkError(err)
	case large.Max < wire.MinMessage:
		return fmt.Errorf("%w: the link takes messages of %d bytes: %d is the least that carries a session: %s", transport.ErrConfig, large.Max, wire.MinMessage, err.Error())
	}
	return fmt.Errorf("%w: the link says that it is reliable and takes messages of %d bytes, and then refuses one: %s", transport.ErrConfig, c.link.Info().MaxMessage, err.Error())
}

// write sends what the engine has. When the session has ended it closes the link.
func (c *LinkCarrier) write() {
	defer c.wg.Done()
	for {
		ended := c.s.Err() != nil
		err := c.writeAll()
		if err != nil {
			c.s.Fail(c.writeError(err))
		}
		if err != nil || ended {
			c.stop()
			return
		}
		if c.idle() {
			return
		}
	}
}

// writeAll sends until the engine has nothing more at present.
func (c *LinkCarrier) writeAll() error {
	if c.s.apart {
		return c.writeApart()
	}
	b := NewBuffer(c.size)
	defer b.Release()
	for {
		n := c.s.Poll(time.Now(), b.mem[:c.size])
		c.arm(c.s.Deadline(), false)
		if n == 0 {
			return nil
		}
		if err := c.link.WriteMessage(b.mem[:n]); err != nil && !c.adapt(err) {
			return err
		}
	}
}

// writeApart is writeAll with payloads where they are.
func (c *LinkCarrier) writeApart() error {
	b := NewBuffer(c.size)
	defer b.Release()
	for {
		p := c.s.PollApart(time.Now(), b.mem[:c.size])
		c.arm(c.s.Deadline(), false)
		if p.Len() == 0 {
			return nil
		}
		err := c.extended.WriteApart(p.Head, p.Payload, p.Tail)
		p.Release()
		if err != nil {
			return err
		}
	}
}

// adapt lowers the message size if that is what a write has failed for. The message
// is lost, so this works only where lost ones are sent again.
func (c *LinkCarrier) adapt(err error) bool {
	var large *transport.TooLargeError
	if !errors.As(err, &large) || large.Max < wire.MinMessage || c.link.Info().Reliable {
		return false
	}
	c.s.LimitMessage(int(large.Max))
	return true
}

// arm sets the timer, unless it fires before anyway and will see then. The last time is
// when the session has ended: to free a writer that cannot get its last messages out.
func (c *LinkCarrier) arm(due time.Time, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	early := !c.due.IsZero() && !due.Before(c.due)
	switch {
	case c.last || due.IsZero() || early && !last:
		return
	case c.timer == nil:
		c.timer = time.AfterFunc(time.Until(due), c.tick)
	default:
		c.timer.Reset(time.Until(due))
	}
	c.due, c.last = due, last
}

func (c *LinkCarrier) tick() {
	if c.s.Err() != nil {
		c.abort()
		return
	}
	c.s.Advance(time.Now())
	c.mu.Lock()
	c.due = time.Time{} // it has fired
	c.mu.Unlock()
	c.arm(c.s.Deadline(), false)
	c.Wake()
}

// stop frees the timer and the link.
func (c *LinkCarrier) stop() {
	c.mu.Lock()
	c.last = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	if c.s.Failed() {
		c.abort()
	} else {
		c.close()
	}
}

func (c *LinkCarrier) close() {
	if !c.closed.Swap(true) {
		c.link.Close()
	}
}

// abort frees the link although messages are on their way.
func (c *LinkCarrier) abort() {
	if c.extended != nil {
		c.extended.Abort()
	}
	c.close()
}
