package mqttx

import (
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/wire"
)

const (
	// maxOpening is how many sessions that peers have begun may be not yet
	// established; the first message of one more is lost.
	maxOpening = 256

	// maxAnswering is how many answers to messages of unknown sessions may wait for the client.
	maxAnswering = 8
)

// sessions finds the session that a message is for.
type sessions struct {
	h         *Hub
	answering chan struct{} // has a token for each answer that waits for the client

	mu       sync.Mutex
	byID     map[wire.ConnID]*carrier // by this side's ID
	byFirst  map[firstID]*carrier
	opening  int
	refusals session.Refusals
}

func (t *sessions) init(h *Hub) {
	t.h, t.byID, t.byFirst = h, make(map[wire.ConnID]*carrier), make(map[firstID]*carrier)
	t.answering = make(chan struct{}, maxAnswering)
}

// open counts a session that a peer begins. It returns false if there is no room.
func (t *sessions) open(c *carrier) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.opening >= maxOpening {
		return false
	}
	t.opening++
	c.opening = true
	return true
}

// opened notes that such a session is established, or has ended.
func (t *sessions) opened(c *carrier) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.opening {
		c.opening = false
		t.opening--
	}
}

// enter adds a carrier whose session begins.
func (t *sessions) enter(c *carrier) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID[c.session.CID()] = c
	if !c.dialled {
		t.byFirst[c.first] = c
	}
}

// leave forgets a carrier.
func (t *sessions) leave(c *carrier) {
	t.opened(c)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, c.session.CID())
	if !c.dialled {
		delete(t.byFirst, c.first)
	}
}

// all returns the carriers for which take holds.
func (t *sessions) all(take func(*carrier) bool) []*carrier {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*carrier
	for _, c := range t.byID {
		if take(c) {
			all = append(all, c)
		}
	}
	return all
}

func everyone(*carrier) bool { return true }

// fail ends all sessions.
func (t *sessions) fail(err error) {
	for _, c := range t.all(everyone) {
		c.session.Fail(err)
	}
}

// receive is the handler of the inbox, for what does not come over a lane.
func (t *sessions) receive(_ mqtt.Client, m mqtt.Message) {
	if !m.Retained() {
		t.take(m.Topic(), nil, m.Payload())
	}
}

// take takes a message that came, in the memory of from. It must not block.
func (t *sessions) take(topic string, from *session.Buffer, msg []byte) {
	peer, ok := sender(topic)
	if !ok {
		return
	}
	id, long, ok := wire.PeekDest(msg)
	if !ok {
		return
	}
	if id == 0 { // an answer from outside any session; who is meant knows
		for _, c := range t.all(func(c *carrier) bool { return c.peer == peer }) {
			c.deliver(from, msg)
		}
		return
	}
	t.mu.Lock()
	c := t.byID[id]
	if c == nil && long {
		c = t.byFirst[firstID{peer, id}]
	}
	t.mu.Unlock()
	switch {
	case c != nil && c.peer == peer:
		c.deliver(from, msg)
	case c != nil: // somebody who has overheard the ID
	case long:
		t.begin(peer, msg)
	default:
		t.refuse(peer, msg)
	}
}

// begin takes the first message of a session that a peer begins.
func (t *sessions) begin(peer string, msg []byte) {
	header, frames, err := wire.Parse(msg)
	if err != nil {
		t.refuse(peer, msg)
		return
	}
	if frame := wire.NewReader(frames); !frame.Next() || frame.Type != wire.TypeHello || checkTopic(peer, t.h.name) != nil {
		return
	}
	l := t.h.accepting()
	if l == nil {
		return
	}
	c := t.h.newCarrier(peer, &firstID{peer, header.Dest})
	c.heard.Store(true)
	if !t.open(c) {
		go t.h.release() // which may disconnect the client that this handler is of
		return
	}
	if _, err = t.h.endpoint.Accept(c, msg, func(conn *session.Conn) {
		t.opened(c)
		l.Ready(conn)
	}); err != nil {
		t.opened(c)
		go t.h.release()
	}
}

// refuse answers a message that belongs to no session, unless there were many lately.
func (t *sessions) refuse(peer string, msg []byte) {
	answer := session.Refuse(msg)
	client := t.h.connection()
	if answer == nil || checkTopic(peer, t.h.name) != nil || client == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case t.answering <- struct{}{}:
	default:
		return
	}
	if !t.refusals.Allowed(time.Now(), msg) { // asked last: who is allowed hears the answer
		<-t.answering
		return
	}
	go func() {
		client.Publish(inboxTopic(peer, t.h.name), 0, false, answer)
		<-t.answering
	}()
}

// answered waits until no answer waits for the client any more, but not long. There
// must be no new ones.
func (t *sessions) answered() {
	patience := time.After(flushTime)
	for range maxAnswering {
		select {
		case t.answering <- struct{}{}:
		case <-patience:
			return
		}
	}
}

// wait waits until all sessions have ended.
func (t *sessions) wait() {
	for _, c := range t.all(everyone) {
		c.Wait()
	}
}
