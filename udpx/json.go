package udpx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pixferry/pixferry/transport"
)

// maxJSON is the largest JSON text, in bytes.
const maxJSON = 1024

const jsonType = "application/json"

// JSON is the device protocol that sends JSON texts beside the images of [Datagram] or [Header],
// to a port of their own. It has messages and no images.
//
//	sender    a JSON text in UTF-8, at most 1,024 bytes
//	receiver  "get the msg"
//
// If the receiver does not take the text it answers "error: " and the reason; SendMessage returns
// this, and any other answer, as a *transport.RejectedError. A receiver of this package cuts the
// reason to what makes its answer three times as long as the text, as the sender's address may be
// false. Only [transport.Message].Data is carried; received messages have the Type
// "application/json".
//
// SendMessage waits for the answer. A receiver of this package sends it when Server.Message has
// returned nil. Without an answer the text may have arrived or not, and is not repeated; the next
// one leaves from another local port, so that a late answer is not taken for its own. If the
// network doubles a text or an answer, the second answer can be taken for that to the next text.
//
// A Conn that was dialled sends; one that was accepted serves. Set the fields before the first
// use; then it is safe for concurrent use.
type JSON struct {
	// Addr is the receiver's "host:port" to dial, or the local one to listen on; there empty
	// means ":0".
	Addr string
	// AnswerTimeout bounds the wait for an answer; 0: 10 s, negative: only the context does.
	AnswerTimeout time.Duration
	// MaxPeers, Forget, Logger and Socket are as in [Datagram].
	MaxPeers int
	Forget   time.Duration
	Logger   *slog.Logger
	Socket   func(ctx context.Context) (net.PacketConn, error)
}

// Dial returns a Conn that sends messages to Addr. It does not wait for the receiver.
func (t *JSON) Dial(ctx context.Context) (transport.Conn, error) {
	c, err := t.device().dial(ctx)
	if err != nil {
		return nil, err
	}
	return &jsonConn{c}, nil
}

// Listen receives messages at Addr.
func (t *JSON) Listen(ctx context.Context) (transport.Listener, error) {
	return t.device().listen(ctx)
}

func (t *JSON) device() *device {
	return device{
		info: transport.Info{Protocol: "udp+json", Confirms: transport.Received, Concurrency: 1, Messages: true},
		addr: t.Addr, socket: t.Socket, answer: t.AnswerTimeout, forget: t.Forget, peers: t.MaxPeers, log: t.Logger,
		serve: serveJSON,
	}.withDefaults()
}

var errNotJSON = errors.New("the message is not a JSON text in UTF-8")

// checkJSON returns what is wrong with a text.
func checkJSON(b []byte) error {
	switch {
	case len(b) > maxJSON:
		return &transport.TooLargeError{What: "message", Size: int64(len(b)), Max: maxJSON}
	case !utf8.Valid(b) || !json.Valid(b):
		return errNotJSON
	}
	return nil
}

// jsonConn is the side that sends messages.
type jsonConn struct{ *caller }

// Send refuses: the protocol has no images.
func (c *jsonConn) Send(context.Context, *transport.Image, *transport.SendOptions) (transport.Receipt, error) {
	return transport.Receipt{}, &transport.Error{Op: "send", Err: fmt.Errorf("udp+json carries text messages only and no images: use SendMessage: %w", errors.ErrUnsupported)}
}

func (c *jsonConn) SendMessage(ctx context.Context, m transport.Message) error {
	if err := checkJSON(m.Data); err != nil {
		return &transport.Error{Op: "message", Err: err}
	}
	outcome := transport.NotKept
	err := c.exchange(ctx, func(_ context.Context, l *line) error {
		outcome = transport.Unknown
		return l.write(m.Data, true)
	}, judgeMessage)
	if err == nil {
		return nil
	}
	if refused := (*transport.RejectedError)(nil); errors.As(err, &refused) {
		outcome = transport.Rejected
	}
	return &transport.Error{Op: "message", Outcome: outcome, Err: err}
}

// judgeMessage tells what an answer to a JSON text means.
func judgeMessage(answer []byte) error {
	if string(answer) == AnswerMessage {
		return nil
	}
	text := strings.TrimPrefix(strings.ToValidUTF8(string(answer[:min(len(answer), maxJSON)]), "?"), AnswerError)
	return &transport.RejectedError{Text: fmt.Sprintf("the receiver answers %q", text)}
}

// mostAnswer is how long the answer to a datagram of n bytes may be: with its headers (RFC 791, RFC 768) three times
// as long as that, as over [Transport], or it could be used to flood whoever is named as its sender.
func mostAnswer(n int) int {
	const headers = 20 + 8
	return min(3*(headers+n)-headers, maxJSON)
}

func serveJSON(ctx context.Context, p *peer, in *transport.Inbox) error {
	for {
		d, err := p.next(ctx, false, time.Time{})
		if err != nil {
			return err
		}
		if isAnswer(d.data) {
			continue
		}
		if err = checkJSON(d.data); err == nil {
			err = in.Message(ctx, transport.Message{Type: jsonType, Data: d.data})
		}
		if err == nil {
			p.reply(AnswerMessage)
			continue
		}
		if ctx.Err() != nil {
			return err
		}
		text := AnswerError + err.Error()
		p.reply(strings.ToValidUTF8(text[:min(len(text), mostAnswer(len(d.data)))], "?"))
	}
}
