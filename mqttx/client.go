package mqttx

import (
	"cmp"
	"context"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/mqttclient"
)

// options returns what a client of the Transport's is made with.
func (t *Transport) options(name string) (*mqtt.ClientOptions, error) {
	s := mqttclient.Settings{Broker: t.Broker, Username: t.Username, Password: t.Password, TLS: t.TLS, Options: t.ClientOptions}
	o, err := s.ClientOptions()
	if err != nil {
		return nil, err
	}
	o.ClientID = cmp.Or(o.ClientID, encodeName(name))
	return o.SetCleanSession(true), nil
}

// ownClient is the client of a Transport's hub. It lives as long as the hub.
type ownClient struct {
	h      *Hub
	client mqtt.Client
	opener *mqttclient.Opener
	ctx    context.Context // ends with the client
	cancel context.CancelFunc
	gone   chan struct{}               // closed when it is disconnected for good
	rival  func(context.Context) error // asks whether another has the name; nil: there is none
	tries  int                         // to reconnect, since the last connection that lasted

	call    func(context.Context) mqtt.Client // connects a witness, or returns nil
	witness mqtt.Client                       // of the present connection, under an ID of its own; nil: there is none
	present context.Context                   // for as long as it stands by
	dismiss context.CancelFunc                // ends it
}

func newOwnClient(h *Hub, o *mqtt.ClientOptions) *ownClient {
	c := &ownClient{h: h, gone: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	users := o.OnReconnecting
	o.OnReconnecting = func(client mqtt.Client, o *mqtt.ClientOptions) {
		c.pause()
		if users != nil {
			users(client, o)
		}
	}
	inbox := inboxTopic(h.name, "")
	c.opener = mqttclient.Open(c.ctx, o, &mqttclient.Owner{
		Mine: func(topic []byte) bool { return len(topic) > len(inbox) && string(topic[:len(inbox)]) == inbox },
		Take: h.sessions.take,
		Most: largestSize,

		Bound: boundPresence(h.name),
	})
	h.chain(o)
	c.client = mqtt.NewClient(o)
	return c
}

// connect begins to connect. A failure is the hub's.
func (c *ownClient) connect() {
	token := c.client.Connect()
	go func() {
		<-token.Done()
		if err := token.Error(); err != nil {
			c.h.fail(mqttclient.ConnectError(c.h.broker, err))
		}
	}()
}

// pause waits before the client tries to reconnect, and does not if another one has taken its place.
func (c *ownClient) pause() {
	if c.h.shortLives() == 0 {
		c.tries = 0
	}
	mqttclient.Pause(c.ctx, c.tries)
	c.tries++
	if c.witness != nil {
		if c.present.Err() == nil && !c.witness.IsConnectionOpen() { // the broker has ended all connections
			c.h.forgive()
		}
		c.dismiss()
		c.witness = nil
	}
	if c.h.shortLives() < suspectShort || c.ctx.Err() != nil {
		return
	}
	if c.rival != nil {
		if err := c.rival(c.ctx); err != nil {
			c.h.fail(err)
			return
		}
	}
	if c.h.sole {
		return // nobody else can end its connections
	}
	c.present, c.dismiss = context.WithTimeout(c.ctx, witnessTime)
	if c.witness = c.call(c.present); c.witness == nil {
		c.dismiss()
	}
}

func (c *ownClient) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// end disconnects the client for good.
func (c *ownClient) end() {
	if c.client.IsConnectionOpen() {
		c.client.Disconnect(uint(flushTime.Milliseconds()))
	}
	c.cancel()
	c.client.Disconnect(0)
	close(c.gone)
}
