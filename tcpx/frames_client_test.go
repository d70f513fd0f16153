package tcpx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// framesField is the server in the field. It serves one connection at a time and
// closes it when the next one comes; each receive is a text; what it does not
// expect it dies of, and an image of one byte or an abandoned one it never leaves.
type framesField struct {
	t      testing.TB
	m      *memNet
	lag    time.Duration
	events chan string
}

func (s *framesField) run() {
	var last net.Conn
	for {
		conn, err := s.m.Accept()
		if err != nil {
			return
		}
		if last != nil {
			last.Close()
		}
		last = conn
		if died := s.serve(newDevField(s.t, conn, s.lag)); died != "" {
			s.events <- "died of " + died
			s.m.Close()
			return
		}
	}
}

func (s *framesField) serve(f *devField) (died string) {
	source := f.recv(1024)
	if format, dir, ok := strings.Cut(source, "|"); !ok {
		return "the source " + strconv.Quote(source)
	} else {
		s.events <- "source " + format + " " + dir
	}
	f.send("ok")
	for {
		header := f.recv(1024)
		length, name, ok := strings.Cut(header, "|")
		size, err := strconv.Atoi(length)
		if !ok || err != nil {
			return "the header " + strconv.Quote(header)
		}
		f.send("ok")
		var body strings.Builder
		for body.Len() < size {
			piece := f.recv(size - body.Len())
			if piece == "" || size == 1 {
				return "an image that never ends"
			}
			body.WriteString(piece)
		}
		f.send("ok")
		s.events <- name + " " + body.String()
		switch next := f.recv(1024); {
		case strings.HasPrefix(next, "continue"): // what is joined to it is lost
		case next == "over":
			s.events <- "over"
			return ""
		default:
			return "the text " + strconv.Quote(next)
		}
	}
}

func newFramesField(t testing.TB) *framesField {
	s := &framesField{t, newMemNet(), 20 * time.Millisecond, make(chan string, 1024)}
	go s.run()
	t.Cleanup(func() { s.m.Close() })
	return s
}

// expect takes the events in their order.
func (s *framesField) expect(want ...string) {
	s.t.Helper()
	for _, w := range want {
		if got := devNext(s.t, w, s.events); got != w {
			s.t.Fatalf("the field server saw %q (%d bytes), want %q (%d)", devShort(got), len(got), devShort(w), len(w))
		}
	}
}

// Must: a pause after continue; connect when the first image is there; do not wait
// for the server's close; over once.
func TestFramesToFieldServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFramesField(t)
		tr := &tcpx.Frames{DialContext: s.m.Dial, Format: "infrared", Dir: "got"}
		for conns := range 3 { // connection after connection
			c := devDial(t, tr)
			time.Sleep(time.Hour)
			if s.m.dialed != conns {
				t.Fatal("Dial connects before the first image is there")
			}
			var want []string
			for i := range 40 {
				name, body := fmt.Sprintf("%d.png", i), devContent(2+i*i*i)
				want = append(want, name+" "+body)
				r, err := c.Send(t.Context(), devImage(name, body), nil)
				if err != nil || r.Level != transport.Received || r.Bytes != int64(len(body)) {
					t.Fatalf("Send of image %d: %+v, %v", i, r, err)
				}
			}
			began := time.Now()
			c.Close()
			c.Close()
			if took := time.Since(began); took > time.Second {
				t.Errorf("Close took %v: it waits for a server that does not close", took)
			}
			s.expect("source infrared got")
			s.expect(want...)
			s.expect("over")
			devNone(t, "more", s.events)
		}
	})
}

// Without the pause the field server takes continue and the next header for one
// text, and both sides wait: ours not for ever.
func TestFramesWithoutPauseToFieldServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFramesField(t)
		c := devDial(t, &tcpx.Frames{DialContext: s.m.Dial, Pause: -1})
		if _, err := c.Send(t.Context(), devImage("0.png", "first"), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Send(t.Context(), devImage("1.png", "second"), nil); !errors.Is(err, transport.ErrIdle) {
			t.Errorf("Send: %v; this field server is meant to need the pause", err)
		}
	})
}

