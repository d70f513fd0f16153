package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/pixferry/pixferry/mqttx/face"
	"github.com/pixferry/pixferry/transport"
)

const (
	postTime    = 30 * time.Second // for the callback to answer
	commandTime = 5 * time.Second  // for a broker that is away; a command must not come late
	endTime     = 5 * time.Second  // for what is under way when the bridge ends
	maxPayload  = 16 << 20         // bytes of a report
)

// A bridge is the service: terminals - outbox - callback, and commands back.
type bridge struct {
	config
	log      *slog.Logger
	rules    []rule
	outbox   *outbox
	store    transport.Store // of pictures; nil: none are kept
	terminal *face.Transport
	ready    chan struct{}  // closed when the broker is there
	listener *face.Listener // once it is
	web      net.Listener
	client   *http.Client
	counts   counts
}

func newBridge(c config, log *slog.Logger) (*bridge, error) {
	if u, err := url.Parse(c.callback); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, usageError{errors.New("-callback is no http URL: write for example http://127.0.0.1:6688/api, and percent-encode a password in it")}
	}
	b := &bridge{config: c, log: log, client: newClient(), ready: make(chan struct{})}
	b.counts.since = time.Now()
	for _, sn := range c.serials { // those from which nothing comes are what one looks for
		b.counts.of(sn, func(*terminalCounts) {})
	}
	var err error
	if b.rules, err = readRules(c.rules); err != nil {
		return nil, err
	}
	if b.outbox, err = openOutbox(c.outbox, c.limit, log, b.post); err != nil {
		return nil, err
	}
	id, err := b.outbox.clientID()
	if err == nil {
		b.web, err = net.Listen("tcp", c.listen)
	}
	if err != nil {
		b.outbox.close(context.Background())
		return nil, err
	}
	b.terminal = &face.Transport{
		Broker: c.broker, Serials: c.serials, Topic: c.topic, Raw: c.raw, ClientID: id, MaxPayload: maxPayload,
		Retry:       &transport.RetryPolicy{MaxAttempts: -1}, // the outbox has no room: later it may
		OnHeartbeat: b.counts.heartbeat, OnTrouble: b.counts.trouble, Logger: log,
	}
	return b, nil
}

// newClient follows no redirect: a login page that answers 200 has not taken a record, and
// nobody but the callback is to get one.
func newClient() *http.Client {
	return &http.Client{
		Timeout:       postTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// run works until ctx ends, and then finishes what is under way.
func (b *bridge) run(ctx context.Context) error {
	web := &http.Server{Handler: b.handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(b.log.Handler(), slog.LevelWarn)}
	served := make(chan error, 1)
	go func() { served <- web.Serve(b.web) }()
	b.outbox.start()
	records, _ := b.outbox.state()
	b.log.Info("bridge", "http", b.web.Addr(), "broker", shown(b.broker), "terminals", b.serials, "callback", shown(b.callback), "waiting", records)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			cancel(err)
		}
	}()
	err := b.receive(ctx)
	if errors.Is(err, context.Canceled) {
		if err = context.Cause(ctx); errors.Is(err, context.Canceled) {
			err = nil
		}
	}

	ending, done := context.WithTimeout(context.Background(), endTime)
	defer done()
	end(ending, web)
	b.outbox.close(ending)
	records, _ = b.outbox.state()
	b.log.Info("the bridge ends", "waiting", records)
	return err
}

// end lets requests finish until ctx ends. Clients that are slower have no say in how the
// bridge ends.
func end(ctx context.Context, web *http.Server) {
	if web.Shutdown(ctx) != nil {
		web.Close()
	}
}

// receive takes what terminals report, as soon as there is a broker.
func (b *bridge) receive(ctx context.Context) error {
	srv := &transport.Server{
		Handler: b.image, Message: b.message, Logger: b.log,
		Limits: transport.Limits{MaxImage: maxPayload, MaxMessage: maxPayload},
	}
	if b.pictures != "" {
		store := &transport.DirStore{Dir: b.pictures}
		defer store.Close()
		b.store = store // and not the Server's, which would want a picture kept before its record
	}
	var l transport.Listener
	err := transport.Retry(ctx, &transport.RetryPolicy{MaxAttempts: -1}, func(ctx context.Context) error {
		var err error
		if l, err = b.terminal.Listen(ctx); err != nil && ctx.Err() == nil {
			b.log.Warn("no terminals yet", "err", err)
		}
		return err
	})
	if err != nil {
		return err
	}
	b.listener = l.(*face.Listener)
	close(b.ready)
	err = srv.Serve(ctx, l) // ends when all that has come is in the outbox
	ending, done := context.WithTimeout(context.Background(), endTime)
	defer done()
	srv.Shutdown(ending)
	return err
}

