package tcpx_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/internal/testimage"
	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// beginField is the server in the field: its first receive is the text, whatever
// else is in it, and the rest is the file.
func beginField(t testing.TB, m *memNet, lag time.Duration, stored chan<- string) {
	for {
		conn, err := m.Accept()
		if err != nil {
			return
		}
		f := newDevField(t, conn, lag)
		f.send("Welcome from server!")
		if text := f.recv(1024); text != "begin to send" {
			t.Logf("the field server takes %q for the text", devShort(text))
		}
		var file strings.Builder
		for piece := f.recv(1024); piece != ""; piece = f.recv(1024) {
			file.WriteString(piece)
		}
		conn.Close()
		stored <- file.String()
	}
}

// Must: the client pauses after its text.
func TestBeginToFieldServer(t *testing.T) {
	for _, pause := range []time.Duration{0, -1} {
		t.Run(fmt.Sprint("pause ", pause), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, stored := newMemNet(), make(chan string, 1)
				go beginField(t, m, 20*time.Millisecond, stored)
				defer m.Close()
				c := devDial(t, &tcpx.Begin{DialContext: m.Dial, Pause: pause})
				for _, n := range []int{1, 1023, 1024, 1025, 35_935} {
					want := devContent(n)
					r, err := c.Send(t.Context(), devImage("", want), nil)
					if err != nil || r.Level != transport.Sent || r.Bytes != int64(n) {
						t.Fatalf("Send of %d bytes: %+v, %v", n, r, err)
					}
					if got := devNext(t, "the file", stored); (got == want) != (pause == 0) {
						t.Errorf("with pause %v the field server stored %d of %d bytes; the pause is what it needs", pause, len(got), n)
					}
				}
			})
		})
	}
}

// Defect: the client in the field relies on one send being one receive. Its text
// and the file come cut and joined in every way.
func TestBeginFromFieldClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet()
		r := devServe(t, &tcpx.Begin{Listener: m, Name: "cam-{n}.raw"}, nil)
		number := 0
		stream := func(want string, cuts ...int) {
			t.Helper()
			number++
			conn, _ := m.Dial(t.Context(), "", "")
			welcome := make([]byte, 20)
			io.ReadFull(conn, welcome)
			if string(welcome) != "Welcome from server!" {
				t.Fatalf("the server said %q", welcome)
			}
			s, at := "begin to send"+want, 0
			for _, cut := range append(cuts, len(s)) {
				conn.Write([]byte(s[at:cut]))
				time.Sleep(250 * time.Millisecond)
				at = cut
			}
			conn.Close()
			got := devNext(t, "the image", r.taken)
			if got.body != want || got.name != fmt.Sprintf("cam-%d.raw", number) {
				t.Errorf("cut at %v: %d bytes came as %q with %d", cuts, len(want), got.name, len(got.body))
			}
			if err := devNext(t, "the end", r.ended); err != nil {
				t.Errorf("cut at %v: Serve ended with %v", cuts, err)
			}
		}
		for cut := 1; cut < 17; cut++ {
			stream("begin to send is data here", cut)
			stream("begin to send is data here", cut, 20)
		}
		for _, n := range devSizes {
			stream(devContent(n))
			stream(devContent(n), 13)
		}
	})
}

// An early close in good order, such as that of a device that loses its power, is
// told from the image's own structure. Of raw bytes it cannot be told.
func TestCutImagesAreNotTaken(t *testing.T) {
	pictures := map[string]string{"bmp": string(testimage.BMP(1, 40, 30)), "jpeg": string(testimage.JPEG(1, 40, 30)), "png": string(testimage.PNG(1, 40, 30))}
	for name, head := range map[string]string{"begin": "begin to send", "command": "hello serverf"} {
		synctest.Test(t, func(t *testing.T) {
			m := newMemNet()
			var tr transport.Transport = &tcpx.Begin{Listener: m}
			if name == "command" {
				tr = &tcpx.Command{Listener: m}
			}
			r := devServe(t, tr, nil)
			stream := func(s string) {
				conn, _ := m.Dial(t.Context(), "", "")
				go io.Copy(io.Discard, conn)
				io.WriteString(conn, s)
				conn.Close()
			}
			for format, whole := range pictures {
				for _, n := range []int{3, len(whole) / 2, len(whole) - 1} {
					stream(head + whole[:n])
					refusal := (*transport.RejectedError)(nil)
					if err := devNext(t, "the failure", r.failed); !errors.As(err, &refusal) || refusal.Reason != transport.ReasonIncomplete {
						t.Errorf("%s: a %s cut to %d of %d bytes: %v; want ReasonIncomplete", name, format, n, len(whole), err)
					}
					devNone(t, "a part", r.taken)
				}
				stream(head + whole)
				if got := devNext(t, "the image", r.taken); got.body != whole || !strings.HasSuffix(got.name, map[string]string{"bmp": ".bmp", "jpeg": ".jpg", "png": ".png"}[format]) {
					t.Errorf("%s: the %s came as %q with %d of %d bytes", name, format, got.name, len(got.body), len(whole))
				}
			}
			stream(head)
			for range 3*4 + 1 {
				err := devNext(t, "the end", r.ended)
				if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(err.Error(), "closed early") {
					t.Errorf("%s: Serve ended with %v", name, err)
				}
			}
			devNone(t, "an image of no bytes", r.taken)
			stream(head + "raw bytes")
			devNext(t, "raw bytes", r.taken)
		})
	}
}