// Defects: an image of one byte hangs the field server, an empty one joins two
// answers. They are refused unless the user knows better, before anything is sent.
func TestTinyFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFramesField(t)
		c := devDial(t, &tcpx.Frames{DialContext: s.m.Dial})
		for _, body := range []string{"", "x"} {
			if _, err := c.Send(t.Context(), devImage("0.png", body), nil); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "Tiny") {
				t.Errorf("Send of %d bytes: %v; want ErrUnsupported and what to do", len(body), err)
			}
		}
		unknown := transport.OpenFunc(func(context.Context) (io.ReadCloser, int64, error) {
			return io.NopCloser(strings.NewReader("abc")), -1, nil
		})
		for _, img := range []*transport.Image{{Name: "0.png", Body: unknown}, devImage("a|b.png", "abc")} {
			if _, err := c.Send(t.Context(), img, nil); !errors.Is(err, errors.ErrUnsupported) || transport.Retryable(err) {
				t.Errorf("Send of %q: %v; want ErrUnsupported", img.Name, err)
			}
		}
		if s.m.dialed > 0 {
			t.Error("an image that is refused here makes a connection")
		}
		m := newMemNet()
		r := devServe(t, &tcpx.Frames{Listener: m}, nil)
		c = devDial(t, &tcpx.Frames{DialContext: m.Dial, Tiny: true})
		for _, body := range []string{"", "x", "", "xy"} {
			if _, err := c.Send(t.Context(), devImage("0.png", body), nil); err != nil {
				t.Errorf("Send of %d bytes with Tiny: %v", len(body), err)
			}
			if got := devNext(t, "the image", r.taken); got.body != body {
				t.Errorf("%q came for %q", got.body, body)
			}
		}
	})
}

// answersTo scripts a server: for each send of the client, what it says and when.
func answersTo(m *memNet, say func(conn net.Conn, n int, text string)) {
	for conn, err := m.Accept(); err == nil; conn, err = m.Accept() {
		go func() {
			defer conn.Close()
			buf := make([]byte, 64<<10)
			for n := 0; ; n++ {
				k, err := conn.Read(buf)
				if err != nil {
					return
				}
				say(conn, n, string(buf[:k]))
			}
		}()
	}
}

// Every answer is lost, late, doubled, garbled, cut, or a close, in turn: Send ends
// in bounded time, and the next image works.
func TestFramesAnswers(t *testing.T) {
	const text = "an image"
	for _, fault := range []string{"none", "lost", "late", "too late", "doubled", "tenfold", "garbled", "half", "closed"} {
		for at := range 3 { // source, header, image
			t.Run(fmt.Sprint(fault, " ", at), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newMemNet()
					defer m.Close()
					defer time.Sleep(time.Minute)
					whole := make(chan string, 16)
					var once atomic.Bool
					go answersTo(m, func(conn net.Conn, n int, s string) {
						if s == "continue" || s == "over" {
							return
						}
						if s == text || s == "next" {
							whole <- s
						}
						answer := "ok"
						if n == at && !once.Swap(true) {
							switch fault {
							case "lost":
								return
							case "late":
								time.Sleep(29 * time.Second)
							case "too late":
								time.Sleep(31 * time.Second)
							case "doubled":
								answer = "okok"
							case "tenfold":
								answer = strings.Repeat("ok", 10)
							case "garbled":
								answer = "no"
							case "half":
								answer = "o"
							case "closed":
								conn.Close()
								return
							}
						}
						io.WriteString(conn, answer)
					})
					c := devDial(t, &tcpx.Frames{DialContext: m.Dial})
					began := time.Now()
					_, err := c.Send(t.Context(), devImage("a.png", text), nil)
					if took := time.Since(began); took > 31*time.Second {
						t.Errorf("Send took %v", took)
					}
					fine := fault == "none" || fault == "late" || fault == "doubled" || fault == "tenfold"
					if (err == nil) != fine {
						t.Fatalf("Send: %v", err)
					}
					if err == nil {
						devNext(t, "the image", whole)
					} else {
						e := (*transport.Error)(nil)
						want := transport.NotKept
						if at == 2 {
							want = transport.Unknown
						}
						if !errors.As(err, &e) || e.Outcome != want || !transport.Retryable(err) {
							t.Errorf("Send: %v; want the outcome %v, retryable", err, want)
						}
						if !strings.Contains(err.Error(), "the server at ") {
							t.Errorf("Send does not say where: %v", err)
						}
						for len(whole) > 0 {
							<-whole
						}
					}
					time.Sleep(time.Second)
					if _, err := c.Send(t.Context(), devImage("b.png", "next"), nil); err != nil {
						t.Fatalf("the next image: %v", err)
					}
					if got := devNext(t, "the next image", whole); got != "next" {
						t.Errorf("%q came", got)
					}
				})
			})
		}
	}
}

// An empty image has gone with its header, so that from there on the server may have it.
func TestEmptyFrameIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet()
		defer m.Close()
		go answersTo(m, func(conn net.Conn, n int, _ string) {
			if n == 0 {
				io.WriteString(conn, "ok")
			} else {
				conn.Close()
			}
		})
		c := devDial(t, &tcpx.Frames{DialContext: m.Dial, Tiny: true})
		_, err := c.Send(t.Context(), devImage("a.png", ""), nil)
		if e := (*transport.Error)(nil); !errors.As(err, &e) || e.Outcome != transport.Unknown {
			t.Errorf("Send: %v; want the outcome %v", err, transport.Unknown)
		}
	})
}

