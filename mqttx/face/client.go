package face

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/mqttclient"
	"github.com/pixferry/pixferry/internal/sleep"
	"github.com/pixferry/pixferry/transport"
)

const (
	replyTime = 10 * time.Second // of the broker, to a subscription
	retryTime = 5 * time.Second  // after a subscription that has failed
	closeTime = 250 * time.Millisecond
)

// A client is an MQTT client that subscribes whenever it is connected.
type client struct {
	broker     string // for people
	id         string // of the client
	filters    map[string]byte
	client     mqtt.Client
	ledger     *ledger
	log        *slog.Logger
	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	once       sync.Once
	token      *mqtt.ConnectToken // set when connecting is closed
	connecting chan struct{}
	turn       chan struct{} // capacity 1: full while somebody hands a message to client
	tries      int           // to reconnect, since the last connection; paho's reconnecting goroutine has it

	mu    sync.Mutex
	lives int           // connections so far
	up    chan struct{} // closed while the client is connected and subscribed
	isUp  bool
	err   error // of the first connection; final
	why   error // there is no connection; nil: nobody knows
	dead  chan struct{}
}

// connect returns a client that is connected and subscribed. deliver gets what is
// published to the filters, in order, and tooLarge hears of what was dropped; they must not block.
func (t *Transport) connect(ctx context.Context, filters []string, deliver func(mqtt.Message), tooLarge func(topic string, size int)) (*client, error) {
	settings := mqttclient.Settings{Broker: t.Broker, Options: t.ClientOptions}
	o, err := settings.ClientOptions()
	if err != nil {
		return nil, err
	}
	c := &client{
		broker: mqttclient.Name(o.Servers[0]), filters: make(map[string]byte, len(filters)),
		up: make(chan struct{}), dead: make(chan struct{}), connecting: make(chan struct{}), turn: make(chan struct{}, 1),
	}
	c.log = t.logger().With("broker", c.broker)
	for _, f := range filters {
		c.filters[f] = 1
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	o.ClientID = cmp.Or(t.ClientID, o.ClientID, "face-"+rand.Text()[:18]) // 3.1.1 brokers need take no more than 23 bytes
	// Without a session the broker keeps nothing of what is not acknowledged, and delivers little beyond it
	// (mosquitto: 20 messages), to all terminals together.
	o.SetCleanSession(t.ClientID == "").SetAutoAckDisabled(t.ClientID != "")
	c.id = o.ClientID
	// What a session has waiting comes before a subscription could have a handler.
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { deliver(m) })
	c.ledger = newLedger(o.Store, c.log)
	o.SetStore(c.ledger)
	o.OnConnect = func(mqtt.Client) { c.connected() }
	o.OnConnectionLost = func(_ mqtt.Client, err error) { c.lost(err) }
	o.OnReconnecting = func(mqtt.Client, *mqtt.ClientOptions) { c.pause() }
	o.OnConnectionNotification = func(_ mqtt.Client, n mqtt.ConnectionNotification) {
		if failed, ok := n.(mqtt.ConnectionNotificationFailed); ok {
			c.cannot(mqttclient.ConnectError(c.broker, failed.Reason))
		}
	}
	mqttclient.Open(c.ctx, o, &mqttclient.Owner{Bound: func([]byte) int { return t.maxPayload() }, Dropped: tooLarge})
	c.client = mqtt.NewClient(o)
	c.token = c.client.Connect().(*mqtt.ConnectToken)
	close(c.connecting)
	go func() {
		if <-c.token.Done(); c.token.Error() != nil {
			c.fail(mqttclient.ConnectError(c.broker, c.token.Error()))
		}
	}()
	if err := c.wait(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// connected subscribes. It runs on a goroutine of its own.
func (c *client) connected() {
	c.mu.Lock()
	c.down()
	c.lives++
	life := c.lives
	c.mu.Unlock()
	for !c.begin(life) {
		if sleep.For(c.ctx, retryTime) != nil {
			return
		}
	}
}

// begin subscribes, and reports whether there is nothing more to do about it.
func (c *client) begin(life int) bool {
	err := c.subscribe()
	usable := err == nil || life == 1 && c.resumed()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.lives != life: // it is another connection's turn
		return true
	case usable && !c.isUp:
		c.log.Info("connected to the broker")
		c.isUp, c.why = true, nil
		close(c.up)
	case err != nil && life == 1 && !usable:
		c.failLocked(err)
		return true
	}
	if err != nil && !mqttclient.Same(c.why, err) {
		c.log.Error("cannot subscribe at the moment", "err", err)
	}
	c.why = err
	return err == nil
}

// cannot notes why the client cannot connect. The first failure is Dial's or Listen's to tell.
func (c *client) cannot(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lives > 0 && !mqttclient.Same(c.why, err) {
		c.log.Warn("cannot connect at the moment", "err", err)
	}
	c.why = err
}

// resumed reports whether the broker has kept the session, and the subscriptions in it.
// Some (mochi) take the packet IDs of the messages in it for the client's own, and refuse
// to subscribe until the messages are dealt with.
func (c *client) resumed() bool {
	<-c.connecting
	<-c.token.Done()
	return c.token.SessionPresent()
}

func (c *client) subscribe() error {
	token := c.client.SubscribeMultiple(c.filters, nil).(*mqtt.SubscribeToken)
	select {
	case <-token.Done():
	case <-c.ctx.Done():
		return transport.ErrClosed
	case <-time.After(replyTime):
		return fmt.Errorf("no answer from the broker %s for %v", c.broker, replyTime)
	}
	if err := token.Error(); err != nil && len(token.Result()) == 0 {
		return fmt.Errorf("cannot subscribe at the broker %s: %w", c.broker, err)
	}
	for topic, code := range token.Result() {
		if code > 2 {
			return mqttclient.Denied(c.broker, c.id, topic)
		}
	}
	return nil
}

// down notes that the client is not connected.
func (c *client) down() {
	if c.isUp {
		c.isUp, c.up = false, make(chan struct{})
	}
}

func (c *client) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client.IsConnectionOpen() {
		return // it is told late
	}
	c.down()
	c.lives++
	c.tries = 0
	c.log.Warn("the connection to the broker was lost", "err", err)
}

