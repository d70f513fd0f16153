package session

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/pixferry/pixferry/internal/wire"
)

// An Endpoint is what the Conns of one Transport share. It is safe for concurrent use.
type Endpoint struct {
	cfg      Config
	wrong    error  // with the settings that it was made of
	instance uint64 // of this run, in HELLO
	pool     *creditPool
	paths    paths
	messages answers
	crew     crew
}

// NewEndpoint returns an Endpoint with the defaults for what cfg leaves out, and for all of
// it if something is wrong with it, which Check says then.
func NewEndpoint(cfg Config) *Endpoint {
	e := &Endpoint{wrong: cfg.check(), instance: randomUint64()}
	if e.wrong != nil {
		cfg = Config{}
	}
	e.cfg = cfg.withDefaults()
	e.pool = newCreditPool(&e.cfg)
	return e
}

// Check says what is wrong with the settings, nil if nothing is. Dial does it too; who listens asks first.
func (e *Endpoint) Check() error { return e.wrong }

func randomUint64() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// Dial returns a Conn whose first session is established. It calls dial now, with
// this context, and for each reconnect.
func (e *Endpoint) Dial(ctx context.Context, dial func(context.Context) (Carrier, error)) (*Conn, error) {
	if e.wrong != nil {
		return nil, e.wrong
	}
	c := newConn(e, dial)
	s, err := c.join(ctx)
	if err == nil && !c.adopt(s) {
		err = s.Err()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Accept begins a session whose first message from the peer is first, and gives it
// to the session. The Conn is handed to ready once the session is established; the
// carrier is started, and frees itself if that never happens.
func (e *Endpoint) Accept(carrier Carrier, first []byte, ready func(*Conn)) (*Conn, error) {
	parse := wire.Parse
	if info := carrier.Info(); info.reliable() {
		parse = wire.ParseReliable
	}
	h, _, err := parse(first)
	switch {
	case err != nil:
		return nil, err
	case !h.Long || h.Version != wire.Version1:
		return nil, fmt.Errorf("a session begins with a long message of version %d", wire.Version1)
	}
	c := newConn(e, nil)
	s := c.newSession(carrier, &h)
	s.ready = ready
	c.adopt(s)
	s.Deliver(time.Now(), nil, first) // before the carrier delivers more
	carrier.Start(s)
	return c, nil
}

// handshakeTime is how long a link that was accepted may take until its session is
// established.
const handshakeTime = 10 * time.Second

var errNoSession = errors.New("no session began within 10 s")

// AcceptLink begins a session on a link that a peer has opened, which it owns from
// now on, and returns once it is established. The context bounds this. On a link that is not
// reliable, as a serial line which was opened here alone, the peer may begin whenever it likes.
func (e *Endpoint) AcceptLink(ctx context.Context, link Link) (*Conn, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	carrier := Carry(link)
	stop := context.AfterFunc(ctx, carrier.abort)
	limit := time.AfterFunc(handshakeTime, func() { end(errNoSession) })
	defer limit.Stop()
	info := link.Info()
	patient := !info.reliable() && limit.Stop()
	c, err := e.acceptFirst(carrier, patient)
	if err == nil {
		if patient {
			limit.Reset(handshakeTime)
		}
		if err = c.established(ctx); err == nil && stop() {
			return c, nil
		}
		c.Close()
	}
	carrier.close()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, err
}

// acceptFirst begins a session with the first message of a link. If it is patient it passes over messages that begin
// none: they are for one that is over.
func (e *Endpoint) acceptFirst(carrier *LinkCarrier, patient bool) (*Conn, error) {
	var refusals Refusals
	for {
		first, n, err := carrier.receive()
		if err != nil {
			return nil, err
		}
		msg := first.mem[:n]
		c, err := e.Accept(carrier, msg, nil)
		if err != nil && refusals.Allowed(time.Now(), msg) {
			if answer := Refuse(msg); answer != nil {
				carrier.link.WriteMessage(answer)
			}
		}
		first.Release()
		if err == nil || !patient {
			return c, err
		}
	}
}

// refusalsPerSecond bounds what is sent to peers without a session.
const refusalsPerSecond = 100

// Refusals counts what is sent to peers without a session. It is not safe for concurrent use.
type Refusals struct {
	second time.Time            // when the present one began
	told   map[wire.ConnID]bool // in it: what their messages went to
}

// Allowed reports whether one more may be sent, to the sender of msg. One is enough for all messages of a session: those
// of many that were lost in a restart come at once.
func (r *Refusals) Allowed(now time.Time, msg []byte) bool {
	if r.told == nil || now.Sub(r.second) >= time.Second {
		r.second, r.told = now, make(map[wire.ConnID]bool)
	}
	id, _, ok := wire.PeekDest(msg)
	if !ok || r.told[id] || len(r.told) >= refusalsPerSecond {
		return false
	}
	r.told[id] = true
	return true
}

// RefuseBusy returns the message that answers one which would begin a session, for want of
// room, or nil for what would not.
func RefuseBusy(msg []byte, why string) []byte {
	h, _, err := wire.Parse(msg)
	if err != nil || !h.Long {
		return nil
	}
	out := wire.Header{Long: true, Dest: h.Source, Version: wire.Version1, Source: h.Dest}
	closing := wire.Close{Code: wire.CodeBusy, Text: why}
	return wire.Seal(closing.Append(out.Append(nil)))
}

// Refuse returns the message that answers one which begins no session here: RESET
// for one of a session that is not known, VERSIONS for one of another version, or
// nil for what is better not answered.
func Refuse(msg []byte) []byte {
	h, _, err := wire.Parse(msg)
	bad := (*wire.Error)(nil)
	out := wire.Header{Long: true, Number: h.Number, Version: wire.VersionNone}
	switch {
	case errors.As(err, &bad) && bad.Code == wire.CodeVersion:
		out.Dest, out.Source = h.Source, h.Dest
		versions := wire.Versions{Spoken: []byte{wire.Version1}}
		return wire.Seal(versions.Append(out.Append(nil)))
	case err == nil && !h.Long:
		reset := wire.Reset{Dest: h.Dest, Number: h.Number}
		return wire.Seal(reset.Append(out.Append(nil)))
	}
	return nil
}
