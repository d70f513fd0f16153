package mqttx

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/mqttclient"
	"github.com/pixferry/pixferry/internal/session"
)

// A baseLink is an MQTT client that reads one topic and writes another. What does not
// fit is dropped, as the medium itself may do: both ends repeat themselves.
type baseLink struct {
	in  chan []byte // what comes
	out chan []byte // what goes

	client    mqtt.Client
	broker    string // for people
	id        string // of the client
	publish   string
	subscribe string
	log       *slog.Logger

	opener  *mqttclient.Opener
	ctx     context.Context
	cancel  context.CancelFunc
	up      atomic.Pointer[mqttclient.Lane] // connected and subscribed, or nil
	why     atomic.Pointer[error]           // why it is not, nil if nobody knows
	joined  chan error                      // the result of the first subscription
	later   atomic.Bool                     // that was the first
	unclear seldom                          // messages that are none
	crowded seldom                          // messages that found no place
	tries   atomic.Int32                    // to reconnect
	wrote   chan struct{}                   // closed when write has returned
	once    sync.Once

	mu     sync.Mutex
	closed bool // and out with it
}

// baseQueue is how many messages wait on either way. Stop and wait needs two; bursts
// come from peers that do not wait.
const baseQueue = 64

// maxBaseMessage is more than any message of the protocol has.
const maxBaseMessage = 64 << 10

// dialBase returns when the client is connected and the broker has agreed to the
// subscription.
func dialBase(ctx context.Context, opts *mqtt.ClientOptions, publish, subscribe string, log *slog.Logger) (*baseLink, error) {
	l := &baseLink{
		in: make(chan []byte, baseQueue), out: make(chan []byte, baseQueue),
		broker: mqttclient.Name(opts.Servers[0]), id: opts.ClientID, publish: publish, subscribe: subscribe,
		joined: make(chan error, 1), wrote: make(chan struct{}),
	}
	l.log = log.With("broker", l.broker, "client", opts.ClientID)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.opener = mqttclient.Open(l.ctx, opts, &mqttclient.Owner{
		Mine: func(topic []byte) bool { return string(topic) == subscribe },
		Take: func(_ string, _ *session.Buffer, msg []byte) { l.take(bytes.Clone(msg)) },
		Most: maxBaseMessage,
	})
	l.chain(opts)
	l.client = mqtt.NewClient(opts)
	if err := l.join(ctx); err != nil {
		l.end(0)
		return nil, err
	}
	go l.write()
	return l, nil
}

// chain has the client tell the link what happens, before it tells the user's handlers.
func (l *baseLink) chain(o *mqtt.ClientOptions) {
	connected, lost, reconnecting, notify := o.OnConnect, o.OnConnectionLost, o.OnReconnecting, o.OnConnectionNotification
	o.OnConnectionNotification = func(c mqtt.Client, n mqtt.ConnectionNotification) {
		if failed, ok := n.(mqtt.ConnectionNotificationFailed); ok {
			l.failed(mqttclient.ConnectError(l.broker, failed.Reason))
		}
		if notify != nil {
			notify(c, n)
		}
	}
	o.OnConnect = func(c mqtt.Client) {
		l.subscribed(c)
		if connected != nil {
			connected(c)
		}
	}
	o.OnConnectionLost = func(c mqtt.Client, err error) {
		if !c.IsConnectionOpen() { // else it is told late
			l.up.Store(nil)
		}
		l.log.Info("the connection to the broker was lost", "err", err)
		if lost != nil {
			lost(c, err)
		}
	}
	o.OnReconnecting = func(c mqtt.Client, o *mqtt.ClientOptions) {
		l.up.Store(nil)
		mqttclient.Pause(l.ctx, int(l.tries.Add(1)-1))
		if reconnecting != nil {
			reconnecting(c, o)
		}
	}
}

