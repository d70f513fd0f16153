package tcpx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// commandField is the server in the field: each receive is a text, a command it
// does not know it ignores, and it never closes its side.
func commandField(t testing.TB, m *memNet, lag time.Duration, events chan<- string) {
	serve := func(conn net.Conn) {
		f := newDevField(t, conn, lag)
		f.send("hello client")
		if f.recv(1024) != "hello server" {
			return
		}
		for {
			switch f.recv(1) {
			case "c":
				if command := f.recv(1024); command == "weeding" || command == "stop" {
					events <- command
				}
			case "f":
				var file strings.Builder
				for piece := f.recv(1024); piece != ""; piece = f.recv(1024) {
					file.WriteString(piece)
				}
				events <- file.String()
				return
			case "":
				return
			}
		}
	}
	for conn, err := m.Accept(); err == nil; conn, err = m.Accept() {
		go serve(conn)
		t.Cleanup(func() { conn.Close() })
	}
}

// Must: the client pauses after every text, also between c and the command. Must:
// the server never closes its side, and the client is done all the same.
func TestCommandToFieldServer(t *testing.T) {
	for _, pause := range []time.Duration{0, 200 * time.Millisecond, -1} {
		t.Run(fmt.Sprint("pause ", pause), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, events := newMemNet(), make(chan string, 16)
				go commandField(t, m, 100*time.Millisecond, events)
				defer m.Close()
				c := devDial(t, &tcpx.Command{DialContext: m.Dial, Pause: pause})
				if m.dialed > 0 {
					t.Error("Dial connects before there is something to send")
				}
				missed := 0
				expect := func(want string) {
					t.Helper()
					time.Sleep(time.Minute)
					select {
					case got := <-events:
						if got == want {
							return
						}
					default:
					}
					missed++
				}
				for _, n := range []int{1, 1023, 1025, 35_935} {
					for _, command := range []string{"weeding", "stop"} {
						if err := c.SendMessage(t.Context(), transport.Message{Data: []byte(command)}); err != nil {
							t.Fatalf("SendMessage: %v", err)
						}
						expect(command)
					}
					began := time.Now()
					want := devContent(n)
					if r, err := c.Send(t.Context(), devImage("", want), nil); err != nil || r.Level != transport.Sent {
						t.Fatalf("Send of %d bytes: %+v, %v", n, r, err)
					}
					if took := time.Since(began); took > time.Minute {
						t.Errorf("Send of %d bytes took %v: it waits for a server that never closes", n, took)
					}
					expect(want)
				}
				if (missed == 0) != (pause >= 0) {
					t.Errorf("with pause %v the field server missed %d of 12; the pause is what it needs", pause, missed)
				}
				if pause >= 0 && m.dialed != 4 {
					t.Errorf("%d connections for 4 times two commands and an image; want one for each image", m.dialed)
				}
			})
		})
	}
}

// Commands that follow each other wait for the pause without holding their callers.
func TestCommandsKeepApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet()
		r := devServe(t, &tcpx.Command{Listener: m}, nil)
		c := devDial(t, &tcpx.Command{DialContext: m.Dial})
		began := time.Now()
		want := []string{"left", "cf", "c", "f", "right", "fcc"}
		for _, command := range want {
			if err := c.SendMessage(t.Context(), transport.Message{Data: []byte(command)}); err != nil {
				t.Fatal(err)
			}
		}
		if took, least := time.Since(began), 12*300*time.Millisecond; took != least {
			t.Errorf("6 commands took %v; want %v", took, least) // after hello, and 11 times between texts
		}
		if _, err := c.Send(t.Context(), devImage("", "picture"), nil); err != nil {
			t.Fatal(err)
		}
		for _, command := range want {
			if got := devNext(t, "a command", r.commands); got != command {
				t.Errorf("%q came, want %q", got, command)
			}
		}
		if got := devNext(t, "the image", r.taken); got.body != "picture" {
			t.Errorf("%q came", got.body)
		}
		for _, bad := range []string{"", "a\x00b", "\xff", strings.Repeat("x", 1025)} {
			if err := c.SendMessage(t.Context(), transport.Message{Data: []byte(bad)}); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("the command %.10q: %v; want ErrUnsupported", bad, err)
			}
		}
	})
}

