package face

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/transport"
)

const (
	maxSerial = 128
	// fieldsSize is what a record needs beside its picture, at most.
	fieldsSize = 4 << 10
)

// ErrDropped says that a message was lost because more than Transport.Queue bytes were waiting.
var ErrDropped = errors.New("the oldest message was dropped, because what waits has reached Transport.Queue: have the Handler return sooner, or raise it")

// A Transport is a service for terminals, or a terminal. Set the fields before its first use. It
// is safe for concurrent use.
type Transport struct {
	// Broker is the broker's URL: mqtt:// (or tcp://), mqtts:// (or tls://, ssl://), ws:// or
	// wss://, with user and password if it wants them. The default port is 1883, or 8883 for
	// mqtts.
	Broker string
	// Serials are the serial numbers of the terminals to listen for; Dial is the first of them.
	Serials []string
	// Dialect is what the terminals speak.
	Dialect Dialect
	// Topic replaces the dialect's topics by a single one for both directions, for installations
	// that have only one. In it {sn} stands for the serial number; without {sn} there can be only
	// one terminal.
	Topic string
	// Raw makes Listen deliver every JSON object as a Message, records too; raise
	// Limits.MaxMessage of the Server to MaxPayload then. Heartbeats are answered all the same.
	Raw bool
	// Strangers makes Listen deliver records of strangers as Images too.
	Strangers bool

	// ClientID is the MQTT client ID of the service or terminal, which nobody else may use. The
	// broker then keeps what is published to it at QoS 1 while it is away, and until it was dealt
	// with. Empty: a random one, and nothing is kept.
	ClientID string
	// ClientOptions holds other options for the MQTT client; nil: the defaults. It is copied.
	// Handlers, session and pace of reconnecting are set by the Transport.
	ClientOptions *mqtt.ClientOptions

	// MaxPayload bounds an MQTT payload in bytes; 0: 16 MiB, which holds 12 MiB of picture. Brokers
	// have limits of their own (NATS: 1 MiB), and many end the connection of who exceeds them.
	MaxPayload int
	// Queue bounds the memory for messages of all terminals that wait for the Server, in bytes;
	// 0: 64 MiB.
	Queue int
	// Retry says how often a record or message is offered to a Server that cannot take it at the
	// moment; nil: 5 times within 3 s. What is refused with transport.ReasonGoingAway is offered
	// until that has passed.
	Retry *transport.RetryPolicy
	// AckTimeout is how long Send waits for the PushAck of an HFSecurity record; 0: 10 s,
	// negative: no limit. Set SendOptions.Retry to repeat the record then.
	AckTimeout time.Duration

	// OnHeartbeat is called for each heartbeat. It must not block.
	OnHeartbeat func(sn string)
	// OnTrouble is called with what could not be understood, delivered or queued (ErrDropped), by
	// several goroutines. It must not block.
	OnTrouble func(sn string, err error)
	// Logger gets the same; nil is silent.
	Logger *slog.Logger
}

var _ transport.Transport = (*Transport)(nil)

// Listen is the service; the Listener is a *[Listener]. Each terminal is a Conn, which takes
// reports and sends commands: SendMessage publishes Data as it is. Every Listener and dialled
// Conn has an MQTT client of its own, which reconnects by itself.
func (t *Transport) Listen(ctx context.Context) (transport.Listener, error) {
	l, err := t.listen(ctx)
	if err != nil {
		return nil, &transport.Error{Op: "listen", Err: err}
	}
	return l, nil
}

// Dial is a terminal with the first of Serials. Send publishes a record. Its fields are num,
// name, verifiedCode, time and personType in Meta; a stranger's has the cmd "strangerRecordU", or
// "StrSnapPush" in HFSecurity. Missing fields are made up: for somebody enrolled who has passed
// just now, or a stranger of whom nothing is known.
//
// SendMessage publishes a JSON object, or for a Type without Data {"cmd": Type}, in HFSecurity
// {"operator": Type}: Message{Type: "heartU"}, there "HeartBeat", is a heartbeat. Other messages
// fail with errors.ErrUnsupported. Serve takes commands as Messages; earlier ones wait, within
// Queue.
func (t *Transport) Dial(ctx context.Context) (transport.Conn, error) {
	c, err := t.dial(ctx)
	if err != nil {
		return nil, &transport.Error{Op: "dial", Err: err}
	}
	return c, nil
}

func serveError(err error) error { return &transport.Error{Op: "serve", Err: err} }

// check says what is wrong with the fields.
func (t *Transport) check() error {
	switch {
	case t.Dialect > HFSecurity:
		return config("face.Transport: Dialect %d is not known", t.Dialect)
	case len(t.Serials) == 0:
		return config("face.Transport: set Serials to the serial numbers of the terminals")
	case len(t.Serials) > 1 && t.Topic != "" && !strings.Contains(t.Topic, "{sn}"):
		return config("face.Transport: several terminals cannot be told apart on one topic: put {sn} into Topic, or have one of Serials")
	case strings.ContainsAny(t.Topic, "+#\x00") || !utf8.ValidString(t.Topic):
		return config("face.Transport: Topic %q cannot be published to", t.Topic)
	}
	seen := make(map[string]bool)
	for _, sn := range t.Serials {
		switch {
		case sn == "" || len(sn) > maxSerial || strings.ContainsAny(sn, "/+#\x00") || !utf8.ValidString(sn):
			return config("face.Transport: the serial number %.40q: want 1 to %d bytes without / + #", sn, maxSerial)
		case seen[sn]:
			return config("face.Transport: the serial number %s is there twice", sn)
		}
		seen[sn] = true
	}
	return nil
}

func config(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{transport.ErrConfig}, a...)...)
}

// topics returns where a terminal publishes, reports first and strangers next, and where
// it takes commands.
func (t *Transport) topics(sn string) (up []string, down string) {
	if t.Topic != "" {
		topic := strings.ReplaceAll(t.Topic, "{sn}", sn)
		return []string{topic}, topic
	}
	return t.Dialect.topics(sn)
}

func (t *Transport) maxPayload() int { return cmp.Or(max(t.MaxPayload, 0), 16<<20) }

// maxImage is the size of the largest picture whose record fits.
func (t *Transport) maxImage() int64 { return int64(max(t.maxPayload()-fieldsSize, 4) / 4 * 3) }

func (t *Transport) queue() int { return cmp.Or(max(t.Queue, 0), 64<<20) }

func (t *Transport) logger() *slog.Logger {
	return cmp.Or(t.Logger, slog.New(slog.DiscardHandler))
}

// trouble tells what went wrong.
func (t *Transport) trouble(sn string, err error) {
	t.logger().Warn("trouble with a terminal", "sn", sn, "err", err)
	if t.OnTrouble != nil {
		t.OnTrouble(sn, err)
	}
}