// pause waits before the client tries to reconnect.
func (c *client) pause() {
	c.mu.Lock()
	try := c.tries
	c.tries++
	c.mu.Unlock()
	mqttclient.Pause(c.ctx, try)
}

func (c *client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

func (c *client) failLocked(err error) {
	if c.err == nil {
		c.err = err
		close(c.dead)
	}
}

// wait waits until the client is connected and subscribed.
func (c *client) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	up, err := c.up, c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-up:
		return nil
	case <-c.dead:
		return c.err
	case <-c.ctx.Done():
		return transport.ErrClosed
	case <-ctx.Done():
		return c.absent(ctx.Err())
	}
}

// absent is the end of a context while there is no connection, in the words of what else is known.
func (c *client) absent(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		return fmt.Errorf("%w: there is no connection to the broker %s", err, c.broker)
	}
	return fmt.Errorf("%w: %s", err, c.why.Error())
}

// publish waits until the client is connected, and then until the message is written
// (QoS 0) or the broker has it (QoS 1). A message whose context has ended may be on its
// way already.
func (c *client) publish(ctx context.Context, topic string, qos byte, payload []byte) error {
	if err := c.wait(ctx); err != nil {
		return err
	}
	select { // the client sends none that has waited for longer than a write may take, but keeps it
	case c.turn <- struct{}{}:
	case <-c.ctx.Done():
		return transport.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := c.wait(ctx); err != nil { // the connection was lost meanwhile
		<-c.turn
		return err
	}
	done := make(chan error, 1)
	go func() {
		token := c.client.Publish(topic, qos, false, payload).(*mqtt.PublishToken)
		<-c.turn
		done <- c.ledger.wait(c.ctx, token)
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("publish at the broker %s: %w", c.broker, err)
		}
		return nil
	case <-c.ctx.Done():
		return transport.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close disconnects the client for good.
func (c *client) close() {
	c.once.Do(func() {
		c.fail(transport.ErrClosed)
		if c.client.IsConnectionOpen() {
			c.client.Disconnect(uint(closeTime.Milliseconds()))
		}
		c.cancel()
		c.client.Disconnect(0)
	})
}