// join connects for the first time.
func (l *baseLink) join(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	late := fmt.Errorf("no answer for %v", joinTime) // which is no end of the caller's context
	token := l.client.Connect()
	select {
	case <-token.Done():
		if err := token.Error(); err != nil {
			return mqttclient.ConnectError(l.broker, err)
		}
	case <-limited.Done():
		return fmt.Errorf("cannot connect to the broker %s: %w", l.broker, cmp.Or(ctx.Err(), late))
	}
	select {
	case err := <-l.joined:
		l.later.Store(true)
		return err
	case <-limited.Done():
		return fmt.Errorf("no answer to a subscription from the broker %s: %w", l.broker, cmp.Or(ctx.Err(), late))
	}
}

// subscribed subscribes, after each connecting. After the first time it goes on trying.
func (l *baseLink) subscribed(c mqtt.Client) {
	up := l.opener.Lane()
	err := l.ask(c)
	for n := 0; err != nil && l.later.Load() && c.IsConnectionOpen() && l.opener.Lane() == up && l.ctx.Err() == nil; n++ {
		l.failed(err)
		mqttclient.Pause(l.ctx, n)
		err = l.ask(c)
	}
	switch {
	case err == nil:
		if l.later.Load() {
			l.log.Info("the broker can be used again", "topic", l.subscribe)
		}
		l.why.Store(nil)
		l.up.Store(up)
		l.tries.Store(0)
	case l.opener.Lane() == up: // of a newer connection more is known
		l.failed(err)
	}
	select {
	case l.joined <- err:
	default:
	}
}

// ask subscribes and returns when the broker has agreed.
func (l *baseLink) ask(c mqtt.Client) error {
	token := c.Subscribe(l.subscribe, 0, l.receive).(*mqtt.SubscribeToken)
	select {
	case <-token.Done():
		if token.Error() == nil && token.Result()[l.subscribe] > 2 {
			return mqttclient.Denied(l.broker, l.id, l.subscribe)
		}
		return token.Error()
	case <-time.After(replyTime):
		return fmt.Errorf("no answer from the broker %s for %v", l.broker, replyTime)
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
}

// failed notes why there is no connection, or no subscription. The first failure is join's to tell.
func (l *baseLink) failed(err error) {
	if last := l.why.Swap(&err); l.later.Load() && (last == nil || !mqttclient.Same(*last, err)) {
		l.log.Warn("the broker cannot be used", "topic", l.subscribe, "err", err)
	}
}

// strange notes a message that is none. Anybody may write to the topic.
func (l *baseLink) strange(err error) {
	l.unclear.warn(l.log, "a message to BASE that is none", "err", err)
}

// receive is the handler of the subscription, for what does not come over the lane. A
// retained message is older than everything that is going on.
func (l *baseLink) receive(_ mqtt.Client, m mqtt.Message) {
	if !m.Retained() {
		l.take(m.Payload())
	}
}

// take keeps a message that came.
func (l *baseLink) take(p []byte) {
	select {
	case l.in <- p:
	default:
		l.crowded.warn(l.log, "too many messages at once: one was dropped", "topic", l.subscribe)
	}
}

// send publishes p, soon. It never blocks and keeps p.
func (l *baseLink) send(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	select {
	case l.out <- p:
	default:
	}
}

// write publishes until the link is closed, and then what is left.
func (l *baseLink) write() {
	defer close(l.wrote)
	for p := range l.out {
		if up := l.up.Load(); up != nil { // else an answer would be lost
			up.Publish(l.publish, p)
		}
	}
}

// close disconnects when what waits to be sent is out, or after a second.
func (l *baseLink) close() {
	l.once.Do(func() {
		l.mu.Lock()
		l.closed = true
		close(l.out)
		l.mu.Unlock()
		select {
		case <-l.wrote:
		case <-time.After(flushTime): // the client is stuck until its WriteTimeout
		}
		l.end(flushTime)
	})
}

func (l *baseLink) end(patience time.Duration) {
	if patience > 0 && l.client.IsConnectionOpen() {
		l.client.Disconnect(uint(patience.Milliseconds()))
	}
	l.cancel()
	l.client.Disconnect(0)
}