// A device that does not read the welcome to its end resets the connection by its close. What proves by itself that
// it is whole is taken nevertheless, and nothing else.
func TestDeviceThatDoesNotReadTheWelcome(t *testing.T) {
	whole := string(testimage.JPEG(1, 40, 30))
	for head, tr := range map[string]transport.Transport{"begin to send": &tcpx.Begin{Addr: "127.0.0.1:0"}, "hello serverf": &tcpx.Command{Addr: "127.0.0.1:0"}} {
		r := devServe(t, tr, nil)
		padded := whole + "\x00\xff\x00\x00"
		for _, body := range []string{whole[:len(whole)-1], "raw bytes", whole + "more", whole, padded} {
			conn, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, head+body)
			conn.Close()
			if body == whole || body == padded {
				if got := devNext(t, "the image", r.taken); got.body != body {
					t.Errorf("%d of %d bytes", len(got.body), len(whole))
				}
			} else if err := devNext(t, "the failure", r.failed); !strings.Contains(err.Error(), "incomplete") {
				t.Errorf("%d bytes: %v", len(body), err)
			}
		}
	}
}

// A reset may overtake what was not read yet, on Windows for one. Behind all of an image it is the end, whatever the system
// calls it.
func TestResetBehindAnImage(t *testing.T) {
	const text = "begin to send"
	whole := string(testimage.JPEG(1, 40, 30))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	r := devServe(t, &tcpx.Begin{Listener: readsListener{l, len(text) + len(whole), read}}, nil)
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, text+whole)
	devNext(t, "all of it", read)
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
	select {
	case got := <-r.taken:
		if got.body != whole {
			t.Errorf("%d of %d bytes", len(got.body), len(whole))
		}
	case err := <-r.failed:
		t.Error(err)
	}
}

// A camera that sleeps as soon as it has sent does not close. After Timeout, what proves by itself that it is whole is taken.
func TestSilenceBehindAnImage(t *testing.T) {
	whole := string(testimage.JPEG(1, 40, 30))
	padded := whole + "\x00\xff\x00\x00"
	for _, body := range []string{whole[:len(whole)-1], "raw bytes", whole + "more", whole, padded} {
		synctest.Test(t, func(t *testing.T) {
			m := newMemNet()
			r := devServe(t, &tcpx.Begin{Listener: m}, nil)
			conn, _ := m.Dial(t.Context(), "", "")
			defer conn.Close()
			go io.Copy(io.Discard, conn)
			began := time.Now()
			io.WriteString(conn, "begin to send"+body)
			if err := devNext(t, "the end", r.ended); (err == nil) != (body == whole || body == padded) || time.Since(began) != 30*time.Second {
				t.Errorf("%d bytes: %v after %v", len(body), err, time.Since(began))
			}
			if body == whole || body == padded {
				if got := devNext(t, "the image", r.taken); got.body != body {
					t.Errorf("%d of %d bytes", len(got.body), len(whole))
				}
			}
			devNone(t, "an image", r.taken)
		})
	}
}

// readsListener tells when so many bytes of its one connection have been read.
type readsListener struct {
	net.Listener
	bytes int
	read  chan struct{}
}

func (l readsListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return &readsConn{conn, l.bytes, l.read}, err
}

type readsConn struct {
	net.Conn
	left int
	read chan struct{}
}

