package udpx_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/udpx"
)

// exchanges are the ways to send something that is answered.
var exchanges = []struct {
	name   string
	answer string
	make   func(n *network, to net.Addr) transport.Transport
	send   func(ctx context.Context, c transport.Conn) error
	tail   int // the last datagram's bytes
}{
	{"Datagram", "get message!!!", func(n *network, to net.Addr) transport.Transport {
		return &udpx.Datagram{Socket: n.sockets, Addr: to.String(), AnswerTimeout: 3 * time.Second}
	}, sendPhoto, 3000},
	{"Header", "get message!!!", func(n *network, to net.Addr) transport.Transport {
		return &udpx.Header{Socket: n.sockets, Addr: to.String(), AnswerTimeout: 3 * time.Second}
	}, sendPhoto, 3000 - 2048},
	{"JSON", "get the msg", func(n *network, to net.Addr) transport.Transport {
		return &udpx.JSON{Socket: n.sockets, Addr: to.String(), AnswerTimeout: 3 * time.Second}
	}, func(ctx context.Context, c transport.Conn) error {
		return c.SendMessage(ctx, transport.Message{Data: []byte(`{"ok": true}`)})
	}, len(`{"ok": true}`)},
}

func sendPhoto(ctx context.Context, c transport.Conn) error {
	_, err := c.Send(ctx, &transport.Image{Body: transport.Bytes(photo[:3000])}, nil)
	return err
}

// Whatever becomes of the answer, Send ends with success or a clear error, and the next
// one works.
func TestAnswers(t *testing.T) {
	rejected := func(err error) bool {
		r := (*transport.RejectedError)(nil)
		return errors.As(err, &r) && outcomeOf(err) == transport.Rejected
	}
	unknown := func(err error) bool { return err != nil && outcomeOf(err) == transport.Unknown }
	type reply = func(s *node, stranger *node, from net.Addr, good string)
	for _, tt := range []struct {
		name   string
		reply  reply
		ok     func(err error) bool // nil: it succeeds
		moves  bool                 // the next one leaves from another port
		images bool                 // a JSON text may be answered anything
	}{
		{"lost", func(*node, *node, net.Addr, string) {}, unknown, true, false},
		{"doubled", func(s, _ *node, from net.Addr, good string) {
			s.WriteTo([]byte(good), from)
			s.WriteTo([]byte(good), from)
		}, nil, false, false},
		{"late", func(s, _ *node, from net.Addr, good string) {
			time.AfterFunc(3*time.Second, func() { s.WriteTo([]byte(good), from) })
		}, unknown, true, false},
		{"from a stranger only", func(_, stranger *node, from net.Addr, good string) {
			stranger.WriteTo([]byte(good), from)
		}, unknown, true, false},
		{"first from a stranger", func(s, stranger *node, from net.Addr, good string) {
			stranger.WriteTo([]byte("bad image"), from)
			time.AfterFunc(time.Second, func() { s.WriteTo([]byte(good), from) })
		}, nil, false, false},
		{"after a while", func(s, _ *node, from net.Addr, good string) {
			time.AfterFunc(2900*time.Millisecond, func() { s.WriteTo([]byte(good), from) })
		}, nil, false, false},
		{"garbled", func(s, _ *node, from net.Addr, good string) {
			s.WriteTo([]byte(strings.Replace(good, "g", "G", 1)), from)
		}, unknown, true, true},
		{"cut", func(s, _ *node, from net.Addr, good string) { s.WriteTo([]byte(good[:5]), from) }, unknown, true, true},
		{"empty", func(s, _ *node, from net.Addr, _ string) { s.WriteTo(nil, from) }, unknown, true, true},
		{"an error", func(s, _ *node, from net.Addr, good string) {
			if good == "get the msg" {
				s.WriteTo([]byte("no such command \xff"), from)
			} else {
				s.WriteTo([]byte("bad image"), from)
			}
		}, rejected, false, false},
	} {
		for _, x := range exchanges {
			if tt.images && x.name == "JSON" {
				continue
			}
			t.Run(x.name+" "+tt.name, func(t *testing.T) {
				deviceBubble(t, func(t *testing.T, n *network) {
					s, stranger := n.socket(), n.socket()
					defer s.Close()
					var ports []string // of what was complete
					go func() {
						b := make([]byte, 65536)
						for {
							size, from, err := s.ReadFrom(b)
							switch {
							case err != nil:
								return
							case size != x.tail:
								continue
							case len(ports) == 0:
								tt.reply(s, stranger, from, x.answer)
							default:
								// Soon enough for late answers to the first one to come before.
								time.AfterFunc(time.Second, func() { s.WriteTo([]byte(x.answer), from) })
							}
							ports = append(ports, from.String())
						}
					}()
					c := dialDevice(t, x.make(n, s.LocalAddr()))
					start := time.Now()
					err := x.send(t.Context(), c)
					if tt.ok == nil && err != nil || tt.ok != nil && !tt.ok(err) {
						t.Errorf("the answer is %s: %v", tt.name, err)
					}
					if took := time.Since(start); took > 4*time.Second {
						t.Errorf("it took %v", took)
					}
					if err != nil && x.name == "JSON" && tt.name == "an error" && !strings.Contains(err.Error(), "no such command") {
						t.Errorf("the receiver's text is lost: %v", err)
					}
					time.Sleep(20 * time.Millisecond) // for the double, which has no identity
					start = time.Now()
					if err := x.send(t.Context(), c); err != nil {
						t.Errorf("the next one: %v", err)
					}
					if took := time.Since(start); took < time.Second {
						t.Errorf("the next one took another's answer after %v", took)
					}
					if len(ports) != 2 || (ports[0] != ports[1]) != tt.moves {
						t.Errorf("they came from %v; another port is wanted: %v", ports, tt.moves)
					}
				})
			})
		}
	}
}

