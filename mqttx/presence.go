package mqttx

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/wire"
	"github.com/pixferry/pixferry/transport"
)

const (
	// claimTime is how long a peer is new: one that is new gives way to another of its
	// name, and after that it stands.
	claimTime = time.Second

	// echoTime is how long a new peer waits for its own presence to come back, and
	// contestTime for the objection of another that seems to be there.
	echoTime    = 2 * time.Second
	contestTime = 500 * time.Millisecond

	// maxContests is how often a peer answers one other that does not give way either,
	// after the two were parted from each other.
	maxContests = 3
)

// gonePayload is the will, and means what an empty payload means, which some brokers
// (mochi) refuse as a will.
var gonePayload = []byte{0}

// maxPresence is more than any presence has, in bytes.
const maxPresence = 4 << 10

// boundPresence has what others have left on the topic of a name's presence take no memory.
func boundPresence(name string) func(topic []byte) int {
	ours := presenceTopic(name)
	return func(topic []byte) int {
		if string(topic) == ours {
			return maxPresence
		}
		return math.MaxInt32 // the user's
	}
}

// presence says that a peer is there, and finds others of its name. It is retained, so
// what others left behind when they crashed looks like one that is there; whoever is
// there answers a presence that is not its own by its own.
type presence struct {
	h        *Hub
	instance uint64

	mu         sync.Mutex
	client     mqtt.Client
	since      time.Time     // of the first claim; zero: there is none
	echo       chan struct{} // closed when our own presence has come back
	echoed     bool
	lost       bool   // the name is another's
	rival      uint64 // instance of the last other one
	contests   int    // with it
	publishing bool
}

func (p *presence) init(h *Hub) {
	p.h, p.instance, p.echo = h, rand.Uint64(), make(chan struct{})
}

// claim announces this peer on a new connection. The first time it waits until others
// have seen that, and for their objection if there seem to be any. A broker that does
// not allow this only keeps two of a name from being found.
func (p *presence) claim(client mqtt.Client) {
	p.mu.Lock()
	p.client = client
	first := p.since.IsZero()
	if first {
		p.since = time.Now()
	}
	p.mu.Unlock()
	if err := p.h.subscribe(client, presenceTopic(p.h.name), p.receive); err != nil {
		p.blind(client, err)
		return
	}
	p.publish(client, p.payload())
	if !first {
		return
	}
	if !p.h.pause(p.echo, echoTime) && p.h.failure() == nil {
		p.blind(client, fmt.Errorf("what is published on %s does not come back: the broker may not let this client write or read there; if it does not on %s# either, no peer has an answer",
			presenceTopic(p.h.name), inboxPrefix))
	}
	p.mu.Lock()
	alone := p.rival == 0
	p.mu.Unlock()
	if !alone {
		p.h.pause(nil, contestTime)
	}
}

// blind is for the log alone. The end of the connection is none of its business.
func (p *presence) blind(client mqtt.Client, err error) {
	if client.IsConnectionOpen() {
		p.h.log.Warn("cannot see others of this name", "err", err)
	}
}

func (p *presence) payload() []byte {
	there := wire.Presence{Instance: p.instance, MaxMessage: uint32(p.h.sizes.largest()), Transfers: 64}
	return there.Append(nil)
}

// publish sends at QoS 0, as paho races with itself over what it keeps to be repeated
// when a connection ends at once.
func (p *presence) publish(client mqtt.Client, payload []byte) {
	token := client.Publish(presenceTopic(p.h.name), 0, true, payload)
	p.h.pause(token.Done(), replyTime)
}

// withdraw ends the claim, and takes the presence away if it is ours.
func (p *presence) withdraw(client mqtt.Client) {
	p.mu.Lock()
	ours := !p.since.IsZero() && !p.lost
	claimed := !p.since.IsZero()
	p.since = time.Time{}
	p.mu.Unlock()
	if claimed {
		client.Unsubscribe(presenceTopic(p.h.name)).WaitTimeout(flushTime)
	}
	if ours {
		client.Publish(presenceTopic(p.h.name), 0, true, []byte{}).WaitTimeout(flushTime)
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
	case p.since.IsZero() || p.lost || p.h.failure() != nil:
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

// contest answers another peer of our name. The mutex is held.
func (p *presence) contest(rival uint64) {
	if p.rival != rival {
		p.rival, p.contests = rival, 0
	}
	p.contests++
	p.lost = time.Since(p.since) < claimTime || p.contests > maxContests && rival < p.instance
	if p.lost {
		go p.h.fail(fmt.Errorf("another client of the broker %s has the name %q: %w", p.h.broker, p.h.name, transport.ErrNameTaken))
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
		p.publish(client, p.payload())
		p.mu.Lock()
		p.publishing = false
		p.mu.Unlock()
	}()
}
