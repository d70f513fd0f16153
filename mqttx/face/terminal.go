package face

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/transport"
)

// terminal is a terminal.
type terminal struct {
	transport.UnimplementedConn
	t      *Transport
	sn     string
	up     []string
	client *client
	sender transport.Sender
	lane   *lane
	echoes echoes
	served atomic.Bool
	life   context.Context // until Close
	end    context.CancelFunc
	once   sync.Once
	number atomic.Uint32 // of the last record, HFSecurity

	mu      sync.Mutex
	pending map[pushed]chan struct{} // closed when acknowledged
}

// pushed is a record that is to be acknowledged.
type pushed struct {
	number   string
	stranger bool
}

func (t *Transport) dial(ctx context.Context) (*terminal, error) {
	if err := errors.Join(ctx.Err(), t.check()); err != nil {
		return nil, err
	}
	c := &terminal{t: t, sn: t.Serials[0], pending: make(map[pushed]chan struct{})}
	c.lane = newQueue(t.queue()).lane(c.sn)
	c.number.Store(rand.Uint32N(1 << 30)) // another terminal with this serial number has other ones
	c.life, c.end = context.WithCancel(context.Background())
	up, down := t.topics(c.sn)
	c.up = up
	var err error
	c.client, err = t.connect(ctx, []string{down}, c.deliver, nil)
	return c, err
}

// Info implements transport.Conn.
func (c *terminal) Info() transport.Info {
	info := transport.Info{Protocol: "mqtt+face", Peer: c.client.broker, Confirms: transport.Sent, Concurrency: 1, MaxImage: c.t.maxImage()}
	if c.t.Dialect == HFSecurity {
		info.Confirms = transport.Received
	}
	return info
}

// Close implements transport.Conn.
func (c *terminal) Close() error {
	c.once.Do(func() {
		c.end()
		c.sender.Close(transport.ErrClosed)
		c.lane.close()
		c.client.close()
	})
	return nil
}

// Send implements transport.Conn.
func (c *terminal) Send(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
	var rec Record
	var stranger bool
	return c.sender.Send(ctx, c.Info(), img, o, func(ctx context.Context, out *transport.Outgoing) (transport.Receipt, error) {
		if rec.Time == nil { // the same in all attempts
			rec, stranger = c.record(out)
		}
		// One byte more than may be shows that there is more.
		picture, err := io.ReadAll(io.LimitReader(out.Body, c.t.maxImage()+1))
		if err == nil {
			err = out.Body.Check()
		}
		if err != nil {
			return transport.Receipt{}, err
		}
		if len(picture) == 0 {
			return transport.Receipt{}, fmt.Errorf("a record cannot carry an empty picture: %w", errors.ErrUnsupported)
		}
		rec.Picture = json.RawMessage(`"` + base64.StdEncoding.EncodeToString(picture) + `"`)
		report := c.t.Dialect.AppendRecord(nil, stranger, rec)
		if int64(len(picture)) > c.t.maxImage() || len(report) > c.t.maxPayload() {
			return transport.Receipt{}, &transport.TooLargeError{What: "image", Size: int64(len(picture)), Max: c.t.maxImage()}
		}
		receipt := transport.Receipt{ID: out.ID, Level: transport.Sent, Bytes: int64(len(picture))}
		if c.t.Dialect == HFSecurity {
			receipt.Level = transport.Received
			return receipt, c.push(ctx, out, pushed{text(rec.Number), stranger}, receipt.Bytes, report)
		}
		if err := c.client.wait(ctx); err != nil {
			return transport.Receipt{}, err
		}
		out.Count(receipt.Bytes)
		out.LastByteSent()
		return receipt, c.publish(ctx, c.up[0], 1, report)
	})
}

// record makes the fields of a record.
func (c *terminal) record(out *transport.Outgoing) (rec Record, stranger bool) {
	when, passed := out.Image.Captured, "0"
	if when.IsZero() {
		when = time.Now()
	}
	stranger = out.Image.Meta[keyCmd] == "strangerRecordU" || out.Image.Meta[keyCmd] == "StrSnapPush"
	if c.t.Dialect == HFSecurity {
		passed = "1"
		rec.Number = quote(strconv.FormatUint(uint64(c.number.Add(1)), 10))
	}
	enrolled := "1"
	if stranger {
		enrolled, passed = "", "" // nobody says so of a stranger
	}
	value := func(key, fallback string) string { return cmp.Or(out.Image.Meta[key], fallback) }
	rec.Time = quote(value(keyTime, when.Local().Format(timeLayout)))
	rec.Num, rec.Name = quote(value(keyNum, out.ID.String())), quote(value(keyName, out.Image.Name))
	if enrolled = value(keyPersonType, enrolled); enrolled != "" {
		rec.PersonType = quote(enrolled)
	}
	if passed = value(keyVerifiedCode, passed); passed != "" {
		rec.VerifiedCode = quote(passed)
	}
	if _, err := strconv.Atoi(text(rec.VerifiedCode)); err == nil && c.t.Dialect == Fungxi {
		rec.VerifiedCode = json.RawMessage(text(rec.VerifiedCode))
	}
	return rec, stranger
}

