package mqttx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/mqttclient"
	"github.com/pixferry/pixferry/transport"
)

const (
	// joinTime is how long Dial and Listen wait for the client to be connected.
	joinTime = 10 * time.Second

	// replyTime is how long the broker may take to answer a subscription.
	replyTime = 10 * time.Second

	// shortLife is how long a connection lives at most that another client with the
	// same ID ends. After suspectShort of these in a row one with a name asks whether there is
	// one, as a broker may have crashed as often, and maxShort are proof enough.
	shortLife    = 5 * time.Second
	suspectShort = 3
	maxShort     = 10

	// witnessTime is for a witness to connect, the client after it, a short life, and the pause after that.
	witnessTime = rivalTime + 10*time.Second + shortLife + 5*time.Second
)

// connected subscribes anew. It runs on a goroutine of its own.
func (h *Hub) connected(c mqtt.Client) {
	defer h.forsake(c)
	if h.failure() != nil {
		return
	}
	h.down() // the user may have disconnected, which nobody is told
	h.mu.Lock()
	h.client, h.since, h.why = c, time.Now(), nil
	h.lives++
	life := h.lives
	h.mu.Unlock()

	if h.named {
		h.presence.claim(c) // first, so that we do not answer for another
	}
	err := h.subscribe(c, inboxFilter(h.name), h.sessions.receive)
	for err != nil && !h.hopeless(err) && h.living(life) && c.IsConnectionOpen() { // the broker is late, or refuses for a while
		h.cannot(err)
		h.pause(nil, time.Second)
		err = h.subscribe(c, inboxFilter(h.name), h.sessions.receive)
	}
	if err != nil && h.hopeless(err) {
		h.fail(err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil || c.IsConnectionOpen() { // else the end of the connection is all that it says
		h.why = err
	}
	if err != nil || !h.present(life) {
		return
	}
	if h.worked {
		h.log.Info("the broker can be used again")
	}
	h.isUp, h.worked = true, true
	close(h.up)
	if h.own != nil {
		h.pump.connected(fastLane{h.own.opener.Lane()}) // of this connection, which was not lost yet
	} else {
		h.pump.connected(slowLane{c})
	}
}

// forsake takes back what a hub that has ended is subscribed to, on a client that lives on: in a session that the
// broker has kept, or by a connection that began meanwhile.
func (h *Hub) forsake(c mqtt.Client) {
	if h.own == nil && h.failure() != nil {
		c.Unsubscribe(inboxFilter(h.name), presenceTopic(h.name))
	}
}

// living reports whether the connection of that number is the present one.
func (h *Hub) living(life int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.present(life)
}

// present is living, with the mutex held.
func (h *Hub) present(life int) bool { return h.lives == life && !h.since.IsZero() && h.err == nil }

// subscribe returns when the broker has agreed.
func (h *Hub) subscribe(c mqtt.Client, filter string, handler mqtt.MessageHandler) error {
	token := c.Subscribe(filter, 0, handler).(*mqtt.SubscribeToken)
	if !h.pause(token.Done(), replyTime) {
		return fmt.Errorf("no answer from the broker %s for %v", h.broker, replyTime)
	}
	if token.Error() != nil {
		return token.Error()
	}
	for _, code := range token.Result() {
		if code > 2 {
			return mqttclient.Denied(h.broker, h.name, filter)
		}
	}
	return nil
}

// pause waits for an event, for the hub's failure or for a time, and reports whether the
// event came.
func (h *Hub) pause(event <-chan struct{}, most time.Duration) bool {
	select {
	case <-event:
		return true
	case <-h.dead:
	case <-time.After(most):
	}
	return false
}

// down notes that the client is not connected, and returns for how long it was; 0: that
// is known.
func (h *Hub) down() (life time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() {
		return 0
	}
	life = max(time.Since(h.since), 1)
	h.since = time.Time{}
	if h.isUp {
		h.isUp, h.up = false, make(chan struct{})
	}
	h.pump.connected(nil)
	return life
}

// lost notes that the connection has ended.
func (h *Hub) lost() {
	life := h.down()
	if life == 0 {
		return
	}
	limited := h.sizes.lost(time.Now())
	h.mu.Lock()
	h.short++
	if life >= shortLife || limited {
		h.short = 0
	}
	taken := h.short >= maxShort && !h.sole
	h.mu.Unlock()
	if taken {
		h.fail(fmt.Errorf("the broker %s has ended %d connections in a row at once; if it lets %s: %w", h.broker, maxShort, h.wants(), transport.ErrClientIDTaken))
	}
}

// failed notes why the client cannot connect.
func (h *Hub) failed(err error) {
	if h.own != nil && h.own.ctx.Err() != nil {
		return // its end
	}
	if err = mqttclient.ConnectError(h.broker, err); h.own != nil && h.hopeless(err) {
		h.fail(err)
		return
	}
	h.cannot(err)
	h.mu.Lock()
	defer h.mu.Unlock()
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		h.short = 0 // the broker is away, which is why the last connections were short
	}
}

// fail ends everything for good.
func (h *Hub) fail(err error) {
	h.mu.Lock()
	if h.err != nil {
		h.mu.Unlock()
		return
	}
	h.err = err
	close(h.dead)
	l := h.listener
	h.mu.Unlock()
	if !errors.Is(err, transport.ErrClosed) && !h.told() {
		h.log.Warn("the name cannot be used any more", "err", err)
	}
	h.pump.connected(nil)
	if l != nil {
		go l.Fail(err)
	}
	h.sessions.fail(err)
	go h.end()
}

// end gives back what the hub has of the broker's, and its own client.
func (h *Hub) end() {
	h.ending.Do(func() {
		h.mu.Lock()
		client := h.client
		h.mu.Unlock()
		if client != nil && client.IsConnectionOpen() {
			h.pump.flush()
			h.sessions.answered()
			if h.own == nil {
				client.Unsubscribe(inboxFilter(h.name)).WaitTimeout(flushTime)
			}
			h.presence.withdraw(client)
		}
		if h.own != nil {
			h.own.end()
		}
	})
}

// failure returns why the hub can do no more, nil while it can.
func (h *Hub) failure() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// connection returns the client, nil if there was none yet or the hub has failed.
func (h *Hub) connection() mqtt.Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return nil
	}
	return h.client
}

