package mqttx

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/mqttclient"
	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

// rivalTime is how long it may take to ask whether another has the name.
const rivalTime = 3 * time.Second

// rival fails if another has the name that t is about to take. It asks under a client ID
// of its own, because the broker ends the connection of the one that is there when another
// comes with the same ID. Where this is not possible the two find each other later.
func (t *Transport) rival(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rivalTime)
	defer cancel()
	o, err := t.stranger(ctx)
	if err != nil {
		return err
	}
	client := mqtt.NewClient(o)
	defer client.Disconnect(0)

	var seen atomic.Bool
	echo, answer := make(chan struct{}, 1), make(chan struct{}, 1)
	topic := presenceTopic(t.Name)
	if !completed(ctx, client.Connect()) || !completed(ctx, client.Subscribe(topic, 0, func(_ mqtt.Client, m mqtt.Message) {
		is := new(wire.Presence).Parse(m.Payload()) == nil
		switch {
		case is && m.Retained(): // it may have been left behind
			seen.Store(true)
		case is:
			notify(answer)
		case !m.Retained():
			notify(echo)
		}
	})) || !completed(ctx, client.Publish(topic, 0, false, gonePayload)) || // to which one that has not gone objects
		!completed(ctx, client.Unsubscribe("pf/none")) { // has an answer, by which the broker is through with all this
		return nil
	}
	patience := time.NewTimer(contestTime)
	defer patience.Stop()
	select {
	case <-echo:
		if !seen.Load() {
			return nil
		}
	case <-patience.C: // the broker does not let it through
		return nil
	case <-ctx.Done():
		return nil
	}
	patience.Reset(contestTime)
	select {
	case <-answer:
		return fmt.Errorf("%q at the broker %s: %w", t.Name, mqttclient.Name(o.Servers[0]), transport.ErrNameTaken)
	case <-patience.C:
	case <-ctx.Done():
	}
	return nil
}

// witness connects a client under an ID of its own: if it loses its connection together with the one that it stands
// by, it was the broker that has ended both, and no other client. It returns nil if that is not possible.
func (t *Transport) witness(ctx context.Context) mqtt.Client {
	o, err := t.stranger(ctx)
	if err != nil {
		return nil
	}
	client := mqtt.NewClient(o)
	most, cancel := context.WithTimeout(ctx, rivalTime)
	defer cancel()
	if !completed(most, client.Connect()) {
		client.Disconnect(0)
		return nil
	}
	context.AfterFunc(ctx, func() { client.Disconnect(0) }) // which is not told that its connection was closed here
	return client
}

// stranger returns what a client is made with that nobody knows. Its connection ends with ctx.
func (t *Transport) stranger(ctx context.Context) (*mqtt.ClientOptions, error) {
	o, err := t.options(t.Name)
	if err != nil {
		return nil, err
	}
	o.SetClientID(randomName()).SetAutoReconnect(false).UnsetWill().SetStore(nil)
	o.OnConnect, o.OnConnectionLost, o.OnConnectionNotification = nil, nil, nil // the user's
	mqttclient.Open(ctx, o, &mqttclient.Owner{Bound: boundPresence(t.Name)})
	return o, nil
}

// completed waits for the end of what a token is for, and reports whether it went well.
func completed(ctx context.Context, token mqtt.Token) bool {
	select {
	case <-token.Done():
		return token.Error() == nil
	case <-ctx.Done():
		return false
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
