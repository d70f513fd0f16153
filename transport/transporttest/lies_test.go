package transporttest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// A liar is a Conn of which some methods are replaced.
type liar struct {
	transport.Conn
	send    sendFunc
	message func(context.Context, transport.Message) error
	serve   func(context.Context, *transport.Inbox) error
	info    func(*transport.Info)
	close   func() error
}

type sendFunc func(context.Context, *transport.Image, *transport.SendOptions) (transport.Receipt, error)

func (l *liar) Send(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
	if l.send != nil {
		return l.send(ctx, img, o)
	}
	return l.Conn.Send(ctx, img, o)
}

func (l *liar) SendMessage(ctx context.Context, m transport.Message) error {
	if l.message != nil {
		return l.message(ctx, m)
	}
	return l.Conn.SendMessage(ctx, m)
}

func (l *liar) Serve(ctx context.Context, in *transport.Inbox) error {
	if l.serve != nil {
		return l.serve(ctx, in)
	}
	return l.Conn.Serve(ctx, in)
}

func (l *liar) Info() transport.Info {
	info := l.Conn.Info()
	if l.info != nil {
		l.info(&info)
	}
	return info
}

func (l *liar) Close() error {
	if l.close != nil {
		return l.close()
	}
	return l.Conn.Close()
}

func conn(twist func(l *liar)) MakeTransport {
	return makePipes(lying(twist))
}

func lying(twist func(l *liar)) func(transport.Conn) transport.Conn {
	return func(c transport.Conn) transport.Conn {
		l := &liar{Conn: c}
		twist(l)
		return l
	}
}

// body sends what change makes of the image's bytes.
func body(change func([]byte) []byte) MakeTransport {
	return conn(func(l *liar) {
		l.send = func(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
			body, err := img.Body.Open(ctx)
			if err != nil {
				return transport.Receipt{}, &transport.Error{Op: "send", Err: err}
			}
			defer body.Close()
			b, err := io.ReadAll(body)
			if err != nil && (len(b) == 0 || !errors.Is(err, errSource)) { // a failure half-way is overlooked
				return transport.Receipt{}, &transport.Error{Op: "send", Err: err}
			}
			other := *img
			other.Body = transport.Bytes(change(b))
			return l.Conn.Send(ctx, &other, o)
		}
	})
}

// outgoing changes the image and the options of each Send.
func outgoing(change func(*transport.Image, *transport.SendOptions)) MakeTransport {
	return conn(func(l *liar) {
		l.send = func(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
			img2, o2 := *img, transport.SendOptions{}
			if o != nil {
				o2 = *o
			}
			change(&img2, &o2)
			return l.Conn.Send(ctx, &img2, &o2)
		}
	})
}

// result changes the result of each Send.
func result(change func(*transport.Receipt, error) error) MakeTransport {
	return conn(func(l *liar) {
		l.send = func(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
			r, err := l.Conn.Send(ctx, img, o)
			err = change(&r, err)
			return r, err
		}
	})
}

// accepted changes the Listener.
func accepted(twist func(transport.Listener) transport.Listener) MakeTransport {
	return func(testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
		p := &pipes{accept: make(chan transport.Conn, 16)}
		return &twistedListen{p, twist}, func(net.Addr) transport.Transport { return p }
	}
}

type twistedListen struct {
	*pipes
	twist func(transport.Listener) transport.Listener
}

func (t *twistedListen) Listen(ctx context.Context) (transport.Listener, error) {
	l, err := t.pipes.Listen(ctx)
	return t.twist(l), err
}

type badListener struct {
	transport.Listener
	wrap      func(transport.Conn) transport.Conn
	deaf      bool // to contexts
	closesAll bool
	anyError  bool
	conns     []transport.Conn
}

func (b *badListener) Accept(ctx context.Context) (transport.Conn, error) {
	if b.deaf {
		ctx = context.WithoutCancel(ctx)
	}
	c, err := b.Listener.Accept(ctx)
	if err != nil {
		if b.anyError && errors.Is(err, net.ErrClosed) {
			err = errors.New("it is over")
		}
		return nil, err
	}
	if b.wrap != nil {
		c = b.wrap(c)
	}
	b.conns = append(b.conns, c)
	return c, nil
}

func (b *badListener) Close() error {
	for _, c := range b.conns {
		if b.closesAll {
			c.Close()
		}
	}
	return b.Listener.Close()
}

// badAccept wraps the Conns that are accepted.
func badAccept(twist func(l *liar)) MakeTransport {
	return accepted(func(l transport.Listener) transport.Listener { return &badListener{Listener: l, wrap: lying(twist)} })
}