// push publishes a record and waits until it is acknowledged.
func (c *terminal) push(ctx context.Context, out *transport.Outgoing, p pushed, size int64, report []byte) error {
	topic := c.up[0]
	if p.stranger && len(c.up) > 1 {
		topic = c.up[1]
	}
	acked := make(chan struct{})
	c.mu.Lock()
	c.pending[p] = acked
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.pending, p)
	}()
	if err := c.client.wait(ctx); err != nil {
		return err
	}
	out.LastByteSent()
	out.Count(size)
	if err := c.publish(ctx, topic, 0, report); err != nil {
		return err
	}
	wait := cmp.Or(c.t.AckTimeout, 10*time.Second)
	var late <-chan time.Time
	if wait > 0 {
		late = time.After(wait)
	}
	select {
	case <-acked:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-late:
		return fmt.Errorf("the record %s was not acknowledged for %v: %w", p.number, wait, transport.ErrIdle)
	}
}

func (c *terminal) publish(ctx context.Context, topic string, qos byte, payload []byte) error {
	if c.t.Topic != "" {
		c.echoes.sent(topic, payload)
	}
	return c.client.publish(ctx, topic, qos, payload)
}

// SendMessage implements transport.Conn; see Transport.Dial.
func (c *terminal) SendMessage(ctx context.Context, m transport.Message) error {
	payload, err := c.telemetry(m)
	if err == nil && c.life.Err() != nil {
		err = transport.ErrClosed
	}
	if err == nil {
		err = c.publish(ctx, c.up[len(c.up)-1], 0, payload)
	}
	if err != nil {
		return &transport.Error{Op: "message", Err: err}
	}
	return nil
}

func (c *terminal) telemetry(m transport.Message) ([]byte, error) {
	if len(m.Data) == 0 && m.Type != "" {
		key := map[Dialect]string{Fungxi: "cmd", HFSecurity: "operator"}[c.t.Dialect]
		return fmt.Appendf(nil, `{"%s": %s}`, key, quote(m.Type)), nil
	}
	if _, err := c.t.Dialect.Parse(m.Data); err != nil {
		return nil, fmt.Errorf("a terminal publishes JSON objects only: %w: %w", err, errors.ErrUnsupported)
	}
	if len(m.Data) > c.t.maxPayload() {
		return nil, &transport.TooLargeError{What: "message", Size: int64(len(m.Data)), Max: int64(c.t.maxPayload())}
	}
	return m.Data, nil
}

// deliver hands a command on. It is called by the MQTT client and does not block.
func (c *terminal) deliver(m mqtt.Message) {
	payload := m.Payload()
	m.Ack()
	if m.Retained() {
		return // a command that is late, for whom it was
	}
	if len(payload) > c.t.maxPayload() || c.t.Topic != "" && c.echoes.came(m.Topic(), payload) {
		return
	}
	if len(payload) <= smallSize && c.t.Dialect == HFSecurity {
		if r, err := c.t.Dialect.Parse(payload); err == nil && r.Kind == Answer {
			c.acknowledged(r)
			return
		}
	}
	// What comes before Serve waits for it: the broker takes it for delivered.
	dropped, _ := c.lane.put(packet{payload: payload})
	for range dropped {
		c.t.trouble(c.sn, ErrDropped)
	}
}

func (c *terminal) acknowledged(r Report) {
	number, stranger, err := parsePushAck(r)
	if err != nil {
		c.t.trouble(c.sn, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := pushed{number, stranger}
	if acked := c.pending[p]; acked != nil {
		close(acked)
		delete(c.pending, p) // the next one is late, or doubled
	}
}

// Serve implements transport.Conn: it hands on commands.
func (c *terminal) Serve(ctx context.Context, in *transport.Inbox) error {
	if c.served.Swap(true) {
		return serveError(transport.ErrServed)
	}
	for {
		for p := c.lane.take(); p != nil; p = c.lane.take() {
			m := transport.Message{Data: p.payload}
			if r, err := c.t.Dialect.Parse(p.payload); err == nil {
				m.Type = r.Cmd
			}
			if err := in.Message(ctx, m); err != nil && ctx.Err() == nil {
				c.t.trouble(c.sn, err)
			}
		}
		select {
		case <-c.lane.more:
		case <-c.life.Done():
			return serveError(transport.ErrClosed)
		case <-ctx.Done():
			return serveError(ctx.Err())
		}
	}
}
