package mqttx

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/transport"
)

// Base is the protocol of image hardware ("BASE"). An image goes in packages on one topic; each
// is answered on another before the next is sent. The side that sends dials, and the side that
// takes listens:
//
//	conn, err := (&mqttx.Base{Broker: "mqtt://broker.example:1883"}).Dial(ctx)
//	receipt, err := conn.Send(ctx, &transport.Image{Body: transport.File("image.jpg")}, nil)
//
//	to BASE    begin(NAME;SIZE)  data(0)  data(1)  ...  data(n-1)  finished
//	from BASE                 1        1        1                1      over
//
// [BaseMessage], [BaseAnswer] and [BaseHead] have the layout. Messages go at QoS 0, not retained.
//
// A receipt is [transport.Received]: BASE has said that the transfer is over. The protocol cannot
// say whether it has the image; the BASE here says so after it has kept or refused it. Names are
// carried, other metadata and IDs are not, so that a repeated Send may deliver twice. Images have
// at least one byte and at most 32,767 packages: 45,873,800 bytes at 1,400 per package.
//
// One image at a time goes to a BASE: the Sends of all Conns of one Base value take turns, in the
// order of their calls. Two programs must not send to one BASE at once, nor listen on one pair of
// topics. Messages have no identity: where they can overtake each other by more than Timeout, as
// over two bridges, images may get mixed.
//
// The zero value needs Broker, or ClientOptions with a broker. Set the fields before the first
// use, and do not copy a Base after it. It is safe for concurrent use.
type Base struct {
	// Broker, Username, Password, TLS and ClientOptions are as in [Transport]. A client ID in
	// ClientOptions becomes the start of the real ones, which are unique.
	Broker             string
	Username, Password string
	TLS                *tls.Config
	ClientOptions      *mqtt.ClientOptions

	// ToBase and FromBase are the topics on which messages go to and come from BASE; empty:
	// mqttTestPub and mqttTestSub.
	ToBase, FromBase string

	// PackageSize is how many bytes of the image a message carries, 1 to 32,767. Both sides must
	// agree. 0: 1,400.
	PackageSize int
	// Timeout is how long the sender waits for an answer before it repeats its last message. BASE
	// leaves at least this time between requests for what is missing at the end: set the same
	// value on both sides. 0: 5 seconds.
	Timeout time.Duration
	// Attempts is how often the sender sends a message without an answer, how often BASE may ask
	// for the same package, and for how many Timeouts BASE waits for a silent sender. 0: 12,
	// negative: no limit. Attempts times Timeout must be longer than BASE takes to keep or show
	// an image: else its late answer looks like a refusal of the next one.
	Attempts int
	// ZeroBased is for hardware that counts from 0 in answers of status 0, which ask for package
	// Number. Else they ask for package Number-1.
	ZeroBased bool

	// LastFirst makes BASE ask for the last package before all others, for senders that never
	// send it on their own.
	LastFirst bool
	// Truncated makes BASE deliver the bytes up to the first gap of an image whose rest does not
	// come, under a name like image.truncated.jpg and with Meta["truncated"] saying what is
	// missing. Else they are dropped. In either case the error goes to [transport.Hooks] and the
	// log.
	Truncated bool

	// Logger gets records about lost connections and messages that are not understood; nil:
	// silent.
	Logger *slog.Logger

	once sync.Once
	log  *slog.Logger
	turn chan struct{} // holds a token while nobody sends
	left baseRest      // goes with turn

	dial chan struct{} // holds a token while nobody changes what follows
	link *baseLink     // of all Conns that send: each answer has one hearer
	refs int           // Conns that use it
}

// A baseRest is what a transfer that was given up has left on its way.
type baseRest struct {
	answers int // that may still come
	until   time.Time
}

const (
	defaultToBase      = "mqttTestPub"
	defaultFromBase    = "mqttTestSub"
	defaultPackageSize = 1400
	defaultBaseTimeout = 5 * time.Second
	defaultAttempts    = 12
)

var _ transport.Transport = (*Base)(nil)

func (b *Base) toBase() string   { return cmp.Or(b.ToBase, defaultToBase) }
func (b *Base) fromBase() string { return cmp.Or(b.FromBase, defaultFromBase) }
func (b *Base) packageSize() int { return cmp.Or(b.PackageSize, defaultPackageSize) }