// An answer that comes before all was sent is none.
func TestEarlyAnswer(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		s := n.socket()
		defer s.Close()
		var done time.Time
		go func() {
			b := make([]byte, 2048)
			for got := -8; got < 100_000; {
				size, from, err := s.ReadFrom(b)
				if err != nil {
					return
				}
				if got += size; got < 50_000 {
					s.WriteTo([]byte("get message!!!"), from)
				} else if got == 100_000 {
					time.Sleep(time.Second)
					done = time.Now()
					s.WriteTo([]byte("get message!!!"), from)
				}
			}
		}()
		c := dialDevice(t, &udpx.Header{Socket: n.sockets, Addr: s.LocalAddr().String()})
		if err := sendImage(t, c, photo[:100_000]); err != nil {
			t.Fatal(err)
		}
		if done.IsZero() {
			t.Error("an early answer was taken")
		}
	})
}

// After an image that was given up half-way the next one is taken cleanly.
func TestHeaderCancelled(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		got, addrs := serveDevices(t, &udpx.Header{Socket: n.sockets})
		c := dialDevice(t, &udpx.Header{Socket: n.sockets, Addr: addrs[0].String()})
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			_, err := c.Send(ctx, &transport.Image{Body: transport.Bytes(photo[:200_000])}, nil)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || outcomeOf(err) != transport.NotKept {
				t.Errorf("cancelled half-way: %v", err)
			}
			if err := sendImage(t, c, photo[:5000]); err != nil {
				t.Error(err)
			}
			got.image(t, photo[:5000])
		}
		got.nothing(t)
	})
}

func TestNoAnswerTimeout(t *testing.T) {
	deviceBubble(t, func(t *testing.T, n *network) {
		s := n.socket()
		c := dialDevice(t, &udpx.Header{Socket: n.sockets, Addr: s.LocalAddr().String(), AnswerTimeout: -1})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err := c.Send(ctx, &transport.Image{Body: transport.Bytes(photo[:5000])}, nil)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Hour || outcomeOf(err) != transport.Unknown {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestNobodyListens(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("package net turns the system's word for it off")
	}
	pc := loopback(t)
	addr := pc.LocalAddr().String()
	pc.Close()
	c := dialDevice(t, &udpx.Datagram{Addr: addr})
	if err := sendImage(t, c, photo[:100]); !errors.Is(err, transport.ErrNoReceiver) {
		t.Errorf("nobody listens: %v", err)
	}
	l, err := (&udpx.Datagram{Addr: addr}).Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	srv := &transport.Server{Store: &transport.MemStore{}}
	go srv.Serve(t.Context(), l)
	defer srv.Shutdown(context.Background())
	if err := sendImage(t, c, photo[:100]); err != nil {
		t.Errorf("somebody listens now: %v", err)
	}
}
