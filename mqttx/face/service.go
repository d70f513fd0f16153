package face

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/sleep"
	"github.com/pixferry/pixferry/transport"
)

// drainTime is how long Serve goes on with what has been received when its context ends:
// the terminals will not send it again.
const drainTime = 2 * time.Second

// awayPause is between two rounds of offers to who goes away.
const awayPause = time.Second

// service is a terminal as the service sees it.
type service struct {
	transport.UnimplementedConn
	l       *Listener
	sn      string
	lane    *lane
	served  atomic.Bool
	attempt atomic.Uint32
	records sync.Map        // of Record, by transport.ID, while they are offered
	life    context.Context // until Close
	end     context.CancelFunc
	once    sync.Once
}

// Info implements transport.Conn.
func (s *service) Info() transport.Info {
	return transport.Info{Protocol: "mqtt+face", Peer: s.sn, Confirms: transport.Sent, Concurrency: 1, MaxImage: s.l.t.maxImage(), Messages: true}
}

// SendMessage publishes a command for the terminal, at QoS 0: nil means that it was
// written to the broker, for nobody answers.
func (s *service) SendMessage(ctx context.Context, m transport.Message) error {
	err := transport.ErrClosed
	if s.life.Err() == nil {
		err = s.l.Command(ctx, s.sn, m.Data)
	}
	if err != nil {
		return &transport.Error{Op: "message", Err: err}
	}
	return nil
}

// seal has later messages go to a new Conn.
func (s *service) seal() {
	s.l.mu.Lock()
	if s.l.conns[s.sn] == s {
		delete(s.l.conns, s.sn)
	}
	s.l.mu.Unlock()
	s.lane.seal()
}

// Close implements transport.Conn.
func (s *service) Close() error {
	s.once.Do(func() {
		s.end()
		s.seal()
		s.lane.close()
		s.l.release(s)
	})
	return nil
}

// Serve implements transport.Conn.
func (s *service) Serve(ctx context.Context, in *transport.Inbox) error {
	if s.served.Swap(true) {
		return serveError(transport.ErrServed)
	}
	working, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	defer context.AfterFunc(s.life, func() { stop(transport.ErrClosed) })()
	defer context.AfterFunc(ctx, func() {
		s.seal()
		if !errors.Is(context.Cause(ctx), transport.ErrServerClosed) { // which takes nothing more
			_ = sleep.For(working, drainTime)
		}
		stop(ctx.Err())
	})()
	for sealed := false; ; {
		if p := s.lane.take(); p != nil && working.Err() == nil {
			s.settle(working, in, p)
			continue
		}
		switch {
		case s.life.Err() != nil:
			return serveError(transport.ErrClosed)
		case sealed || working.Err() != nil:
			return serveError(ctx.Err())
		}
		select {
		case <-s.lane.more:
		case <-s.life.Done():
		case <-ctx.Done():
			s.seal()
			sealed = true
		}
	}
}

// settle deals with a packet.
func (s *service) settle(ctx context.Context, in *transport.Inbox, p *packet) {
	err := s.take(ctx, in, p.payload)
	if err != nil {
		s.l.t.trouble(s.sn, err)
	}
	if err != nil && ctx.Err() != nil {
		return // it was not dealt with: a broker that keeps it gives it to the next service
	}
	p.ack()
}

func (s *service) take(ctx context.Context, in *transport.Inbox, payload []byte) error {
	t := s.l.t
	r, err := t.Dialect.Parse(payload)
	if err != nil {
		return err
	}
	_, topic := t.topics(s.sn)
	if r.Kind == Answer || t.Topic != "" && s.l.echoes.came(topic, payload) {
		return nil // its own
	}
	if r.Kind == Heartbeat && len(payload) > smallSize {
		s.l.heartbeat(s.sn)
	}
	switch {
	case t.Raw || r.Kind == Stranger && !t.Strangers:
		return s.report(ctx, in, r)
	case r.Kind == Verified, r.Kind == Stranger:
		return s.list(ctx, in, r)
	case r.Kind == Heartbeat:
		return nil
	case r.Cmd == "":
		return fmt.Errorf("%.80q does not say what it is: a report has a text as its cmd (HFSecurity: operator)", r.Payload)
	}
	return s.message(ctx, in, transport.Message{Type: r.Cmd, Data: r.Payload})
}

// report hands on a report as it is. A record in it is acknowledged, unless somebody
// wanted it and did not get it.
func (s *service) report(ctx context.Context, in *transport.Inbox, r Report) error {
	err := s.message(ctx, in, transport.Message{Type: r.Cmd, Data: r.Payload})
	refused := (*transport.RejectedError)(nil)
	if nobody := errors.As(err, &refused) && refused.Reason == transport.ReasonNotServing && !refused.Retryable; nobody && r.Kind == Stranger {
		err = nil
	}
	if err != nil || r.Kind != Verified && r.Kind != Stranger {
		return err
	}
	var all []error
	for rec, damaged := range r.Records() {
		if damaged == nil {
			all = append(all, s.acknowledge(r, rec))
		}
	}
	return errors.Join(all...)
}

