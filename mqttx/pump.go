package mqttx

import (
	"slices"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/mqttclient"
	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/timers"
)

const (
	// inFlight is how many messages of all sessions wait for the client at once.
	// Each holds memory, and what is urgent waits behind them.
	inFlight = 4

	flushTime = time.Second // an orderly end takes at most so long
	restTime  = time.Second // without messages; then the memory for them is given up
)

// A pump writes for all sessions of a hub. One goroutine keeps their timers and polls
// those that may have a message, in turn; another hands the messages to the MQTT
// client, whose Publish may block. Both run while there are sessions.
type pump struct {
	sizes *sizes
	wake  chan struct{} // has a token when the pump is to look again
	free  chan *slot
	used  time.Time // when run took a slot last; zero: none has memory

	mu       sync.Mutex
	medium   medium     // nil while the client is not connected
	full     chan *slot // to the publisher; nil: nothing runs
	carriers int
	queue    []*carrier // to be polled
	timers   timers.Heap[*carrier]
}

// A medium takes messages. Whether they arrive it does not say.
type medium interface {
	// send may block.
	send(s *slot)
}

// fastLane is a client of ours.
type fastLane struct{ *mqttclient.Lane }

func (l fastLane) send(s *slot) { l.Publish(s.topic, s.Head, s.Payload, s.Tail) }

// slowLane is a client that is the user's, which takes whole messages only.
type slowLane struct{ client mqtt.Client }

func (l slowLane) send(s *slot) {
	s.token = l.client.Publish(s.topic, 0, false, s.Head)
}

// A slot holds a message on its way to the medium.
type slot struct {
	session.Parts // in buf, and lent
	buf           []byte
	topic         string
	medium        medium
	token         mqtt.Token // of a client's last message that may still be in buf, or nil
}

// size makes the slot's buffer hold n bytes. A buffer that the client may still read
// is left to it.
func (s *slot) size(n int) {
	if s.token != nil {
		select {
		case <-s.token.Done():
		default:
			s.buf = nil
		}
		s.token = nil
	}
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	s.buf = s.buf[:n]
}

func newPump(z *sizes) *pump {
	p := &pump{sizes: z, wake: make(chan struct{}, 1), free: make(chan *slot, inFlight)}
	for range inFlight {
		p.free <- new(slot)
	}
	return p
}

func (p *pump) signal() { notify(p.wake) }

// add takes a carrier in.
func (p *pump) add(c *carrier) {
	p.mu.Lock()
	p.carriers++
	c.running = true
	if p.full == nil {
		p.full = make(chan *slot, inFlight)
		go p.run()
		go p.publish(p.full)
	}
	p.mu.Unlock()
	p.ready(c)
}

// ready has a session polled.
func (p *pump) ready(c *carrier) {
	p.mu.Lock()
	if !c.queued && c.running {
		c.queued = true
		p.queue = append(p.queue, c)
	}
	if c.running && c.ending.IsZero() && c.session.Err() != nil {
		c.ending = time.Now()
		p.timers.Set(&c.timer, c.ending.Add(flushTime))
	}
	p.mu.Unlock()
	p.signal()
}

// connected notes what takes messages now, or nil.
func (p *pump) connected(m medium) {
	p.mu.Lock()
	p.medium = m
	p.mu.Unlock()
	p.signal()
}

// run serves the sessions until there are none.
func (p *pump) run() {
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for {
		p.advance(time.Now())
		ended, free, due := p.look()
		if ended != nil {
			p.drop(ended)
			continue
		}
		if p.finished() {
			return
		}
		if free == nil {
			due = p.rest(time.Now(), due)
		}
		alarm.Stop()
		if !due.IsZero() {
			alarm.Reset(time.Until(due))
		}
		select {
		case s := <-free:
			p.used = time.Now()
			p.fill(s)
		case <-p.wake:
		case <-alarm.C:
		}
	}
}

