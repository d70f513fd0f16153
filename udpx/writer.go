package udpx

import (
	"bytes"
	"time"

	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/internal/wire"
)

const (
	// arenaSize is how much is written at once: two trains.
	arenaSize = 2 << 16
	// batchPackets is how many packets are written at once, or a few more.
	batchPackets = 64
)

// writer polls sessions, writes what they say and keeps their timers. It has a goroutine;
// the reader takes its place for the answers to what it has just read, and who wakes it for
// what it has been woken for, to spare that the way through another goroutine.
type writer struct {
	*socket
	turn    chan struct{} // holds a token while somebody uses what follows
	arena   []byte
	used    int
	packets []udpsock.Packet
	owners  []*carrier // of packets
	lengths []int      // of messages, scratch
	timer   *time.Timer
	ended   []*carrier // to be released after the next write
}

func newWriter(s *socket) *writer {
	return &writer{socket: s, turn: make(chan struct{}, 1), arena: make([]byte, arenaSize), timer: time.NewTimer(time.Hour)}
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

// help writes one batch, unless somebody is at it, and leaves the rest to the goroutine.
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

// work writes a batch of what sessions say and reports whether there may be more.
func (w *writer) work() (more bool) {
	defer w.flush()
	for {
		c := w.next()
		if c == nil {
			return false
		}
		if w.poll(c) {
			return true
		}
	}
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
	if due := w.timers.next(); !due.IsZero() && (w.alarm.IsZero() || due.Before(w.alarm)) {
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

// next returns a carrier to poll now, nil if there is none.
func (s *socket) next() (c *carrier) {
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
			if c = s.timers.expired(time.Now()); c == nil {
				return nil
			}
		}
		if c.session != nil {
			return c
		}
		if c.timer < 0 { // its farewell has been there for long enough
			s.remove(c)
		}
	}
}

// poll takes messages from a session until it has none or the batch is full, which it
// reports.
func (w *writer) poll(c *carrier) (full bool) {
	if c.ending {
		return false
	}
	s, now := c.session, time.Now()
	if w.overdue(c, now) {
		s.Fail(errUnproven)
	}
	ended := s.Err() != nil
	if w.take(c, now, ended) {
		w.later(c)
		return true
	}
	due := s.Deadline()
	if !due.IsZero() && !due.After(now) {
		s.Advance(now)
		if w.take(c, now, ended) {
			w.later(c)
			return true
		}
		due = s.Deadline()
	}
	if ended {
		c.ending = true
		w.ended = append(w.ended, c)
	} else {
		w.schedule(c, due)
	}
	return false
}

// take adds a session's messages to the batch and reports whether it is full.
func (w *writer) take(c *carrier, now time.Time, ended bool) (full bool) {
	var p *udpsock.Packet // the train that grows
	if last := len(w.packets) - 1; last >= 0 && w.owners[last] == c {
		p = &w.packets[last]
	}
	w.lengths, full = c.session.PollEach(now, w.arena[w.used:], w.largest(), w.lengths[:0])
	for _, n := range w.lengths {
		msg := w.arena[w.used : w.used+n]
		w.used += n
		if ended {
			c.farewell = bytes.Clone(msg)
		}
		if p != nil && joins(p, n) {
			p.Data = p.Data[:len(p.Data)+n]
		} else {
			p = w.begin(c, msg)
		}
	}
	return full || len(w.packets) >= batchPackets
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
	w.timers.set(c, due)
}

// largest returns how large a message may be, for the probes of the path's MTU.
func (s *socket) largest() int {
	if n := len(s.sizes); n > 0 {
		return s.sizes[n-1]
	}
	return 0
}

// joins reports whether a message of n bytes may lengthen the train p. Only the last of a
// train may be shorter than the others.
func joins(p *udpsock.Packet, n int) bool {
	size := len(p.Data)
	return n <= p.Segment && size%p.Segment == 0 && size/p.Segment < udpsock.MaxTrain && size+n <= udpsock.MaxDatagram
}

// begin makes a packet of a message.
func (w *writer) begin(c *carrier, msg []byte) *udpsock.Packet {
	remote, _, _ := wire.PeekDest(msg)
	w.mu.Lock()
	peer := c.peer
	if remote != c.remote {
		delete(w.sessions.byRemote, c.remote)
		c.remote = remote
		w.sessions.byRemote[remote] = c
	}
	w.mu.Unlock()
	if w.conn.Connected() {
		peer = nil
	}
	w.packets = append(w.packets, udpsock.Packet{Data: msg, Segment: len(msg), Addr: peer})
	w.owners = append(w.owners, c)
	return &w.packets[len(w.packets)-1]
}

// later has a carrier polled again after the others.
func (w *writer) later(c *carrier) {
	w.mu.Lock()
	w.enqueue(c)
	w.mu.Unlock()
}

// flush writes the batch and releases the carriers whose last messages were in it.
func (w *writer) flush() {
	if len(w.packets) > 0 {
		// A socket that is closed is the reader's to report.
		_ = w.conn.Write(w.packets)
		for i := range w.packets {
			if err := w.packets[i].Err; err != nil {
				w.refused(w.owners[i], &w.packets[i])
			}
		}
		clear(w.packets)
		clear(w.owners)
		w.packets, w.owners, w.used = w.packets[:0], w.owners[:0], 0
	}
	for _, c := range w.ended {
		w.leave(c)
		c.last = w.release()
		close(c.over)
	}
	clear(w.ended)
	w.ended = w.ended[:0]
}

// refused handles a packet that the system did not send. What cannot leave at the
// moment, for want of a route or of memory, is lost as packets are.
func (w *writer) refused(c *carrier, p *udpsock.Packet) {
	switch {
	case udpsock.TooLarge(p.Err):
		c.session.LimitMessage(below(p.Segment))
	case udpsock.Refused(p.Err) && w.conn.Connected():
		c.session.Fail(refusedError(p.Err))
	}
}
