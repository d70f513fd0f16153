package udpx

import (
	"bytes"
	"net"
	"sync"
	"time"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/internal/wire"
)

// writer polls sessions, writes what they say and keeps their timers. It has a goroutine;
// the reader takes its place for the answers to what it has just read, and who wakes it for
// what it has been woken for, to spare that the way through another goroutine.
type writer struct {
	*socket
	turn    chan struct{} // holds a token while somebody polls
	lengths []int         // of messages, scratch
	timer   *time.Timer

	flushing sync.Mutex
	busy     bool        // somebody writes
	queued   int         // bursts that whoever writes is to write too
	next     chan *burst // through which they come
	refusals []refusal   // that sessions are still to hear of
}

// refusal is what a session is to hear about a packet that the system did not send.
type refusal struct {
	carrier *carrier
	session *session.Session
	fits    int   // this size may; 0: none
	err     error // why none; nil: there is no way from the socket's address
}

func newWriter(s *socket) *writer {
	return &writer{socket: s, turn: make(chan struct{}, 1), timer: time.NewTimer(time.Hour), next: make(chan *burst, 1)}
}

// run is the writer's goroutine.
func (w *writer) run() {
	defer w.timer.Stop()
	for !w.ending() {
		w.turn <- struct{}{}
		for w.work() {
		}
		<-w.turn
		w.sleep()
		select {
		case <-w.wake:
		case <-w.timer.C:
		}
		w.awake()
	}
	<-w.read
	if !w.owned {
		w.conn.Resume()
	}
	close(w.done)
}

// help writes one burst, unless somebody is at it, and leaves the rest to the goroutine.
func (w *writer) help() {
	more := true
	select {
	case w.turn <- struct{}{}:
		more = w.work()
		<-w.turn
	default:
	}
	if more {
		w.signal()
	} else {
		w.hasten()
	}
}

// work writes a burst of what sessions say and reports whether there may be more. If so the next
// one is polled while this one is written.
func (w *writer) work() (more bool) {
	w.tellRefusals()
	b := newBurst()
	for !more {
		c := w.ready()
		if c == nil {
			break
		}
		more = w.poll(b, c)
	}
	if b.empty() {
		b.recycle()
		return false
	}
	switch {
	case w.queues():
		w.next <- b
	case more:
		go w.flush(b)
	default:
		w.write(b)
		if w.follows() { // which is not for a caller who has other things to do
			go w.flush(<-w.next)
		}
	}
	return more
}

// queues reports whether somebody writes, who then waits for a burst in next.
func (w *writer) queues() bool {
	w.flushing.Lock()
	defer w.flushing.Unlock()
	if w.busy {
		w.queued++
	}
	queues := w.busy
	w.busy = true
	return queues
}

// follows reports whether there is another burst to write. If not, nobody writes any more.
func (w *writer) follows() bool {
	w.flushing.Lock()
	defer w.flushing.Unlock()
	if w.queued == 0 {
		w.busy = false
		return false
	}
	w.queued--
	return true
}

// sleep sets the timer, as the goroutine is about to wait for it.
func (w *writer) sleep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asleep, w.alarm = true, time.Time{}
	w.timer.Stop()
	w.arm()
}

func (w *writer) awake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asleep = false
}

// hasten sees to it that the goroutine does not wait for too long.
func (w *writer) hasten() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asleep {
		w.arm()
	}
}

// arm sets the timer if something is due before it. The mutex is held.
func (w *writer) arm() {
	if due := w.timers.Next(); !due.IsZero() && (w.alarm.IsZero() || due.Before(w.alarm)) {
		w.alarm = due
		w.timer.Reset(time.Until(due))
	}
}

// enqueue has a carrier polled. The mutex is held.
func (s *socket) enqueue(c *carrier) {
	if !c.queued && c.session != nil {
		c.queued = true
		s.queue = append(s.queue, c)
	}
}

// ready returns a carrier to poll now, nil if there is none.
func (s *socket) ready() (c *carrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.refs == 0:
			return nil
		case len(s.queue) > 0:
			c = s.queue[0]
			s.queue[0] = nil
			s.queue = s.queue[1:]
			c.queued = false
		default:
			if c = s.timers.Expired(time.Now()); c == nil {
				return nil
			}
			if c.session == nil { // its farewell has been there for long enough
				s.remove(c)
			}
		}
		if c.session != nil {
			return c
		}
	}
}

