package tcpx_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/tcpx"
	"github.com/pixferry/pixferry/transport"
)

// framesClient is the client in the field, and one that sends what it likes.
type framesClient struct {
	t    testing.TB
	conn net.Conn
	*devField
}

func newFramesClient(t testing.TB, m *memNet) *framesClient {
	conn, err := m.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &framesClient{t, conn, newDevField(t, conn, time.Millisecond)}
}

// says sends texts, in pieces of n bytes a little apart, and wants ok for all.
func (c *framesClient) says(text string, n int, want string) {
	c.t.Helper()
	for len(text) > 0 {
		k := min(n, len(text))
		c.send(text[:k])
		text = text[k:]
		if n < 1024 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if got := c.recv(1024); got != want {
		c.t.Fatalf("the server said %q, want %q", got, want)
	}
}

// Texts are joined and cut anywhere, over many frames and connection after
// connection; sources that share a DIR are not mixed.
func TestFramesFromFieldClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemNet()
		r := devServe(t, &tcpx.Frames{Listener: m, Formats: []string{"infrared", "visible"}}, nil)
		for _, n := range []int{1, 2, 3, 5, 8, 1 << 20} {
			for _, format := range []string{"infrared", "visible"} {
				c := newFramesClient(t, m)
				c.says(format+"|got", n, "ok")
				for i, body := range []string{"x", "", "over", "continue1|a.png", devContent(1000)} {
					name := []string{"1.png", "no extension", "10.jpg", "2.JPEG", "ünï.bmp"}[i]
					next := ""
					if i > 0 {
						next = "continue" // joined with what follows
					}
					c.says(fmt.Sprintf("%s%d|%s", next, len(body), name), n, "ok")
					c.says(body, max(n, len(body)/10), "ok")
					if got := devNext(t, "the image", r.taken); got != (devTaken{name, format, "got", body}) {
						t.Errorf("in pieces of %d: %q of %q in %q came with %d of %d bytes", n, got.name, got.source, got.dir, len(got.body), len(body))
					}
				}
				for text := "over"; text != ""; text = text[min(n, len(text)):] {
					c.send(text[:min(n, len(text))])
				}
				if err := devNext(t, "the end", r.ended); err != nil {
					t.Errorf("in pieces of %d: Serve ended with %v", n, err)
				}
			}
		}
	})
}

// What breaks the protocol, or leads out of the directory, ends the connection
// without another ok, and with an error that names it.
func TestFramesRefusals(t *testing.T) {
	for _, tt := range []struct {
		texts []string // each but the last one is answered with ok
		err   string   // "": an orderly end, when the client closes
	}{
		{nil, ""},
		{[]string{"sonar|got"}, "not among those accepted"},
		{[]string{"visible|.."}, "one level"},
		{[]string{"visible|a/b"}, "one level"},
		{[]string{`visible|a\b`}, "one level"},
		{[]string{"visible|/etc"}, "one level"},
		{[]string{"visible|a|b"}, "form"},
		{[]string{"visible|a\x00"}, "cannot be shown"},
		{[]string{"visible"}, `behind "visible": nothing`},
		{[]string{"|got"}, "silent"},
		{[]string{"visible|" + strings.Repeat("d", 300)}, "one level"},
		{[]string{strings.Repeat("f", 1100)}, "at most 1024"},
		{[]string{"visible|got", "5|../x.png"}, "bad name"},
		{[]string{"visible|got", "5|..\\x.png"}, "bad name"},
		{[]string{"visible|got", "5|CON.png"}, "bad name"},
		{[]string{"visible|got", "5|a\nb.png"}, "cannot be shown"},
		{[]string{"visible|got", "5|a|b.png"}, "form"},
		{[]string{"visible|got", "-5|a.png"}, "is due"},
		{[]string{"visible|got", "five|a.png"}, "is due"},
		{[]string{"visible|got", "|a.png"}, "form"},
		{[]string{"visible|got", "5|"}, "silent"},
		{[]string{"visible|got", "2000001|a.png"}, "too large"},
		{[]string{"visible|got", "99999999999999999999999|a.png"}, "no length"},
		{[]string{"visible|got", "5|" + strings.Repeat("n", 1100)}, "at most 1024"},
		{[]string{"visible|got", "5|a.png", "12345", "garbage"}, "is due"},
		{[]string{"visible|got", "5|a.png", "12345", "continuegarbage"}, "is due"},
		{[]string{"visible|got", "5|a.png", "12345", "continueover"}, ""},
		{[]string{"visible|got", "over"}, ""},
	} {
		t.Run(devShort(strings.Join(tt.texts, " ")), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemNet()
				r := devServe(t, &tcpx.Frames{Listener: m, Formats: []string{"visible"}}, func(s *transport.Server) { s.Limits.MaxImage = 2_000_000 })
				c := newFramesClient(t, m)
				for i, text := range tt.texts {
					want := "ok"
					if i == len(tt.texts)-1 {
						want = ""
					}
					c.says(text, 1<<20, want)
				}
				if len(tt.texts) == 0 {
					c.conn.Close()
				}
				if err := devNext(t, "the end", r.ended); (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("Serve ended with %v; want %q", err, tt.err)
				}
				for len(r.taken) > 0 {
					if got := <-r.taken; got.body != "12345" {
						t.Errorf("%q came", got.body)
					}
				}
			})
		})
	}
}