// Defect: one send is not one receive. Everything runs together, or comes in pieces,
// and | stands for a pause between sends.
func TestCommandFromFieldClient(t *testing.T) {
	known := []string{"weeding", "weed", "stop", "s"}
	for _, tt := range []struct {
		stream   string
		known    []string
		commands string // joined by commas
		image    string
		err      string
	}{
		{stream: "hello servercweedingfBMx", known: known, commands: "weeding", image: "BMx", err: "cut"},
		{stream: "hello servercweedingfraw", known: known, commands: "weeding", image: "raw"},
		{stream: "hello servercweedfaw", known: known, commands: "weed", image: "aw"},
		{stream: "hello servercweedcstopcscweedingfraw", known: known, commands: "weed,stop,s,weeding", image: "raw"},
		{stream: "hello server|c|weeding|f|raw", known: known, commands: "weeding", image: "raw"},
		{stream: "hello server|c|weeding|f|raw", commands: "weeding", image: "raw"},
		{stream: "hello server|cweeding|cstop|fraw", commands: "weeding,stop", image: "raw"},
		{stream: "hel|lo ser|ver|c|weeding|f|r|a|w", commands: "weeding", image: "raw"},
		{stream: "hello servercweeding|f|raw", commands: "weeding", image: "raw"},
		{stream: "hello server|c|wxyz|f|raw", known: known, commands: "wxyz", image: "raw"}, // unknown, up to the pause
		{stream: "hello server|c|sow|f|raw", known: known, commands: "sow", image: "raw"},   // begins with a known one
		{stream: "hello server|c|wee|f|raw", known: known, commands: "wee", image: "raw"},   // is the beginning of one
		{stream: "hello server|c|fcfc|f|begin to send", commands: "fcfc", image: "begin to send"},
		{stream: "hello server|c|stop", commands: "stop"}, // the stream's end ends it too
		{stream: "hello server"},
		{stream: ""},
		{stream: "hello server|c", err: "no command came"},
		{stream: "hello server|f", err: "no image came"},
		{stream: "hello server|x|f|raw", err: "is due"},
		{stream: "hello sXrver|c", err: "is due"},
		{stream: "hello ser", err: `behind "hello ser": unexpected EOF`},
		{stream: "hello servercweedingf\x00\x01\x02", err: "name the command in Commands"},
		{stream: "hello serverc" + strings.Repeat("long", 300), err: "at most 1024"},
	} {
		t.Run(devShort(tt.stream), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, size := range []int{1, 2, 3, 5, 7, 1 << 16} { // of the pieces, a little apart
					m := newMemNet()
					r := devServe(t, &tcpx.Command{Listener: m, Commands: tt.known}, nil)
					conn, _ := m.Dial(t.Context(), "", "")
					go io.Copy(io.Discard, conn)
					for _, send := range strings.Split(tt.stream, "|") {
						for len(send) > 0 {
							n := min(size, len(send))
							io.WriteString(conn, send[:n])
							send = send[n:]
							time.Sleep(40 * time.Millisecond)
						}
						time.Sleep(200 * time.Millisecond)
					}
					conn.Close()
					if err := devNext(t, "the end", r.ended); (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
						t.Errorf("in pieces of %d: Serve ended with %v; want %q", size, err, tt.err)
					}
					close(r.commands)
					var commands []string
					for command := range r.commands {
						commands = append(commands, command)
					}
					if got := strings.Join(commands, ","); got != tt.commands {
						t.Errorf("in pieces of %d: the commands %q came, want %q", size, got, tt.commands)
					}
					if tt.image == "" || tt.err != "" {
						devNone(t, "an image", r.taken)
					} else if got := devNext(t, "the image", r.taken); got.body != tt.image {
						t.Errorf("in pieces of %d: the image %q came, want %q", size, got.body, tt.image)
					}
				}
			})
		})
	}
}