// advance runs the timers that are due.
func (p *pump) advance(now time.Time) {
	for {
		p.mu.Lock()
		c := p.timers.Expired(now)
		late := c != nil && !c.ending.IsZero()
		p.mu.Unlock()
		switch {
		case c == nil:
			return
		case late: // it may have more to say, but not for ever
			p.drop(c)
		default:
			c.advance()
			p.ready(c)
		}
	}
}

// look finds what is to be done: a session that has ended while the client is not
// connected, slots to wait for because somebody waits to be polled, or the next timer.
func (p *pump) look() (ended *carrier, free <-chan *slot, due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.medium == nil {
		for _, c := range p.queue {
			if c.session.Err() != nil {
				return c, nil, time.Time{}
			}
			p.timers.Set(&c.timer, c.deadline())
		}
	} else if len(p.queue) > 0 {
		free = p.free
	}
	return nil, free, p.timers.Next()
}

// rest gives up the memory of slots that have not been used for a while, as of many clients most are idle. It returns when
// it is to be called again, or due if that is earlier.
func (p *pump) rest(now, due time.Time) time.Time {
	if p.used.IsZero() {
		return due
	}
	if len(p.free) < inFlight { // the medium has one still
		p.used = now
	}
	if again := p.used.Add(restTime); now.Before(again) {
		if due.IsZero() || again.Before(due) {
			return again
		}
		return due
	}
	p.used = time.Time{}
	p.letGo()
	return due
}

// letGo gives up the memory of the slots that are free.
func (p *pump) letGo() {
	for range inFlight {
		select {
		case s := <-p.free:
			s.buf = nil
			p.free <- s
		default: // somebody has it
		}
	}
}

// finished ends the publisher if there are no sessions any more.
func (p *pump) finished() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.carriers > 0 {
		return false
	}
	close(p.full)
	p.full = nil
	return true
}

// fill puts the next message of the session whose turn it is into a slot.
func (p *pump) fill(s *slot) {
	p.mu.Lock()
	if len(p.queue) == 0 || p.medium == nil {
		p.mu.Unlock()
		p.free <- s
		return
	}
	c := p.queue[0]
	p.queue = p.queue[1:]
	c.queued = false
	s.medium = p.medium
	full := p.full
	p.mu.Unlock()

	if c.poll(s) {
		full <- s
		p.ready(c)
		return
	}
	p.free <- s
	if c.session.Err() != nil {
		p.drop(c)
		return
	}
	due := c.deadline()
	p.mu.Lock()
	if c.ending.IsZero() {
		p.timers.Set(&c.timer, due)
	}
	p.mu.Unlock()
}

// drop forgets a session that has ended.
func (p *pump) drop(c *carrier) {
	p.mu.Lock()
	c.running = false
	p.queue = slices.DeleteFunc(p.queue, func(q *carrier) bool { return q == c })
	p.timers.Set(&c.timer, time.Time{})
	p.mu.Unlock()
	c.over()
	p.mu.Lock()
	p.carriers--
	p.mu.Unlock()
}

// publish hands messages to the client. What the client loses the sessions repair.
func (p *pump) publish(full <-chan *slot) {
	defer p.letGo() // the last session may have ended before its time of rest
	for s := range full {
		began := time.Now()
		s.medium.send(s)
		if n := s.Len(); n > firstSize && time.Since(began) > slowTime {
			p.sizes.refused(n)
		}
		s.Release()
		p.free <- s
	}
}

// flush returns when all messages are written, but soon.
func (p *pump) flush() {
	patience := time.After(flushTime)
	var slots []*slot
	defer func() {
		for _, s := range slots {
			p.free <- s
		}
	}()
	for range inFlight {
		select {
		case s := <-p.free:
			slots = append(slots, s)
			if s.token != nil {
				select {
				case <-s.token.Done():
				case <-patience:
					return
				}
			}
		case <-patience:
			return
		}
	}
}
