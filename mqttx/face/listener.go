package face

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/transport"
)

const (
	// answerTime is how long an answer may wait for a broker that is away.
	answerTime = 5 * time.Second
	// beats is how many heartbeats may wait for their answers.
	beats = 1024
	// smallSize is the size of the reports that are looked at as soon as they come.
	smallSize = 4 << 10
)

// A Listener is the service of some terminals, as Transport.Listen returns it. A terminal is
// accepted when it first reports something other than a heartbeat.
type Listener struct {
	t      *Transport
	client *client
	queue  *queue
	serial map[string]string // by topic
	beats  chan string       // serial numbers whose heartbeats are to be answered
	accept chan *service     // has room for one of each terminal
	echoes echoes
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	conns map[string]*service // those that take messages, by serial number
	open  map[*service]bool   // those that are not closed
	shut  bool
}

func (t *Transport) listen(ctx context.Context) (*Listener, error) {
	if err := errors.Join(ctx.Err(), t.check()); err != nil {
		return nil, err
	}
	l := &Listener{
		t: t, queue: newQueue(t.queue()), serial: make(map[string]string), beats: make(chan string, beats),
		accept: make(chan *service, len(t.Serials)), closed: make(chan struct{}), conns: make(map[string]*service), open: make(map[*service]bool),
	}
	var filters []string
	for _, sn := range t.Serials {
		up, _ := t.topics(sn)
		for _, topic := range up {
			l.serial[topic] = sn
		}
		filters = append(filters, up...)
	}
	var err error
	if l.client, err = t.connect(ctx, filters, l.deliver, l.tooLarge); err != nil {
		return nil, err
	}
	go l.answer()
	return l, nil
}

// conn returns the Conn of a terminal, a new one if there is none; nil after Close.
func (l *Listener) conn(sn string) *service {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.conns[sn]
	if s == nil && !l.shut {
		s = &service{l: l, sn: sn, lane: l.queue.lane(sn)}
		s.life, s.end = context.WithCancel(context.Background())
		s.attempt.Store(uint32(time.Now().Unix()))
		l.conns[sn], l.open[s] = s, true
		l.accept <- s // has room: nobody can close one that is not accepted
	}
	return s
}

// deliver hands a message on. It is called by the MQTT client and does not block.
func (l *Listener) deliver(m mqtt.Message) {
	sn, ok := l.serial[m.Topic()]
	if !ok {
		m.Ack() // a session's subscription from before
		return
	}
	payload := m.Payload()
	if len(payload) > l.t.maxPayload() {
		l.tooLarge(m.Topic(), len(payload))
		m.Ack()
		return
	}
	if len(payload) <= smallSize { // so that no heartbeat waits for a record
		if r, err := l.t.Dialect.Parse(payload); err == nil && r.Kind == Heartbeat {
			l.heartbeat(sn)
			if !l.t.Raw {
				m.Ack()
				return
			}
		}
	}
	for s := l.conn(sn); s != nil; s = l.conn(sn) {
		dropped, ok := s.lane.put(packet{payload: payload, ack: m.Ack})
		for _, p := range dropped {
			p.ack() // or the client holds it, and a place at the broker, until the end
			l.t.trouble(p.lane.sn, ErrDropped)
		}
		if ok {
			return
		}
	}
}

// tooLarge tells of a message that is not looked at.
func (l *Listener) tooLarge(topic string, size int) {
	if sn, ok := l.serial[topic]; ok {
		l.t.trouble(sn, &transport.TooLargeError{What: "MQTT payload", Size: int64(size), Max: int64(l.t.maxPayload())})
	}
}

// heartbeat has one answered, unless so many wait that the next will do.
func (l *Listener) heartbeat(sn string) {
	if f := l.t.OnHeartbeat; f != nil {
		f(sn)
	}
	if l.t.Dialect != Fungxi {
		return // nobody waits for an answer
	}
	select {
	case l.beats <- sn:
	default:
	}
}

// answer answers heartbeats.
func (l *Listener) answer() {
	for {
		select {
		case <-l.client.ctx.Done():
			return
		case sn := <-l.beats:
			ctx, cancel := context.WithTimeout(context.Background(), answerTime)
			if err := l.Command(ctx, sn, AppendHeartbeat(nil, time.Now())); err != nil && !errors.Is(err, net.ErrClosed) {
				l.t.trouble(sn, fmt.Errorf("a heartbeat was not answered: %w", err))
			}
			cancel()
		}
	}
}

// Command publishes a command as it is, for a terminal that need not have reported anything. It
// waits until there is a broker. nil means that it was written to the broker.
func (l *Listener) Command(ctx context.Context, sn string, command []byte) error {
	if !slices.Contains(l.t.Serials, sn) {
		return config("face.Listener: %.40q is none of the Transport's Serials", sn)
	}
	if err := l.client.wait(ctx); err != nil {
		return err
	}
	_, down := l.t.topics(sn)
	if l.t.Topic != "" {
		l.echoes.sent(down, command)
	}
	return l.client.publish(ctx, down, 0, command)
}

// Accept implements transport.Listener.
func (l *Listener) Accept(ctx context.Context) (transport.Conn, error) {
	for {
		err := ctx.Err()
		select {
		case <-l.closed:
			err = cmp.Or(err, transport.ErrClosed)
		default:
		}
		if err != nil {
			return nil, &transport.Error{Op: "accept", Err: err}
		}
		select {
		case <-l.closed:
		case s := <-l.accept:
			if s.life.Err() == nil {
				return s, nil
			}
		case <-ctx.Done():
		}
	}
}

// Addr implements transport.Listener. It is the broker's URL.
func (l *Listener) Addr() net.Addr { return addr(l.client.broker) }

type addr string

func (addr) Network() string  { return "mqtt" }
func (a addr) String() string { return string(a) }

// Close implements transport.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.mu.Lock()
		l.shut = true
		l.mu.Unlock()
		close(l.closed)
		for {
			select {
			case s := <-l.accept: // nobody will have it
				s.Close()
				continue
			default:
			}
			break
		}
		l.release(nil)
	})
	return nil
}

// release disconnects the client when nobody needs it any more.
func (l *Listener) release(s *service) {
	l.mu.Lock()
	delete(l.open, s)
	idle := l.shut && len(l.open) == 0
	l.mu.Unlock()
	if idle {
		l.client.close()
	}
}