// An image is whole or nothing: the connection ends, stalls, or the name goes on
// when it was taken for complete, so that its tail stands before the image.
func TestFramesNeverTakesAPart(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(c *framesClient)
		want string
	}{
		{"closed", func(c *framesClient) { c.send("1234"); c.conn.Close() }, "incomplete"},
		{"stalled", func(c *framesClient) { c.send("1234"); time.Sleep(time.Minute) }, "incomplete"},
		{"name goes on", func(c *framesClient) { c.send(".old"); c.send("12345678"); c.recv(2) }, "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemNet()
				r := devServe(t, &tcpx.Frames{Listener: m}, nil)
				c := newFramesClient(t, m)
				c.says("visible|got", 1024, "ok")
				c.says("8|a.png", 1024, "ok")
				tt.do(c)
				if err := devNext(t, "the failure", r.failed); !strings.Contains(err.Error(), tt.want) {
					t.Errorf("the image failed with %v; want %q", err, tt.want)
				}
				devNone(t, "an image", r.taken)
				if err := devNext(t, "the end", r.ended); err == nil {
					t.Error("Serve ended without an error")
				}
			})
		})
	}
}

// What the Server does not keep is not answered.
func TestFramesAnswersOnlyWhatIsKept(t *testing.T) {
	r := devServe(t, &tcpx.Frames{Addr: "127.0.0.1:0"}, func(s *transport.Server) {
		s.Handler = func(context.Context, *transport.Incoming) error { return transport.Reject("no cats") }
	})
	c := devDial(t, &tcpx.Frames{Addr: r.addr})
	if receipt, err := c.Send(t.Context(), devImage("cat.png", "a cat"), nil); err == nil {
		t.Errorf("Send: %+v, although the Handler refused", receipt)
	}
	if err := devNext(t, "the end", r.ended); err == nil || !strings.Contains(err.Error(), "no cats") {
		t.Errorf("Serve ended with %v", err)
	}
}

// SendAll to a directory: DIR/NAME, all sizes, no name twice.
func TestFramesIntoDirectories(t *testing.T) {
	dir := t.TempDir()
	store := &transport.DirStore{Dir: dir, Path: tcpx.FramePath, NoSync: true}
	defer store.Close()
	r := devServe(t, &tcpx.Frames{Addr: "127.0.0.1:0"}, func(s *transport.Server) { s.Store = store })
	for _, format := range []string{"infrared", "visible"} {
		c := devDial(t, &tcpx.Frames{Addr: r.addr, Format: format, Dir: "got", Pause: -1, Tiny: true})
		err := transport.SendAll(t.Context(), c, func(yield func(*transport.Image, error) bool) {
			for _, n := range devSizes {
				if !yield(devImage(fmt.Sprintf("%d.png", n), devContent(n)), nil) {
					return
				}
			}
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	for _, n := range devSizes {
		for _, name := range []string{"%d.png", "%d (1).png"} { // the second source's
			b, err := os.ReadFile(filepath.Join(dir, "got", fmt.Sprintf(name, n)))
			if err != nil || string(b) != devContent(n) {
				t.Errorf("%d bytes were stored as %d: %v", n, len(b), err)
			}
		}
	}
}

// What was answered by the Server during Shutdown still reaches the client.
func TestFramesShutdown(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			m := newMemNet()
			entered, open := make(chan bool), make(chan bool)
			r := devServe(t, &tcpx.Frames{Listener: m}, func(s *transport.Server) {
				s.Handler = func(context.Context, *transport.Incoming) error { close(entered); <-open; return nil }
			})
			c := devDial(t, &tcpx.Frames{DialContext: m.Dial})
			sent, down := make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := c.Send(t.Context(), devImage("a.png", "image"), nil)
				sent <- err
			}()
			<-entered
			go func() { down <- r.Shutdown(t.Context()) }()
			synctest.Wait()
			close(open)
			if err := devNext(t, "the end of Send", sent); err != nil {
				t.Errorf("an image that was kept during Shutdown: %v", err)
			}
			if err := devNext(t, "the end of Shutdown", down); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		})
	}
}
