package mqttx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/testbroker"
	"github.com/pixferry/pixferry/internal/testimage"
	"github.com/pixferry/pixferry/transport"
)

// soonAgain is how long senders wait for an answer in tests over brokers.
const soonAgain = 200 * time.Millisecond

// A fieldClient runs a party of the field on a real broker, on one goroutine.
type fieldClient struct {
	client mqtt.Client
	in     chan []byte
	do     chan func() [][]byte
	stop   chan struct{}
	done   chan struct{}
}

func runField(t testing.TB, b testbroker.Broker, party baseParty, publish, subscribe string) *fieldClient {
	f := &fieldClient{in: make(chan []byte, 10_000), do: make(chan func() [][]byte), stop: make(chan struct{}), done: make(chan struct{})}
	f.client = mqtt.NewClient(mqtt.NewClientOptions().AddBroker(b.URL()).SetProtocolVersion(4).SetAutoReconnect(false))
	for _, begin := range []func() mqtt.Token{
		f.client.Connect,
		func() mqtt.Token {
			return f.client.Subscribe(subscribe, 0, func(_ mqtt.Client, m mqtt.Message) { f.in <- m.Payload() })
		},
	} {
		if token := begin(); !token.WaitTimeout(patience) || token.Error() != nil {
			t.Fatal(token.Error())
		}
	}
	go func() {
		defer close(f.done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			var out [][]byte
			select {
			case p := <-f.in:
				out = party.receive(p, time.Now())
			case fn := <-f.do:
				out = fn()
			case <-tick.C:
				if at := party.deadline(); !at.IsZero() && !time.Now().Before(at) {
					out = party.tick(time.Now())
				}
			case <-f.stop:
				return
			}
			for _, p := range out {
				f.client.Publish(publish, 0, false, p)
			}
		}
	}()
	t.Cleanup(func() {
		close(f.stop)
		<-f.done
		f.client.Disconnect(100)
	})
	return f
}

// until waits for a condition of the party.
func (f *fieldClient) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		result := make(chan bool, 1)
		f.do <- func() [][]byte { result <- ok(); return nil }
		if <-result {
			return
		}
	}
	t.Fatalf("%s: not within %v", what, patience)
}

func TestBaseSendsToFieldOverBroker(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		for _, number := range []func(int) int{func(int) int { return 0 }, func(i int) int { return i }} {
			field := &fieldBase{TB: t, number: number, first: 1, askHead: -1, ask: map[int]int{3: 1}}
			f := runField(t, b, field, defaultFromBase, defaultToBase)
			c := dial(t, &Base{Broker: b.URL()})
			for _, content := range [][]byte{random(1), random(1401), random(35_935), testimage.JPEG(2, 320, 240), random(2_000_000)} {
				baseSend(t, c, "image.jpg", content)
				f.until(t, "the image at BASE", func() bool { return bytes.Equal(field.image, content) })
			}
			if field.begins != 5 || field.ends != 5 {
				t.Errorf("%d times begin, %d times finished", field.begins, field.ends)
			}
			f.client.Disconnect(100)
		}
	})
}

func TestBaseTakesFromFieldOverBroker(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		r := receive(t, &Base{Broker: b.URL(), LastFirst: true, Timeout: soonAgain})
		for i, n := range []int{1, 1400, 1401, 35_935, 500_000} {
			content := random(n)
			server := &fieldServer{TB: t, name: fmt.Sprint(i, ".jpg"), image: content, wait: soonAgain, deaf: time.Duration(i%2) * 30 * time.Millisecond}
			f := runField(t, b, server, defaultToBase, defaultFromBase)
			f.do <- func() [][]byte { return server.start(time.Now()) }
			f.until(t, "the end", func() bool { return server.over })
			r.expect(t, server.name, content)
		}
	})
}

// finished are the ends of transfers that a Server tells its hooks.
type finished struct {
	name string
	err  error
}

func TestBaseTruncated(t *testing.T) {
	for _, truncated := range []bool{false, true} {
		b := testbroker.Embedded(t, testbroker.Options{})
		l, err := (&Base{Broker: b.URL(), Truncated: truncated, Timeout: soonAgain}).Listen(within(t))
		if err != nil {
			t.Fatal(err)
		}
		ends, store := make(chan finished, 10), &transport.MemStore{}
		srv := &transport.Server{Store: store, Hooks: transport.Hooks{
			Finished: func(info transport.TransferInfo, _ transport.Receipt, err error) { ends <- finished{info.Name, err} },
		}}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(context.Background(), l) }()

		content := random(35_935)
		server := &fieldServer{TB: t, name: "image.jpg", image: content, wait: soonAgain}
		f := runField(t, b, server, defaultToBase, defaultFromBase)
		f.do <- func() [][]byte { return server.start(time.Now()) }
		f.until(t, "the end", func() bool { return server.over })
		end := <-ends
		refused := (*transport.RejectedError)(nil)
		const missing = "935 of 35935 bytes are missing (35000-35934)"
		if !errors.As(end.err, &refused) || refused.Reason != transport.ReasonIncomplete || !strings.Contains(end.err.Error(), missing) || end.name != "image.jpg" {
			t.Errorf("the truncated image %s ended with %v", end.name, end.err)
		}
		if truncated {
			if end := <-ends; end.err != nil || end.name != "image.truncated.jpg" {
				t.Errorf("the part that is there: %s, %v", end.name, end.err)
			}
			img, ok := store.Get("image.truncated.jpg")
			if !ok || !strings.Contains(img.Meta["truncated"], missing) {
				t.Fatalf("the truncated image: %v, %+v", ok, img)
			}
			if got, err := img.Body.ReadAll(t.Context()); err != nil || !bytes.Equal(got, content[:35_000]) {
				t.Errorf("the truncated image has %d bytes (%v), or wrong ones", len(got), err)
			}
		}
		if _, ok := store.Get("image.jpg"); ok {
			t.Error("a truncated image is kept as a whole one")
		}
		// The next one works.
		next := &Base{Broker: b.URL(), Timeout: soonAgain}
		baseSend(t, dial(t, next), "next.jpg", content)
		if err := srv.Shutdown(within(t)); err != nil {
			t.Error(err)
		}
		<-served
	}
}