// list hands on the records of a report, each as an image. One without a picture is a
// message.
func (s *service) list(ctx context.Context, in *transport.Inbox, r Report) error {
	var all []error // joined one by one their text takes quadratic time
	n := 0
	for rec, err := range r.Records() {
		n++
		var picture []byte
		if err == nil {
			if picture, err = rec.Decode(); err == nil {
				err = s.record(ctx, in, r.Cmd, rec, picture)
			} else {
				all = append(all, fmt.Errorf("%s of %.100s at %.100s: %w; it was handed on as a Message", r.Cmd, rec.Num, rec.Time, err))
				err = s.message(ctx, in, transport.Message{Type: r.Cmd, Data: rec.Raw})
			}
		}
		if err == nil {
			err = s.acknowledge(r, rec)
		}
		all = append(all, err)
	}
	if n == 0 {
		return fmt.Errorf("%s: data is empty", r.Cmd)
	}
	return errors.Join(all...)
}

// record offers an image until it is kept or refused for good.
func (s *service) record(ctx context.Context, in *transport.Inbox, cmd string, rec Record, picture []byte) error {
	id := rec.ID(s.sn, picture)
	img := transport.Image{Source: s.sn, Captured: rec.When(), Meta: rec.meta(cmd)}
	s.records.Store(id, rec)
	err := s.retry(ctx, func(ctx context.Context) error {
		a, err := in.Offer(ctx, transport.Offer{ID: id, Image: img, Size: int64(len(picture)), Attempt: s.attempt.Add(1)})
		if err != nil {
			return err
		}
		if _, done := a.Done(); done {
			return nil
		}
		if _, err := a.WriteAt(picture, 0); err != nil {
			a.Abort(err)
			return err
		}
		_, err = a.Finish(ctx, int64(len(picture)), chunk.Digest{})
		return err
	})
	if ctx.Err() == nil {
		s.records.Delete(id) // else its Handler may run yet
	}
	if err != nil {
		err = fmt.Errorf("%s of %.100s at %.100s: %w", cmd, rec.Num, rec.Time, err)
	}
	return err
}

func (s *service) message(ctx context.Context, in *transport.Inbox, m transport.Message) error {
	err := s.retry(ctx, func(ctx context.Context) error { return in.Message(ctx, m) })
	if err != nil {
		err = fmt.Errorf("the message %.100q: %w", m.Type, err)
	}
	return err
}

func (s *service) retry(ctx context.Context, f func(ctx context.Context) error) error {
	policy := s.l.t.Retry
	if policy == nil {
		policy = &transport.RetryPolicy{}
	}
	for {
		err := transport.Retry(ctx, policy, f)
		if refused := (*transport.RejectedError)(nil); ctx.Err() != nil || !errors.As(err, &refused) || refused.Reason != transport.ReasonGoingAway || !refused.Retryable {
			return err
		}
		// The Server goes away, and with it the context ends; or somebody whom its Handler needs, who may come back.
		s.l.t.trouble(s.sn, err)
		if sleep.For(ctx, awayPause) != nil {
			return err
		}
	}
}

// acknowledge tells an HFSecurity terminal that its record is kept.
func (s *service) acknowledge(r Report, rec Record) error {
	if s.l.t.Dialect != HFSecurity || len(rec.Number) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	if err := s.l.Command(ctx, s.sn, appendPushAck(nil, r, rec.Number)); err != nil {
		return fmt.Errorf("%s %.100s was kept, but not acknowledged: %w", r.Cmd, rec.Number, err)
	}
	return nil
}

// RecordOf returns the record of which an image was made, while its Handler runs. It returns
// false for images that have come otherwise.
func RecordOf(in *transport.Incoming) (Record, bool) {
	if s, ok := in.Conn.(*service); ok {
		if r, ok := s.records.Load(in.ID); ok {
			return r.(Record), true
		}
	}
	return Record{}, false
}

// echoes remembers what was published on topics that are subscribed to as well.
type echoes struct {
	mu   sync.Mutex
	sums [][sha256.Size]byte
}

const maxEchoes = 64

func echo(topic string, payload []byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte(topic+"\x00"), payload...))
}

func (e *echoes) sent(topic string, payload []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.sums) == maxEchoes {
		e.sums = e.sums[1:]
	}
	e.sums = append(e.sums, echo(topic, payload))
}

// came reports whether it was sent from here, once for each time.
func (e *echoes) came(topic string, payload []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.Index(e.sums, echo(topic, payload))
	if i >= 0 {
		e.sums = slices.Delete(e.sums, i, i+1)
	}
	return i >= 0
}