// poll takes messages from a session until it has none or the burst is full, which it
// reports.
func (w *writer) poll(b *burst, c *carrier) (full bool) {
	if c.ending {
		return false
	}
	s, now := c.session, time.Now()
	if w.overdue(c, now) {
		s.Fail(errUnproven)
	}
	ended := s.Err() != nil
	if w.take(b, c, now, ended) {
		w.later(c)
		return true
	}
	due := s.Deadline()
	if !due.IsZero() && !due.After(now) {
		s.Advance(now)
		if w.dialled() && s.Unanswered() {
			w.follow(c, s)
		}
		if w.take(b, c, now, ended) {
			w.later(c)
			return true
		}
		due = s.Deadline()
	}
	if ended {
		c.ending = true
		b.ended = append(b.ended, c)
	} else {
		w.schedule(c, due)
	}
	return false
}

// take adds a session's messages to the burst and reports whether it is full.
func (w *writer) take(b *burst, c *carrier, now time.Time, ended bool) (full bool) {
	w.lengths, full = c.session.PollEach(now, b.arena[b.used:], w.largest(), w.lengths[:0])
	for _, n := range w.lengths {
		msg := b.arena[b.used : b.used+n]
		if ended {
			c.farewell = bytes.Clone(msg)
		}
		if !b.add(c, msg) {
			b.packets[len(b.packets)-1].Addr = w.address(c, msg)
		}
	}
	return full || b.full()
}

// overdue reports whether the peer has not proven its address in time.
func (w *writer) overdue(c *carrier, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return c.unproven != nil && now.Sub(c.begun) >= provingTime
}

// schedule has a carrier polled at a time, or never, but while its peer is not proven
// when that is overdue.
func (w *writer) schedule(c *carrier, due time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.unproven != nil {
		if last := c.begun.Add(provingTime); due.IsZero() || due.After(last) {
			due = last
		}
	}
	w.timers.Set(&c.timer, due)
}

// largest returns how large a message may be, for the probes of the path's MTU.
func (s *socket) largest() int {
	if n := len(s.sizes); n > 0 {
		return s.sizes[n-1]
	}
	return 0
}

// address returns where a session's messages go, of which msg is one.
func (w *writer) address(c *carrier, msg []byte) net.Addr {
	remote, _, _ := wire.PeekDest(msg)
	w.mu.Lock()
	defer w.mu.Unlock()
	if remote != c.remote {
		delete(w.sessions.byRemote, c.remote)
		c.remote = remote
		w.sessions.byRemote[remote] = c
	}
	if w.conn.Connected() {
		return nil
	}
	return c.peer
}

// later has a carrier polled after those that wait for it already.
func (s *socket) later(c *carrier) {
	s.mu.Lock()
	s.enqueue(c)
	s.mu.Unlock()
}

// flush writes a burst, and those that are queued meanwhile, one after the other.
func (w *writer) flush(b *burst) {
	for w.write(b); w.follows(); w.write(b) {
		b = <-w.next
	}
}

// write writes a burst and releases the carriers whose last messages were in it.
func (w *writer) write(b *burst) {
	if len(b.packets) > 0 {
		// A socket that is closed is the reader's to report.
		_ = w.conn.Write(b.packets)
	}
	for i := range b.packets {
		if b.packets[i].Err != nil {
			w.refuse(b.owners[i], &b.packets[i])
		}
	}
	for _, c := range b.ended {
		w.leave(c)
		c.last = w.release()
		close(c.over)
	}
	b.recycle()
}

// refuse notes that the system did not send a packet. What cannot leave at the moment, for want
// of a route or of memory, is lost as packets are, and told if the session ends of it. The rest is
// for whoever polls next: the session may want to be polled itself then, and who writes must not wait
// for a burst to be written.
func (w *writer) refuse(c *carrier, p *udpsock.Packet) {
	r := refusal{carrier: c, session: c.session}
	switch {
	case udpsock.TooLarge(p.Err):
		r.fits = below(p.Segment)
	case udpsock.Refused(p.Err) && w.conn.Connected():
		r.err = refusedError(p.Err)
	default:
		err := p.Err
		c.hindrance.Store(&err)
		if !w.dialled() || !udpsock.Unroutable(err) {
			return
		}
	}
	w.flushing.Lock()
	w.refusals = append(w.refusals, r)
	w.flushing.Unlock()
	w.signal()
}

// tellRefusals tells sessions what was noted.
func (w *writer) tellRefusals() {
	w.flushing.Lock()
	all := w.refusals
	w.refusals = nil
	w.flushing.Unlock()
	for _, r := range all {
		switch {
		case r.fits > 0:
			r.session.LimitMessage(r.fits)
		case r.err != nil:
			r.session.Fail(r.err)
		default:
			w.follow(r.carrier, r.session)
		}
	}
}

// follow has the socket of a dialled session leave from the address that this host has now. If that cannot
// be, the session ends, and its Conn dials from there.
func (w *writer) follow(c *carrier, s *session.Session) {
	switch moved, err := w.conn.Follow(); {
	case err != nil:
		s.Fail(err)
	case moved:
		s.Roamed(time.Now())
		w.later(c)
	}
}