// A surplus answer that comes before all was sent does not stand for the image's.
func TestEarlyAnswerConfirmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet()
		defer m.Close()
		go answersTo(m, func(conn net.Conn, n int, s string) {
			if n < 2 {
				io.WriteString(conn, "okok") // and nothing for the image
			}
		})
		c := devDial(t, &tcpx.Frames{DialContext: m.Dial})
		if _, err := c.Send(t.Context(), devImage("a.png", devContent(100_000)), nil); !errors.Is(err, transport.ErrIdle) {
			t.Errorf("Send: %v; want ErrIdle, for the image was never answered", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet()
		defer m.Close()
		go answersTo(m, func(conn net.Conn, n int, s string) {
			if n < 3 {
				io.WriteString(conn, "okok") // and nothing for the second image
			} else if s == "short" {
				t.Error("the image was sent although its header was never answered")
			}
		})
		c := devDial(t, &tcpx.Frames{DialContext: m.Dial})
		for _, want := range []error{nil, transport.ErrIdle} {
			if _, err := c.Send(t.Context(), devImage("a.png", "short"), nil); !errors.Is(err, want) {
				t.Errorf("Send: %v; want %v", err, want)
			}
		}
	})
}

// Cancel between images leaves the connection; in mid-image it ends it, and the next
// image makes another one. Close says over once, and only after an image.
func TestFramesCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet()
		r := devServe(t, &tcpx.Frames{Listener: m}, nil)
		c := devDial(t, &tcpx.Frames{DialContext: m.Dial})
		send := func(ctx context.Context, img *transport.Image, want error, conns int) {
			t.Helper()
			_, err := c.Send(ctx, img, nil)
			if !errors.Is(err, want) {
				t.Errorf("Send: %v; want %v", err, want)
			}
			if want == nil {
				devNext(t, "the image", r.taken)
			}
			if m.dialed != conns {
				t.Errorf("%d connections, want %d", m.dialed, conns)
			}
		}
		soon := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			t.Cleanup(cancel)
			return ctx
		}
		stuck := func() *transport.Image {
			return &transport.Image{Name: "stuck.png", Body: transport.OpenFunc(func(ctx context.Context) (io.ReadCloser, int64, error) {
				pr, pw := io.Pipe()
				context.AfterFunc(ctx, func() { pw.Close() })
				return io.NopCloser(io.MultiReader(strings.NewReader(devContent(50_000)), pr)), 100_000, nil
			})}
		}
		one := devImage("one.png", "one")
		send(t.Context(), one, nil, 1)
		send(soon(), one, context.DeadlineExceeded, 1) // in the pause after continue
		send(soon(), one, context.DeadlineExceeded, 1)
		send(t.Context(), one, nil, 1) // continue is not said again
		late, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		send(late, stuck(), context.DeadlineExceeded, 1)
		if err := devNext(t, "the failure", r.failed); !strings.Contains(err.Error(), "50000 of 100000 bytes") && !strings.Contains(err.Error(), "incomplete") {
			t.Errorf("the half image failed with %v", err)
		}
		devNone(t, "a part", r.taken)
		send(t.Context(), one, nil, 2)
		send(soon(), one, context.DeadlineExceeded, 2)
		c.Close() // after continue: the server here takes over for that too
		for i := range 2 {
			if err := devNext(t, "the end", r.ended); (err == nil) != (i == 1) {
				t.Errorf("Serve %d ended with %v", i, err)
			}
		}
	})
}

// A connection that the server has given up between images is replaced by the next.
func TestFramesAfterIdleServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet()
		r := devServe(t, &tcpx.Frames{Listener: m, IdleTimeout: time.Minute}, nil)
		c := devDial(t, &tcpx.Frames{DialContext: m.Dial})
		for i := range 3 {
			if _, err := c.Send(t.Context(), devImage("a.png", "image"), nil); err != nil {
				t.Fatal(err)
			}
			devNext(t, "the image", r.taken)
			if err := devNext(t, "the end", r.ended); !errors.Is(err, transport.ErrIdle) {
				t.Errorf("Serve ended with %v; want ErrIdle", err)
			}
			synctest.Wait()
			if m.dialed != i+1 {
				t.Errorf("%d connections for %d images", m.dialed, i+1)
			}
		}
	})
}

func TestFramesOptionsAreChecked(t *testing.T) {
	for _, f := range []*tcpx.Frames{{Format: "a|b"}, {Dir: "a/b"}, {Dir: ".."}, {Format: strings.Repeat("f", 1100)}, {Format: "a\n"}} {
		if _, err := f.Dial(t.Context()); err == nil {
			t.Errorf("Dial with the source %.20q|%.20q succeeds", f.Format, f.Dir)
		}
	}
	if _, err := (&tcpx.Command{Listener: newMemNet(), Commands: []string{""}}).Listen(t.Context()); err == nil {
		t.Error("Listen with an empty command succeeds")
	}
}