func servesAgain(l *liar) {
	l.serve = func(ctx context.Context, in *transport.Inbox) error {
		if err := l.Conn.Serve(ctx, in); !errors.Is(err, transport.ErrServed) {
			return err
		}
		return nil
	}
}

// dialAnyway is a Transport that does not look at its context.
type dialAnyway struct{ *pipes }

func (d dialAnyway) Dial(ctx context.Context) (transport.Conn, error) {
	return d.pipes.Dial(context.WithoutCancel(ctx))
}

// with changes the properties claimed.
func with(change func(*Properties)) Properties {
	p := pipeProperties
	change(&p)
	return p
}

func TestTransportKitCatches(t *testing.T) {
	flip := func(b []byte) []byte {
		if len(b) > 0 {
			b = bytes.Clone(b)
			b[len(b)/2] ^= 1
		}
		return b
	}
	oneWay := with(func(p *Properties) { p.BothWays = false })
	limited := with(func(p *Properties) { p.MaxSize = 100_000 })
	for _, tt := range []struct {
		name  string
		make  MakeTransport
		p     Properties
		finds map[string]string // a check, and a part of what it says
	}{
		{"truncation", body(func(b []byte) []byte { return b[:max(0, len(b)-1)] }), pipeProperties, map[string]string{"Sizes": "the receipt says", "Streaming": "nobody has sent"}},
		{"truncation of large images", body(func(b []byte) []byte { return b[:min(len(b), 1<<20)] }), pipeProperties, map[string]string{"Sizes": "an image of 1048576 bytes"}},
		{"a wrong bit", body(flip), pipeProperties, map[string]string{"Sizes": "nobody has sent", "UnknownSize": "nobody has sent"}},
		{"a source's failure overlooked", body(func(b []byte) []byte { return b }), pipeProperties, map[string]string{"BadSource": "fails half-way: Send returned <nil>"}},
		{"Kept without sending", conn(func(l *liar) {
			l.send = func(_ context.Context, img *transport.Image, _ *transport.SendOptions) (transport.Receipt, error) {
				b, _ := img.Body.ReadAll(context.Background())
				return transport.Receipt{ID: transport.NewID(), Level: transport.Kept, Bytes: int64(len(b)), Digest: digest(b)}, nil
			}
		}), pipeProperties, map[string]string{"Sizes": "nothing after", "NotServing": "succeeded"}},
		{"Kept without an answer", result(func(r *transport.Receipt, err error) error {
			if refusal := (*transport.RejectedError)(nil); errors.As(err, &refusal) {
				*r = transport.Receipt{ID: transport.NewID(), Level: transport.Kept}
				return nil
			}
			return err
		}), pipeProperties, map[string]string{"Rejection": "was lost", "Names": "was kept", "TooLarge": "RejectedError"}},
		{"a receipt of another image", result(func(r *transport.Receipt, err error) error { r.Digest = digest(nil); return err }), pipeProperties, map[string]string{"Progress": "digest"}},
		{"a receipt of another size", result(func(r *transport.Receipt, err error) error { r.Bytes++; return err }), pipeProperties, map[string]string{"Sizes": "the receipt says"}},
		{"a receipt of another ID", result(func(r *transport.Receipt, err error) error { r.ID = transport.NewID(); return err }), pipeProperties, map[string]string{"Sizes": "the receiver saw", "Duplicates": "not that of the transfer"}},
		{"a level above what it can", result(func(r *transport.Receipt, err error) error { return err }), with(func(p *Properties) { p.Confirms = transport.Received }),
			map[string]string{"Info": "Confirms", "Sizes": "the receipt's level"}},
		{"refusals that are final", result(func(_ *transport.Receipt, err error) error {
			if refusal := (*transport.RejectedError)(nil); errors.As(err, &refusal) {
				return &transport.Error{Op: "send", Outcome: transport.Rejected, Err: transport.Reject("%s", refusal.Text)}
			}
			return err
		}), pipeProperties, map[string]string{"Rejection": "retryable false", "Shutdown": "retryable false"}},
		{"bare errors", result(func(_ *transport.Receipt, err error) error { return errors.Unwrap(err) }), pipeProperties, map[string]string{"Rejection": "are *transport.Error", "Cancel": "are *transport.Error"}},
		{"images doubled", conn(func(l *liar) {
			l.send = func(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
				if o == nil {
					l.Conn.Send(ctx, img, nil)
				}
				return l.Conn.Send(ctx, img, o)
			}
		}), pipeProperties, map[string]string{"Sizes": "once too often", "Concurrent": "once too often", "SendAll": "once too often"}},
		{"IDs lost", conn(func(l *liar) {
			l.send = func(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
				if o == nil {
					return l.Conn.Send(ctx, img, nil)
				}
				other := *o
				other.ID = transport.NewID()
				r, err := l.Conn.Send(ctx, img, &other)
				r.ID = cmp.Or(o.ID, r.ID)
				return r, err
			}
		}), pipeProperties, map[string]string{"Duplicates": "the receiver saw"}},
		{"names lost", outgoing(func(img *transport.Image, _ *transport.SendOptions) { img.Name = "image.bmp" }), pipeProperties, map[string]string{"Names": "arrived as"}},
		{"metadata lost", outgoing(func(img *transport.Image, _ *transport.SendOptions) { img.Meta = nil }), pipeProperties, map[string]string{"Metadata": "the metadata arrived"}},
		{"times cut", outgoing(func(img *transport.Image, _ *transport.SendOptions) {
			img.Captured = img.Captured.Truncate(time.Second)
		}), pipeProperties, map[string]string{"Metadata": "media type, source and time"}},
		{"no retries", outgoing(func(_ *transport.Image, o *transport.SendOptions) { o.Retry = nil }), pipeProperties, map[string]string{"Retry": "not yet"}},
		{"live frames kept", outgoing(func(_ *transport.Image, o *transport.SendOptions) { o.Live = nil }), pipeProperties, map[string]string{"Live": "nothing after"}},
		{"no resume", outgoing(func(img *transport.Image, _ *transport.SendOptions) {
			whole := img.Body
			img.Body = transport.OpenFunc(func(ctx context.Context) (io.ReadCloser, int64, error) {
				o, err := whole.Open(ctx)
				return io.NopCloser(o), o.Size, err
			})
		}), pipeProperties, map[string]string{"Resume": "0 bytes were reused"}},
		{"a resume of other content", result(func(r *transport.Receipt, err error) error { r.Reused = 1 << 20; return err }), pipeProperties, map[string]string{"Resume": "although every block has changed"}},
		{"progress backwards", outgoing(func(_ *transport.Image, o *transport.SendOptions) {
			if report := o.Progress; report != nil {
				o.Progress = func(acked, total int64) { report(total-acked, total) }
			}
		}), pipeProperties, map[string]string{"Progress": "after"}},
		{"no progress", outgoing(func(_ *transport.Image, o *transport.SendOptions) { o.Progress = nil }), pipeProperties, map[string]string{"Progress": "Progress ended at -1"}},
		{"contexts overlooked", conn(func(l *liar) {
			l.send = func(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
				return l.Conn.Send(context.WithoutCancel(ctx), img, o)
			}
			l.message = func(ctx context.Context, m transport.Message) error {
				return l.Conn.SendMessage(context.WithoutCancel(ctx), m)
			}
			l.serve = func(ctx context.Context, in *transport.Inbox) error {
				return l.Conn.Serve(context.WithoutCancel(ctx), in)
			}
		}), pipeProperties, map[string]string{"Cancel": "nothing after", "EndedContext": "Send with an ended context", "ContextEnds": "nothing after"}},
		{"cancelling ends the Conn", conn(func(l *liar) {
			l.send = func(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
				r, err := l.Conn.Send(ctx, img, o)
				if ctx.Err() != nil {
					l.Conn.Close()
				}
				return r, err
			}
		}), pipeProperties, map[string]string{"Cancel": "the next transfer after a cancelled one", "EndedContext": "the next transfer"}},
		{"one at a time", conn(func(l *liar) {
			var mu sync.Mutex
			l.send = func(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
				mu.Lock()
				defer mu.Unlock()
				return l.Conn.Send(ctx, img, o)
			}
		}), pipeProperties, map[string]string{"Parallel": "nothing after"}},
		{"not safe for concurrent use", conn(func(l *liar) {
			var mu sync.Mutex
			l.send = func(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
				if !mu.TryLock() {
					return transport.Receipt{}, &transport.Error{Op: "send", Err: errors.New("busy")}
				}
				defer mu.Unlock()
				time.Sleep(time.Millisecond)
				return l.Conn.Send(ctx, img, o)
			}
		}), pipeProperties, map[string]string{"Concurrent": "concurrent Sends: ", "SendAll": "busy"}},
		{"a goroutine left", conn(func(l *liar) {
			l.send = func(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
				go time.Sleep(time.Hour)
				return l.Conn.Send(ctx, img, o)
			}
		}), pipeProperties, map[string]string{"Metadata": leftBehind}},
		{"Require overlooked", conn(func(l *liar) {
			l.info = func(i *transport.Info) { i.Confirms = transport.Received }
			l.send = func(ctx context.Context, img *transport.Image, o *transport.SendOptions) (transport.Receipt, error) {
				r, err := l.Conn.Send(ctx, img, nil)
				r.Level = min(r.Level, transport.Received)
				return r, err
			}
		}), with(func(p *Properties) { p.Confirms = transport.Received }), map[string]string{"Require": "want ErrUnconfirmed"}},
		{"a limit of its own overlooked", conn(func(*liar) {}), limited, map[string]string{"TooLarge": "want a *TooLargeError", "Info": "MaxImage"}},
		{"a Close that frees nobody", conn(func(l *liar) { l.close = func() error { return nil } }), pipeProperties, map[string]string{"Close": "nothing after"}},
		{"a Close that is not told", badAccept(func(l *liar) { l.close = func() error { return nil } }), pipeProperties, map[string]string{"PeerClose": "nothing after"}},
		{"errors of Close that say nothing", result(func(_ *transport.Receipt, err error) error {
			if errors.Is(err, net.ErrClosed) {
				return &transport.Error{Op: "send", Err: errors.New("it is over")}
			}
			return err
		}), pipeProperties, map[string]string{"Close": `matches "use of closed network connection"`}},
		{"Serve again and again", conn(servesAgain), pipeProperties, map[string]string{"ServeOnce": "want ErrServed"}},
		{"Serve again and again on the listening side", badAccept(servesAgain), oneWay, map[string]string{"ServeOnce": "want ErrServed"}},
		{"a Serve without context on the listening side", badAccept(func(l *liar) {
			l.serve = func(ctx context.Context, in *transport.Inbox) error {
				return l.Conn.Serve(context.WithoutCancel(ctx), in)
			}
		}), oneWay, map[string]string{"ServeContext": "nothing after"}},
		{"the last byte not told", result(func(_ *transport.Receipt, err error) error {
			if e := (*transport.Error)(nil); errors.As(err, &e) && e.Outcome == transport.Unknown {
				return &transport.Error{Op: e.Op, ID: e.ID, Outcome: transport.NotKept, Err: e.Err}
			}
			return err
		}), with(func(p *Properties) { p.Confirms = transport.Received }), map[string]string{"Outcome": "may still agree"}},
		{"messages changed", conn(func(l *liar) {
			l.message = func(ctx context.Context, m transport.Message) error {
				m.Data = append(m.Data, 0)
				return l.Conn.SendMessage(ctx, m)
			}
		}), pipeProperties, map[string]string{"Messages": "or changed"}},
		{"messages lost", conn(func(l *liar) { l.message = func(context.Context, transport.Message) error { return nil } }), pipeProperties, map[string]string{"Messages": "nothing after"}},
		{"refusals of messages lost", conn(func(l *liar) {
			l.message = func(ctx context.Context, m transport.Message) error { l.Conn.SendMessage(ctx, m); return nil }
		}), pipeProperties, map[string]string{"Messages": "that is refused"}},
		{"messages that are not claimed", conn(func(*liar) {}), with(func(p *Properties) { p.Messages = 0 }), map[string]string{"Messages": "want errors.ErrUnsupported", "Info": "messages true"}},
		{"one way only", badAccept(func(l *liar) {
			l.send = transport.UnimplementedConn{}.Send
			l.message = transport.UnimplementedConn{}.SendMessage
		}), pipeProperties, map[string]string{"BothWays": "unsupported", "Messages": "no messages"}},
		{"a Listener that takes its Conns along", accepted(func(l transport.Listener) transport.Listener { return &badListener{Listener: l, closesAll: true} }), pipeProperties,
			map[string]string{"ListenerClose": "accepted Conns live on", "Shutdown": "on its way at Shutdown"}},
		{"an Accept without context", accepted(func(l transport.Listener) transport.Listener { return &badListener{Listener: l, deaf: true} }), pipeProperties,
			map[string]string{"ContextEnds": "nothing after", "EndedContext": "nothing after"}},
		{"an Accept with errors that say nothing", accepted(func(l transport.Listener) transport.Listener { return &badListener{Listener: l, anyError: true} }), pipeProperties,
			map[string]string{"ListenerClose": "matches net.ErrClosed"}},
		{"a Dial without context", func(testing.TB) (transport.Transport, func(net.Addr) transport.Transport) {
			p := &pipes{accept: make(chan transport.Conn, 16)}
			return p, func(net.Addr) transport.Transport { return dialAnyway{p} }
		}, pipeProperties, map[string]string{"EndedContext": "Dial with an ended context"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for check, says := range tt.finds {
				mustComplain(t, transportChecks, check, transportKit{tt.make, tt.p}, says)
			}
		})
	}
}