func (c *readsConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.left -= n; c.left == 0 && n > 0 {
		close(c.read)
	}
	return n, err
}

// What is cancelled, or fails, half-way is never taken for whole, although the end
// of the connection is the end of the image.
func TestAbandonedImagesAreNotTaken(t *testing.T) {
	for _, tr := range []func(addr string) transport.Transport{
		func(addr string) transport.Transport { return &tcpx.Begin{Addr: addr, Pause: -1} },
		func(addr string) transport.Transport { return &tcpx.Command{Addr: addr, Pause: -1} },
		func(addr string) transport.Transport {
			return &tcpx.Frames{Addr: addr, Pause: -1, Quiet: time.Millisecond}
		},
	} {
		r := devServe(t, tr("127.0.0.1:0"), nil)
		c := devDial(t, tr(r.addr))
		boom := errors.New("the camera was unplugged")
		half := io.MultiReader(strings.NewReader(devContent(100_000)), iotestErr{boom})
		body := transport.OpenFunc(func(context.Context) (io.ReadCloser, int64, error) { return io.NopCloser(half), 200_000, nil })
		if _, err := c.Send(t.Context(), &transport.Image{Name: "a.raw", Body: body}, nil); !errors.Is(err, boom) {
			t.Errorf("Send: %v; want the source's error", err)
		}
		if err := devNext(t, "the failure", r.failed); !strings.Contains(err.Error(), "incomplete") {
			t.Errorf("the half image failed with %v", err)
		}
		if _, err := c.Send(t.Context(), devImage("b.raw", "the next one"), nil); err != nil {
			t.Fatal(err)
		}
		if got := devNext(t, "the next image", r.taken); got.body != "the next one" {
			t.Errorf("%d bytes came first", len(got.body))
		}
	}
}

type iotestErr struct{ err error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.err }

// Every way in which a server's only answer can fail ends Send in bounded time, with
// an error that says what is wrong, and the next image works.
func TestBadWelcome(t *testing.T) {
	for _, tt := range []struct {
		name, begin, command string
		late                 time.Duration
		want                 string // of the error; "": none
	}{
		{name: "as it should be", begin: "Welcome from server!", command: "hello client"},
		{name: "late", begin: "Welcome from server!", command: "hello client", late: 29 * time.Second},
		{name: "too late", begin: "Welcome from server!", command: "hello client", late: 31 * time.Second, want: "silent"},
		{name: "doubled", begin: "Welcome from server!Welcome from server!", command: "hello clienthello client"},
		{name: "garbled", begin: "Welcome frXm server!", command: "hello cliXnt", want: "is due"},
		{name: "cut", begin: "Welcome from", command: "hello", want: "silent"},
	} {
		for _, protocol := range []string{"begin", "command"} {
			t.Run(tt.name+" "+protocol, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newMemNet()
					defer m.Close()
					defer time.Sleep(time.Minute) // until a late server has noticed
					var c transport.Conn
					good, bad, head := "Welcome from server!", tt.begin, "begin to send"
					if protocol == "begin" {
						c = devDial(t, &tcpx.Begin{DialContext: m.Dial})
					} else {
						c = devDial(t, &tcpx.Command{DialContext: m.Dial})
						good, bad, head = "hello client", tt.command, "hello serverf"
					}
					files := make(chan string, 2)
					go func() {
						say, late := bad, tt.late
						for conn, err := m.Accept(); err == nil; conn, err = m.Accept() {
							go func(say string, late time.Duration) {
								defer conn.Close()
								time.Sleep(late)
								io.WriteString(conn, say)
								b, err := io.ReadAll(conn)
								if err == nil {
									files <- string(b)
								}
							}(say, late)
							say, late = good, 0
						}
					}()
					began := time.Now()
					_, err := c.Send(t.Context(), devImage("", "first"), nil)
					if took := time.Since(began); took > 31*time.Second {
						t.Errorf("Send took %v", took)
					}
					if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
						t.Fatalf("Send: %v; want an error with %q", err, tt.want)
					}
					if err == nil {
						if got := devNext(t, "the file", files); got != head+"first" {
							t.Errorf("the server got %q", got)
						}
					}
					if _, err := c.Send(t.Context(), devImage("", "second"), nil); err != nil {
						t.Fatalf("the next Send: %v", err)
					}
					if got := devNext(t, "the file", files); got != head+"second" {
						t.Errorf("the server got %q", got)
					}
				})
			})
		}
	}
}