func TestBaseRefuses(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	base := &Base{Broker: b.URL(), Timeout: soonAgain}
	l, err := base.Listen(within(t))
	if err != nil {
		t.Fatal(err)
	}
	store := &transport.MemStore{}
	srv := &transport.Server{Store: store, Limits: transport.Limits{MaxImage: 10_000}}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	c := dial(t, base)
	refused := (*transport.RejectedError)(nil)
	_, err = c.Send(within(t), &transport.Image{Name: "big.jpg", Body: transport.Bytes(random(10_001))}, nil)
	if !errors.As(err, &refused) {
		t.Errorf("an image over BASE's limit: %v", err)
	}
	f := runField(t, b, silent{}, defaultToBase, defaultFromBase) // texts that our sender does not write
	answered := make(chan struct{}, 100)
	done(t, f.client.Subscribe(defaultFromBase, 0, func(mqtt.Client, mqtt.Message) { answered <- struct{}{} }))
	for _, text := range []string{"../x.jpg;5000", "/etc/passwd;1", "x;", "x", ";", "x;-5", "x;1e3", "x;0", "x;99999999999999999999", "x;45873801", "\xff\xfe;100"} {
		f.do <- func() [][]byte { return [][]byte{fieldMessage(1, 0, []byte(text))} }
		<-answered
	}
	baseSend(t, dial(t, base), "a.jpg", random(5000)) // on another connection, to which none of these answers comes late
	for img := range store.All() {
		if img.Name != "a.jpg" {
			t.Errorf("%q was kept", img.Name)
		}
	}
	srv.Shutdown(within(t))
	<-served
}

// A broker that refuses after a restart, and then no more, is said and used again.
func TestBaseDeniedForAWhile(t *testing.T) {
	var denied atomic.Bool
	b := testbroker.Embedded(t, testbroker.Options{Deny: func(_, topic string, write bool) bool { return denied.Load() && !write }})
	r := receive(t, &Base{Broker: b.URL(), Timeout: soonAgain})
	c := dial(t, &Base{Broker: b.URL(), Timeout: soonAgain, Attempts: 3})
	denied.Store(true)
	b.Stop()
	b.Start()
	link := c.(*baseConn).link
	for end := time.Now().Add(patience); link.why.Load() == nil || !strings.Contains((*link.why.Load()).Error(), "does not let"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the broker refuses nothing")
		}
	}
	_, err := c.Send(within(t), &transport.Image{Name: "a", Body: transport.Bytes(random(10))}, nil)
	if !errors.Is(err, transport.ErrNoReceiver) || !strings.Contains(err.Error(), "does not let") {
		t.Error("while the broker refuses:", err)
	}
	denied.Store(false)
	content := random(3000)
	if _, err := c.Send(within(t), &transport.Image{Name: "b", Body: transport.Bytes(content)}, &transport.SendOptions{Retry: &transport.RetryPolicy{MaxAttempts: -1}}); err != nil {
		t.Error("afterwards:", err)
	}
	r.expect(t, "b", content)
}