// image takes a verified record with a picture.
func (b *bridge) image(ctx context.Context, in *transport.Incoming) error {
	r, ok := face.RecordOf(in)
	if !ok {
		return errors.New("the record of this image is gone")
	}
	if err := b.record(ctx, in.Conn.Info().Peer, in.Image.Meta["cmd"], in.ID, r); err != nil {
		return err
	}
	b.keep(ctx, in)
	return nil
}

// message takes everything else.
func (b *bridge) message(ctx context.Context, from transport.Conn, m transport.Message) error {
	sn := from.Info().Peer
	e := event{terminal: sn, cmd: m.Type}
	switch {
	case b.raw:
		b.counts.add(sn, m.Type)
		if _, err := b.outbox.add(sn, transport.NewID(), m.Data); err != nil {
			return err
		}
	case m.Type == "verifiedRecordU":
		return b.damaged(ctx, sn, m)
	default:
		b.counts.add(sn, m.Type)
	}
	if json.Unmarshal(m.Data, &e.fields) == nil {
		b.command(ctx, e)
	}
	return nil
}

// damaged takes a verified record without a picture, or with one that cannot be decoded.
// The callback hears of it all the same.
func (b *bridge) damaged(ctx context.Context, sn string, m transport.Message) error {
	report, err := face.Fungxi.Parse(fmt.Appendf(nil, `{"cmd": "verifiedRecordU", "data": [%s]}`, m.Data))
	if err != nil {
		return transport.Reject("%v", err)
	}
	for r, err := range report.Records() {
		if err != nil {
			return transport.Reject("%v", err)
		}
		if err := b.record(ctx, sn, m.Type, r.ID(sn, r.Picture), r); err != nil {
			return err
		}
	}
	return nil
}

// record has a verified record posted, if it is one of those, and sends the commands that
// it leads to, unless it is a duplicate: a door opens once.
func (b *bridge) record(ctx context.Context, sn, cmd string, id transport.ID, r face.Record) error {
	if b.all || r.Verified {
		isNew, err := b.outbox.add(sn, id, body(r))
		if err != nil || !isNew {
			if err == nil {
				b.counts.add(sn, "duplicate")
			}
			return err
		}
	}
	b.counts.add(sn, cmd)
	b.command(ctx, recordEvent(sn, cmd, r))
	return nil
}

// body is what the callback gets. Values are passed on as the terminal wrote them; those
// that are missing are null.
func body(r face.Record) []byte {
	value := func(v json.RawMessage) json.RawMessage {
		if len(v) == 0 {
			return json.RawMessage("null")
		}
		return v
	}
	return fmt.Appendf(nil, `{"user_id": %s, "name": %s, "img": %s, "verifiedCode": %s, "bot_time": %s, "personType": %s}`,
		value(r.Num), value(r.Name), value(r.Picture), value(r.VerifiedCode), value(r.Time), value(r.PersonType))
}

// command publishes the commands that an event leads to. One that fails is not repeated.
func (b *bridge) command(ctx context.Context, e event) {
	for _, c := range commands(b.rules, e, time.Now()) {
		ctx, cancel := context.WithTimeout(ctx, commandTime)
		err := b.listener.Command(ctx, e.terminal, c)
		cancel()
		if err != nil {
			b.log.Warn("a command was not sent", "sn", e.terminal, "err", err)
		}
		b.counts.command(e.terminal, err)
	}
}

// post posts once.
func (b *bridge) post(ctx context.Context, body []byte) error {
	err := b.tryPost(ctx, body)
	if ctx.Err() == nil {
		b.counts.posted(err)
	}
	if err != nil {
		b.log.Warn("the callback has not taken a record", "err", err)
	}
	return err
}

func (b *bridge) tryPost(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.callback, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := b.client.Do(req)
	if at := (*url.Error)(nil); errors.As(err, &at) {
		return at.Err // without the URL, which may hold a token
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("it answers %s: %.200q", resp.Status, said)
	}
	return nil
}