// hopeless reports whether the broker refuses for good. One that has agreed before may be starting, or is being set up.
func (h *Hub) hopeless(err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !transport.Retryable(err) && !h.worked
}

// told reports whether a failure is the answer of the Dial or Listen that made the hub, and so nothing for the log.
func (h *Hub) told() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.own != nil && !h.worked
}

// cannot notes why the broker cannot be used at the moment.
func (h *Hub) cannot(err error) {
	quiet := h.told()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !quiet && !mqttclient.Same(h.why, err) {
		h.log.Warn("the broker cannot be used", "err", err)
	}
	h.why = err
}

// shortLives returns how many of the last connections were short, in a row.
func (h *Hub) shortLives() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.short
}

// forgive has the short connections so far not count: the broker has crashed as often.
func (h *Hub) forgive() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.short = 0
}

// hindrance returns why nothing can be sent at present, nil if it can.
func (h *Hub) hindrance() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isUp || h.err != nil {
		return nil
	}
	return cmp.Or(h.reason(), fmt.Errorf("there is no connection to the broker %s", h.broker))
}

// reason returns why there is no connection, nil if nobody knows. The mutex is held.
func (h *Hub) reason() error {
	if h.why != nil || h.short == 0 {
		return h.why
	}
	return fmt.Errorf("the broker %s has ended the last connection at once: it does not let %s, or another client has its ID", h.broker, h.wants())
}

// wants is what a broker must allow. RabbitMQ, for one, ends a connection that wants more, and does not say why.
func (h *Hub) wants() string {
	wants := fmt.Sprintf("%q read %s or write %s+/%s", h.name, inboxFilter(h.name), inboxPrefix, encodeName(h.name))
	if h.named {
		wants += " or use " + presenceTopic(h.name)
	}
	return wants
}

// connectedSince returns when the client was connected, zero if it is not.
func (h *Hub) connectedSince() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.isUp {
		return time.Time{}
	}
	return h.since
}

// hold takes a reference. It returns false if the hub has failed, or its own client
// is not needed any more.
func (h *Hub) hold() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return false
	}
	h.refs++
	return true
}

// release gives a reference up. With the last one a client of the hub's own is
// disconnected.
func (h *Hub) release() {
	h.mu.Lock()
	h.refs--
	last := h.refs == 0 && h.own != nil
	if last && h.err == nil {
		h.err = transport.ErrClosed
		close(h.dead)
	}
	h.mu.Unlock()
	if last {
		h.end()
	}
}

// join waits until the client is connected and subscribed.
func (h *Hub) join(ctx context.Context) error {
	patience := time.After(joinTime)
	for {
		h.mu.Lock()
		up, isUp, err := h.up, h.isUp, h.err
		h.mu.Unlock()
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return h.absent(fmt.Errorf("%w: there is no connection to the broker %s", ctx.Err(), h.broker))
		case isUp:
			return nil
		}
		select {
		case <-up:
		case <-h.dead:
		case <-ctx.Done():
		case <-patience:
			return h.absent(fmt.Errorf("there is no connection to the broker %s after %v", h.broker, joinTime))
		}
	}
}

// absent adds to an error what is known of why there is no connection.
func (h *Hub) absent(err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch why := h.reason(); {
	case why != nil:
		return fmt.Errorf("%w: %w", err, why)
	case h.own == nil && h.lives == 0:
		return fmt.Errorf("%w: call mqttx.Attach before mqtt.NewClient, set no handlers in its options after that, and call the client's Connect", err)
	}
	return err
}