// baseRules are what a side of a transfer goes by.
type baseRules struct {
	packageSize int
	first       int // number of the first package in a request
	timeout     time.Duration
	attempts    int // negative: no limit
	lastFirst   bool
}

func (b *Base) rules() baseRules {
	r := baseRules{
		packageSize: b.packageSize(), first: 1, timeout: cmp.Or(b.Timeout, defaultBaseTimeout),
		attempts: cmp.Or(b.Attempts, defaultAttempts), lastFirst: b.LastFirst,
	}
	if b.ZeroBased {
		r.first = 0
	}
	return r
}

// check says what is wrong with the fields.
func (b *Base) check() error {
	for _, topic := range []string{b.toBase(), b.fromBase()} {
		if strings.ContainsAny(topic, "#+\x00") || len(topic) > 65535 {
			return fmt.Errorf("%w: mqttx.Base: %.80q cannot be a topic that is written to", transport.ErrConfig, topic)
		}
	}
	switch {
	case b.Broker == "" && (b.ClientOptions == nil || len(b.ClientOptions.Servers) == 0):
		return fmt.Errorf(`%w: mqttx.Base: set Broker, for example to "mqtt://localhost:1883"`, transport.ErrConfig)
	case b.toBase() == b.fromBase():
		return fmt.Errorf("%w: mqttx.Base: ToBase and FromBase are both %q: they must differ", transport.ErrConfig, b.toBase())
	case b.PackageSize < 0 || b.PackageSize > maxData:
		return fmt.Errorf("%w: mqttx.Base: a PackageSize of %d: 1 to %d are possible", transport.ErrConfig, b.PackageSize, maxData)
	case b.Timeout < 0:
		return fmt.Errorf("%w: mqttx.Base: Timeout is negative", transport.ErrConfig)
	}
	return nil
}

func (b *Base) start() error {
	b.once.Do(func() {
		b.turn, b.dial = make(chan struct{}, 1), make(chan struct{}, 1)
		b.turn <- struct{}{}
		b.dial <- struct{}{}
		b.log = cmp.Or(b.Logger, slog.New(slog.DiscardHandler))
	})
	return b.check()
}

// info describes a Conn of either side.
func (b *Base) info(broker, peer string) transport.Info {
	return transport.Info{
		Protocol: "mqtt+base", Peer: broker + "/" + peer, Confirms: transport.Received,
		Concurrency: 1, MaxImage: maxNumber * int64(b.packageSize()),
	}
}

// connect returns a client that hears what comes on one topic.
func (b *Base) connect(ctx context.Context, publish, subscribe string) (*baseLink, error) {
	opts, err := (&Transport{Broker: b.Broker, Username: b.Username, Password: b.Password, TLS: b.TLS, ClientOptions: b.ClientOptions}).options("base")
	if err != nil {
		return nil, err
	}
	opts.SetClientID(opts.ClientID + "-" + rand.Text()[:10])
	return dialBase(ctx, opts, publish, subscribe, b.log)
}

// Dial connects to the broker, and returns when it has agreed to the subscription, so that no
// answer is lost. All Conns share one client. If there is no BASE the first Send fails with
// transport.ErrNoReceiver.
func (b *Base) Dial(ctx context.Context) (transport.Conn, error) {
	if err := cmp.Or(b.start(), ctx.Err()); err != nil {
		return nil, dialError(err)
	}
	select {
	case <-b.dial:
		defer func() { b.dial <- struct{}{} }()
	case <-ctx.Done():
		return nil, dialError(ctx.Err())
	}
	if b.refs == 0 {
		link, err := b.connect(ctx, b.toBase(), b.fromBase())
		if err != nil {
			return nil, dialError(err)
		}
		b.link = link
	}
	b.refs++
	return &baseConn{base: b, link: b.link}, nil
}

// release is called when a Conn that sends is closed.
func (b *Base) release() {
	<-b.dial
	defer func() { b.dial <- struct{}{} }()
	if b.refs--; b.refs == 0 {
		b.link.close()
	}
}

// Listen connects to the broker as BASE. The Listener has one Conn at a time, which takes the
// images of all senders.
func (b *Base) Listen(ctx context.Context) (transport.Listener, error) {
	err := b.start()
	var link *baseLink
	if err == nil {
		link, err = b.connect(ctx, b.fromBase(), b.toBase())
	}
	if err != nil {
		return nil, listenError(err)
	}
	return newBaseListener(b, link), nil
}