// A doubled welcome must not cost the image: closing with unread bytes would reset
// the connection. Over real sockets, for it is they that do so.
func TestDoubledWelcomeOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := devContent(2_000_000)
	files := make(chan string, 1)
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			io.WriteString(conn, strings.Repeat("Welcome from server!", 2))
			io.ReadFull(conn, make([]byte, 13))
			io.WriteString(conn, "Welcome from server!")
			b, err := io.ReadAll(conn)
			if err != nil {
				t.Error(err)
			}
			files <- string(b)
			conn.Close()
		}
	}()
	c := devDial(t, &tcpx.Begin{Addr: l.Addr().String(), Pause: time.Millisecond})
	for range 5 {
		if _, err := c.Send(t.Context(), devImage("", want), nil); err != nil {
			t.Fatal(err)
		}
		if got := devNext(t, "the file", files); got != want {
			t.Errorf("%d of %d bytes came", len(got), len(want))
		}
	}
}

func TestEmptyImagesAreRefused(t *testing.T) {
	for _, tr := range []transport.Transport{&tcpx.Begin{Addr: "127.0.0.1:1"}, &tcpx.Command{Addr: "127.0.0.1:1"}, &tcpx.Frames{Addr: "127.0.0.1:1"}} {
		c := devDial(t, tr)
		if _, err := c.Send(t.Context(), devImage("", ""), nil); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: Send of an empty image: %v; want ErrUnsupported before it connects", c.Info().Protocol, err)
		}
	}
}

// A server gives up on a client that stops in the middle, and on one that never
// begins, each after its time; with negative times it waits. The same holds for one
// that leaves it at a part of the TLS handshake.
func TestSilentClients(t *testing.T) {
	own, _ := certificate(t, "receiver")
	secure := func(l net.Listener) net.Listener {
		return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{own}})
	}
	for _, tt := range []struct {
		tr   func(l net.Listener) transport.Transport
		say  string
		want time.Duration
	}{
		{func(l net.Listener) transport.Transport { return &tcpx.Begin{Listener: l} }, "begin to sendhalf", 30 * time.Second},
		{func(l net.Listener) transport.Transport { return &tcpx.Begin{Listener: l} }, "begin to", 60 * time.Second},
		{func(l net.Listener) transport.Transport { return &tcpx.Begin{Listener: l} }, "", 10 * time.Minute},
		{func(l net.Listener) transport.Transport {
			return &tcpx.Begin{Listener: l, Timeout: -1, IdleTimeout: -1}
		}, "begin to sendhalf", 0},
		{func(l net.Listener) transport.Transport {
			return &tcpx.Begin{Listener: l, Timeout: -1, IdleTimeout: -1}
		}, "", 0},
		{func(l net.Listener) transport.Transport { return &tcpx.Command{Listener: l} }, "hello server", 10 * time.Minute},
		{func(l net.Listener) transport.Transport { return &tcpx.Command{Listener: l} }, "hello serverfhalf", 30 * time.Second},
		{func(l net.Listener) transport.Transport { return &tcpx.Command{Listener: l} }, "hello serverc", 30 * time.Second},
		{func(l net.Listener) transport.Transport { return &tcpx.Frames{Listener: l} }, "infrared", 31 * time.Second},
		{func(l net.Listener) transport.Transport { return &tcpx.Begin{Listener: secure(l)} }, "", 30 * time.Second},
		{func(l net.Listener) transport.Transport { return &tcpx.Command{Listener: secure(l)} }, "\x16\x03\x01", 30 * time.Second},
		{func(l net.Listener) transport.Transport { return &tcpx.Frames{Listener: secure(l)} }, "\x16\x03\x01", 10 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMemNet()
			r := devServe(t, tt.tr(m), nil)
			conn, _ := m.Dial(t.Context(), "", "")
			defer conn.Close()
			go io.Copy(io.Discard, conn)
			io.WriteString(conn, tt.say)
			began := time.Now()
			if tt.want == 0 {
				time.Sleep(100 * time.Hour)
				devNone(t, "the end", r.ended)
				return
			}
			err := devNext(t, "the end", r.ended)
			if took := time.Since(began); !errors.Is(err, transport.ErrIdle) || took > tt.want || took < tt.want/2 {
				t.Errorf("after %q the server gave up in %v with %v; want ErrIdle in %v", tt.say, took, err, tt.want)
			}
			devNone(t, "an image", r.taken)
		})
	}
}