func TestBaseNobody(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	c := dial(t, &Base{Broker: b.URL(), Timeout: 20 * time.Millisecond, Attempts: 3})
	_, err := c.Send(within(t), &transport.Image{Name: "a", Body: transport.Bytes(random(10))}, nil)
	if !errors.Is(err, transport.ErrNoReceiver) {
		t.Errorf("%v", err)
	}
	if _, err := c.Send(within(t), &transport.Image{Name: "a", Body: transport.Bytes(random(10))}, &transport.SendOptions{Require: transport.Kept}); !errors.Is(err, transport.ErrUnconfirmed) {
		t.Errorf("what the protocol cannot confirm: %v", err)
	}
	c.Close()
	if _, err := c.Send(within(t), &transport.Image{Name: "a", Body: transport.Bytes(random(10))}, nil); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestBaseBrokerRestarts has the broker restart in the middle of an image.
func TestBaseBrokerRestarts(t *testing.T) {
	testbroker.Each(t, func(t *testing.T, b testbroker.Broker) {
		base := &Base{Broker: b.URL(), Timeout: soonAgain, Attempts: 50}
		r := receive(t, base)
		c := dial(t, base)
		content := random(3_000_000)
		half, once := make(chan struct{}), sync.Once{}
		sent := make(chan error, 1)
		go func() {
			_, err := c.Send(within(t), &transport.Image{Name: "a.jpg", Body: transport.Bytes(content)}, &transport.SendOptions{Progress: func(acked, total int64) {
				if acked > total/2 {
					once.Do(func() { close(half) })
				}
			}})
			sent <- err
		}()
		select {
		case <-half:
		case err := <-sent:
			t.Fatal("before the middle:", err)
		}
		b.Stop()
		b.Start()
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		r.expect(t, "a.jpg", content)
	})
}

func TestBaseWrongOptions(t *testing.T) {
	for _, b := range []*Base{
		{}, {Broker: "nonsense"}, {Broker: "mqtt://x", ToBase: "a", FromBase: "a"}, {Broker: "mqtt://x", ToBase: "a/#"}, {Broker: "mqtt://x", FromBase: "+"},
		{Broker: "mqtt://x", PackageSize: 32768}, {Broker: "mqtt://x", PackageSize: -1}, {Broker: "mqtt://x", Timeout: -1},
	} {
		if _, err := b.Dial(within(t)); err == nil {
			t.Errorf("Dial with %v, %q, %q, %d", b.Broker, b.ToBase, b.FromBase, b.PackageSize)
		}
		if _, err := b.Listen(within(t)); err == nil {
			t.Errorf("Listen with %v, %q, %q, %d", b.Broker, b.ToBase, b.FromBase, b.PackageSize)
		}
	}
	b := testbroker.Embedded(t, testbroker.Options{Deny: func(_, topic string, write bool) bool { return topic == "closed" && !write }})
	if _, err := (&Base{Broker: b.URL(), FromBase: "closed"}).Dial(within(t)); err == nil || transport.Retryable(err) {
		t.Errorf("a subscription that the broker refuses: %v", err)
	}
	b.Stop()
	if _, err := (&Base{Broker: b.URL()}).Dial(within(t)); err == nil {
		t.Error("a broker that is not there: no error")
	}
}

// TestBaseClientIDs has two clients with one ID in their options.
func TestBaseClientIDs(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	base := &Base{Broker: b.URL(), ClientOptions: mqtt.NewClientOptions().SetClientID("me"), Timeout: soonAgain, Attempts: 2}
	r := receive(t, base)
	c1, c2 := dial(t, base), dial(t, base)
	for i, c := range []transport.Conn{c1, c2, c1} {
		content := random(3000)
		baseSend(t, c, fmt.Sprint(i), content)
		r.expect(t, fmt.Sprint(i), content)
	}
}

// A slowBase answers everything after a while, and notes what it has answered when
// something comes.
type slowBase struct {
	testing.TB
	queue []slowAnswer
	names []string // in begin messages that were answered
	head  string   // of the last begin message
	mixed bool     // data came before the answer to the last begin
}

type slowAnswer struct {
	at   time.Time
	p    []byte
	name string
}

func (b *slowBase) receive(p []byte, now time.Time) [][]byte {
	a := slowAnswer{now.Add(100 * time.Millisecond), fieldAnswer(int(p[4]), 0, 1), ""}
	switch p[4] {
	case 1:
		a.name, _, _ = strings.Cut(string(p[9:]), ";")
		b.head = a.name
	case 2:
		b.mixed = b.mixed || len(b.names) == 0 || b.names[len(b.names)-1] != b.head
	}
	b.queue = append(b.queue, a)
	return nil
}

func (b *slowBase) deadline() time.Time {
	if len(b.queue) == 0 {
		return time.Time{}
	}
	return b.queue[0].at
}

func (b *slowBase) tick(time.Time) [][]byte {
	a := b.queue[0]
	b.queue = b.queue[1:]
	if a.name != "" {
		b.names = append(b.names, a.name)
	}
	return [][]byte{a.p}
}

// TestBaseCancel gives an image up before BASE has answered begin. That answer must not
// start the next image, which BASE would take for the first.
func TestBaseCancel(t *testing.T) {
	broker := testbroker.Embedded(t, testbroker.Options{})
	base := &slowBase{TB: t}
	f := runField(t, broker, base, defaultFromBase, defaultToBase)
	b := &Base{Broker: broker.URL()}
	conns := []transport.Conn{dial(t, b), dial(t, b)}
	stranger := connect(t, userOptions(broker, "stranger"))
	for i, c := range conns {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := c.Send(ctx, &transport.Image{Name: fmt.Sprint("given up ", i), Body: transport.Bytes(random(3000))}, nil)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		done(t, stranger.Publish(defaultFromBase, 0, false, "foreign")) // no answer
		baseSend(t, conns[1-i], fmt.Sprint("sent ", i), random(3000))
	}
	f.until(t, "the end", func() bool { return len(base.queue) == 0 })
	if base.mixed || len(base.names) != 4 {
		t.Errorf("packages came before begin was answered: %v", base.names)
	}
}
