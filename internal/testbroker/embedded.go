package testbroker

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// Options are what an embedded broker forbids. The zero value allows everything.
type Options struct {
	// MaxPacket is the largest packet in bytes; a client that sends a larger one
	// is disconnected. 0: no limit.
	MaxPacket uint32
	// Password, unless empty, is what every client must give.
	Password string
	// Deny refuses to let a client read from or write to a topic or filter.
	Deny func(client, topic string, write bool) bool
	// Severe has the broker disconnect a client that it denies something, as RabbitMQ does.
	Severe bool
}

// A Fault is what happens to a message instead of its delivery.
type Fault int

const (
	None   Fault = iota // it is delivered
	Lose                // it is dropped, and not acknowledged to its sender
	Devour              // it is acknowledged and never delivered
)

// MQTT is an embedded broker.
type MQTT struct {
	t    testing.TB
	o    Options
	addr string

	server *mochi.Server
	conns  *tracker
	faults atomic.Pointer[func(topic string, payload []byte) Fault]
}

// Embedded starts an embedded broker.
func Embedded(t testing.TB, o Options) *MQTT {
	b := &MQTT{t: t, o: o, addr: "127.0.0.1:0"}
	b.Start()
	t.Cleanup(b.Stop)
	return b
}

// URL implements Broker.
func (b *MQTT) URL() string { return "mqtt://" + b.addr }

// SetFaults has f decide about each message that a client publishes; nil: none is
// harmed. f is called from several goroutines.
func (b *MQTT) SetFaults(f func(topic string, payload []byte) Fault) {
	if f == nil {
		b.faults.Store(nil)
		return
	}
	b.faults.Store(&f)
}

// SetPassword changes what clients must give, while the broker is stopped.
func (b *MQTT) SetPassword(password string) { b.o.Password = password }

// Start implements Broker.
func (b *MQTT) Start() {
	l, err := net.Listen("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.addr = l.Addr().String()
	b.conns = &tracker{Listener: l}
	capabilities := mochi.NewDefaultServerCapabilities()
	capabilities.MaximumPacketSize = b.o.MaxPacket
	b.server = mochi.New(&mochi.Options{Capabilities: capabilities, Logger: slog.New(slog.DiscardHandler)})
	if err := errors.Join(
		b.server.AddHook(&hook{broker: b}, nil),
		b.server.AddListener(listeners.NewNet("tcp", b.conns)),
		b.server.Serve(),
	); err != nil {
		b.t.Fatal(err)
	}
}

// Stop implements Broker.
func (b *MQTT) Stop() {
	if b.server == nil {
		return
	}
	b.conns.kill()
	b.server.Listeners.ClientsWg.Wait() // Close can deadlock with a client that goes
	b.server.Close()
	b.server = nil
}

// hook is where the broker asks before it does something.
type hook struct {
	mochi.HookBase
	broker *MQTT
}

func (h *hook) ID() string { return "testbroker" }

func (h *hook) Provides(b byte) bool {
	return bytes.IndexByte([]byte{mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnPublish}, b) >= 0
}

func (h *hook) OnConnectAuthenticate(_ *mochi.Client, pk packets.Packet) bool {
	want := h.broker.o.Password
	return want == "" || string(pk.Connect.Password) == want
}

func (h *hook) OnACLCheck(cl *mochi.Client, topic string, write bool) bool {
	deny := h.broker.o.Deny
	if deny == nil || !deny(cl.ID, topic, write) {
		return true
	}
	if h.broker.o.Severe {
		cl.Stop(packets.ErrNotAuthorized)
	}
	return false
}

func (h *hook) OnPublish(_ *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if faults := h.broker.faults.Load(); faults != nil {
		switch (*faults)(pk.TopicName, pk.Payload) {
		case Lose:
			return pk, packets.ErrRejectPacket
		case Devour:
			return pk, packets.CodeSuccessIgnore
		}
	}
	return pk, nil
}

// tracker is a listener that can break its connections.
type tracker struct {
	net.Listener
	mu     sync.Mutex
	conns  []net.Conn
	killed bool
}

func (l *tracker) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, c)
		if l.killed { // between the two
			c.Close()
		}
	}
	return c, err
}

func (l *tracker) kill() {
	l.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.killed = true
	for _, c := range l.conns {
		c.Close()
	}
}
