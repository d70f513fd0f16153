package mqttx

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

const (
	// claimTime is how long a receiver is new: one that is new gives way to another of
	// its name, and after that it stands.
	claimTime = time.Second

	// echoTime is how long Listen waits for its own presence to come back, and
	// contestTime for the objection of another that seems to be there.
	echoTime    = 2 * time.Second
	contestTime = 500 * time.Millisecond

	// maxContests is how often a receiver answers one other that does not give way
	// either, after the two were parted from each other.
	maxContests = 3
)

// gonePayload is the will, and means what an empty payload means, which some brokers
// (mochi) refuse as a will.
var gonePayload = []byte{0}

// presence says that a receiver of a name is there, and finds others of that name. It
// is retained, so what others left behind when they crashed looks like one that is
// there; whoever is there answers a presence that is not his own by his own.
type presence struct {
	h        *Hub
	instance uint64

	mu         sync.Mutex
	client     mqtt.Client
	since      time.Time     // of the claim; zero: there is none
	echo       chan struct{} // closed when our own presence has come back
	echoed     bool
	rival      uint64 // instance of the last other one
	contests   int    // with it
	publishing bool
}

func (p *presence) init(h *Hub) {
	var b [8]byte
	rand.Read(b[:])
	p.h, p.instance = h, binary.LittleEndian.Uint64(b[:])
}

// claim announces this receiver on a new connection or for a new listener.
func (p *presence) claim(client mqtt.Client) error {
	p.mu.Lock()
	p.client = client
	if p.since.IsZero() {
		p.since, p.echo, p.echoed, p.rival = time.Now(), make(chan struct{}), false, 0
	}
	p.mu.Unlock()
	if err := p.h.subscribe(client, presenceTopic(p.h.name), p.receive); err != nil {
		return err
	}
	return p.h.wait(p.publish(client), replyTime)
}

func (p *presence) publish(client mqtt.Client) mqtt.Token {
	return client.Publish(presenceTopic(p.h.name), 1, true, p.payload())
}

func (p *presence) payload() []byte {
	there := wire.Presence{Instance: p.instance, MaxMessage: uint32(p.h.sizes.largest()), Transfers: 64}
	return there.Append(nil)
}

// begin claims the name for a listener, waits until others have seen that, and for
// their objection if there seem to be any.
func (p *presence) begin(ctx context.Context, l *listener) error {
	p.h.mu.Lock()
	client := p.h.client
	p.h.mu.Unlock()
	if err := p.claim(client); err != nil {
		return err
	}
	p.mu.Lock()
	echo := p.echo
	p.mu.Unlock()
	if err := p.pause(ctx, l, echo, echoTime); err != nil {
		return err
	}
	p.mu.Lock()
	alone := p.rival == 0
	p.mu.Unlock()
	if alone {
		return nil
	}
	return p.pause(ctx, l, nil, contestTime)
}

// pause waits for the listener's failure, for an event or for a time.
func (p *presence) pause(ctx context.Context, l *listener, event <-chan struct{}, most time.Duration) error {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-l.failed:
		return l.err
	case <-p.h.dead:
		return p.h.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-event:
	case <-timer.C:
	}
	return nil
}

// withdraw ends the claim. The presence is taken away if it is ours.
func (p *presence) withdraw(client mqtt.Client, mine bool) {
	p.mu.Lock()
	p.since = time.Time{}
	p.mu.Unlock()
	topic := presenceTopic(p.h.name)
	p.h.wait(client.Unsubscribe(topic), flushTime)
	if mine {
		p.h.wait(client.Publish(topic, 1, true, []byte{}), flushTime)
	}
}

// receive is the handler of the presence of our own name. It must not block.
func (p *presence) receive(_ mqtt.Client, m mqtt.Message) {
	var there wire.Presence
	gone := len(m.Payload()) == 0 || m.Payload()[0] == gonePayload[0]
	if !gone && there.Parse(m.Payload()) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.since.IsZero():
	case gone: // the will of an earlier connection, or another gave way
		p.repair()
	case there.Instance == p.instance:
		if !p.echoed {
			p.echoed = true
			close(p.echo)
		}
	case m.Retained(): // perhaps it was left behind
		p.rival, p.contests = there.Instance, 0
	default:
		p.contest(there.Instance)
	}
}

// contest answers another receiver of our name. The mutex is held.
func (p *presence) contest(rival uint64) {
	if p.rival != rival {
		p.rival, p.contests = rival, 0
	}
	p.contests++
	if time.Since(p.since) < claimTime || p.contests > maxContests && rival < p.instance {
		if l := p.h.listening(); l != nil {
			go l.fail(fmt.Errorf("the broker %s has another receiver %q: %w", p.h.broker, p.h.name, transport.ErrNameTaken))
		}
		return
	}
	p.repair()
}

// repair publishes our presence again. The mutex is held.
func (p *presence) repair() {
	if p.publishing {
		return
	}
	p.publishing = true
	client := p.client
	go func() {
		p.h.wait(p.publish(client), replyTime)
		p.mu.Lock()
		p.publishing = false
		p.mu.Unlock()
	}()
}