func TestCommandSizesOverTCP(t *testing.T) {
	r := devServe(t, &tcpx.Command{Addr: "127.0.0.1:0", Commands: []string{"weeding"}}, nil)
	c := devDial(t, &tcpx.Command{Addr: r.addr, Pause: -1})
	for _, n := range devSizes {
		if err := c.SendMessage(t.Context(), transport.Message{Data: []byte("weeding")}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Send(t.Context(), devImage("", devContent(n)), nil); err != nil {
			t.Fatal(err)
		}
		if got := devNext(t, "the command", r.commands); got != "weeding" {
			t.Errorf("the command %q came", got)
		}
		if got := devNext(t, "the image", r.taken); got.body != devContent(n) {
			t.Errorf("%d of %d bytes came, or changed", len(got.body), n)
		}
	}
}

// A Server without a Message func, and one that refuses, take the image all the same.
func TestCommandThatIsRefused(t *testing.T) {
	for _, message := range []func(context.Context, transport.Conn, transport.Message) error{
		nil, func(context.Context, transport.Conn, transport.Message) error { return transport.Reject("no") },
	} {
		r := devServe(t, &tcpx.Command{Addr: "127.0.0.1:0", Commands: []string{"a"}}, func(s *transport.Server) { s.Message = message })
		c := devDial(t, &tcpx.Command{Addr: r.addr, Pause: -1})
		if err := c.SendMessage(t.Context(), transport.Message{Data: []byte("a")}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Send(t.Context(), devImage("", "picture"), nil); err != nil {
			t.Fatal(err)
		}
		devNext(t, "the image", r.taken)
	}
}

// A command that is cancelled while it waits costs nothing; one that is cancelled
// between c and itself costs the connection, since the server is in the middle.
func TestCancelledCommand(t *testing.T) {
	for _, tt := range []struct {
		after time.Duration
		conns int
	}{{100 * time.Millisecond, 1}, {400 * time.Millisecond, 2}} {
		synctest.Test(t, func(t *testing.T) {
			m := newMemNet()
			r := devServe(t, &tcpx.Command{Listener: m}, nil)
			c := devDial(t, &tcpx.Command{DialContext: m.Dial})
			ctx, cancel := context.WithTimeout(t.Context(), tt.after)
			defer cancel()
			if err := c.SendMessage(ctx, transport.Message{Data: []byte("one")}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("SendMessage: %v; want the context's error", err)
			}
			if err := c.SendMessage(t.Context(), transport.Message{Data: []byte("two")}); err != nil {
				t.Fatal(err)
			}
			if got := devNext(t, "a command", r.commands); got != "two" {
				t.Errorf("%q came, want two", got)
			}
			if m.dialed != tt.conns {
				t.Errorf("%d connections, want %d", m.dialed, tt.conns)
			}
			c.Close()
			if err := c.SendMessage(t.Context(), transport.Message{Data: []byte("three")}); !errors.Is(err, net.ErrClosed) {
				t.Errorf("SendMessage after Close: %v", err)
			}
		})
	}
}

// Close frees a SendMessage that waits.
func TestCloseFreesCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet()
		defer m.Close()
		c := devDial(t, &tcpx.Command{DialContext: m.Dial}) // and nobody accepts
		done := make(chan error, 1)
		go func() { done <- c.SendMessage(t.Context(), transport.Message{Data: []byte("x")}) }()
		synctest.Wait()
		c.Close()
		if err := devNext(t, "the end of SendMessage", done); !errors.Is(err, transport.ErrClosed) {
			t.Errorf("SendMessage: %v; want ErrClosed", err)
		}
	})
}
