package interop_test

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

// commandsOf returns the texts that a peer has taken.
func commandsOf(t *testing.T, r report) (commands []string) {
	t.Helper()
	if err := json.Unmarshal(r.Commands, &commands); err != nil {
		t.Fatal(err)
	}
	return commands
}

// The client's ways: apart, joined, cut, and as in the field.
var ways = []struct {
	name, script string
	flags        []string
}{
	{"field", "field_tcp_client.py", nil},
	{"joined", "tcp_send.py", []string{"--join"}},
	{"apart", "tcp_send.py", []string{"--pause=0.1"}},
	{"cut", "tcp_send.py", []string{"--cut=5", "--pause=0.02"}},
	{"cut to bytes", "tcp_send.py", []string{"--cut=1", "--pause=0.02"}},
}

func TestBeginFromPython(t *testing.T) {
	needPython(t)
	t.Parallel()
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, "tcp+begin://127.0.0.1:0")
			all := images(bmp, 35935, 30, 1023, 1024, 1025, 35*1024, 2_000_000)
			all = append(all, jpeg(5000), picture(1, ""), picture(3000, "begin to send"), picture(13, "begin to send"))
			if strings.HasPrefix(w.name, "cut") {
				all = [][]byte{bmp(1500), picture(1, ""), picture(500, "begin to sendbegin to send")}
			}
			for _, b := range all {
				python(t, w.script, append(w.flags, r.port(), "--file", file(t, "x", b))...).good(t)
				r.expect(t, b)
			}
		})
	}
	t.Run("closed early", func(t *testing.T) {
		t.Parallel()
		r := receive(t, "tcp+begin://127.0.0.1:0")
		python(t, "tcp_send.py", r.port(), "--pause=0.1", "--file", file(t, "x", bmp(35935)[:20000])).good(t)
		if res := r.next(t); res.Status == "delivered" || !strings.Contains(res.Error, "35935") {
			t.Errorf("%+v", res)
		}
		python(t, "tcp_send.py", r.port(), "--pause=0.1", "--file", file(t, "x", bmp(35935))).good(t)
		r.expect(t, bmp(35935))
	})
}

func TestCommandFromPython(t *testing.T) {
	needPython(t)
	t.Parallel()
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, "tcp+command://127.0.0.1:0?commands=weeding,stop,s,c&pause=3s")
			sizes := []int{9000, 3000}
			if strings.HasPrefix(w.name, "cut") {
				sizes = []int{200, 100}
			}
			for _, commands := range []string{"weeding", "", "stop,weeding,s,weeding", "c,c,s"} {
				for _, b := range [][]byte{bmp(sizes[0]), picture(sizes[1], "cweedingf"), picture(1, "")} {
					args := append(w.flags, r.port(), "--mode=command", "--commands="+commands, "--file", file(t, "x", b))
					python(t, w.script, args...).good(t)
					if commands != "" {
						r.expectMessages(t, strings.Split(commands, ",")...)
					}
					r.expect(t, b)
					if testing.Short() || w.name == "apart" {
						break
					}
				}
			}
			python(t, w.script, append(w.flags, r.port(), "--mode=command", "--commands=stop,weeding")...).good(t)
			r.expectMessages(t, "stop", "weeding")
		})
	}
	t.Run("unknown", func(t *testing.T) {
		t.Parallel()
		// What the commands are only the pauses tell, if the system has the time for them.
		attempts(t, 3, func() error {
			r := receive(t, "tcp+command://127.0.0.1:0")
			python(t, "tcp_send.py", r.port(), "--pause=0.6", "--mode=command", "--commands=weeding,x", "--file", file(t, "x", bmp(35935))).good(t)
			for _, want := range []string{"weeding", "x"} {
				if res := r.next(t); res.Message == nil || *res.Message != want {
					return fmt.Errorf("%+v instead of %s", res, want)
				}
			}
			r.expect(t, bmp(35935))
			return nil
		})
	})
}

func TestBeginToPython(t *testing.T) {
	needPython(t)
	t.Parallel()
	t.Run("tcp_recv.py", func(t *testing.T) {
		t.Parallel()
		all := images(bmp, 35935, 30, 1024, 35*1024, 2_000_000)
		all = append(all, picture(1, ""), picture(2000, "begin to send"))
		dir := t.TempDir()
		p := python(t, "tcp_recv.py", "--out", dir, "--count", itoa(len(all)))
		url := "tcp+begin://" + p.listening(t)
		for _, res := range send(t, url, append([]string{"-concurrency", "1"}, files(t, all)...)...) {
			if res.Status != "sent" {
				t.Errorf("%+v: nothing answers here", res)
			}
		}
		equalAll(t, dir, p.good(t), all...)
	})
	t.Run("field_tcp_server.py", func(t *testing.T) {
		t.Parallel()
		for _, b := range images(bmp, 35935, 35*1024, 2_000_000) {
			attempts(t, 3, func() error {
				dir := t.TempDir()
				p := python(t, "field_tcp_server.py", "--out", dir)
				send(t, "tcp+begin://"+p.listening(t), file(t, "x.bmp", b))
				if r := p.good(t); len(r.Images) == 0 {
					return fmt.Errorf("the server has not understood the begin")
				}
				equal(t, dir+"/image.bmp", b)
				return nil
			})
		}
	})
}

func TestCommandToPython(t *testing.T) {
	needPython(t)
	t.Parallel()
	for _, c := range []struct {
		script, command string
		flags           []string
		times           int
	}{
		{"tcp_recv.py", "weeding", []string{"--commands=weeding,stop"}, 1},
		{"tcp_recv.py", "weeding", nil, 1},
		{"field_tcp_server.py", "weeding", nil, 5},
		{"field_tcp_server.py", "s", nil, 5},
		{"field_tcp_server.py", "", nil, 1},
	} {
		t.Run(fmt.Sprintf("%s %q %v", c.script, c.command, c.flags), func(t *testing.T) {
			t.Parallel()
			if testing.Short() {
				c.times = 1
			}
			for range c.times {
				attempts(t, 3, func() error {
					dir := t.TempDir()
					p := python(t, c.script, append(c.flags, "--mode=command", "--out", dir)...)
					args := []string{file(t, "x.bmp", bmp(35935))}
					var want []string
					if c.command != "" {
						args = append([]string{"-message", c.command}, args...)
						want = []string{c.command}
					}
					// The server in the field closes nothing, and yet this ends.
					results := send(t, "tcp+command://"+p.listening(t), args...)
					if results[0].Status != "sent" {
						t.Errorf("%+v: nothing answers here", results[0])
					}
					r := p.good(t)
					if commands := commandsOf(t, r); !slices.Equal(commands, want) || r.Missed != 0 || len(r.Images) != 1 {
						return fmt.Errorf("the server has taken %q, %d images, and has not understood %d texts", commands, len(r.Images), r.Missed)
					}
					equalAll(t, dir, r, bmp(35935))
					return nil
				})
			}
		})
	}
}

// TestSilentClients has clients that say nothing, or stop amid a text, beside others.
func TestSilentClients(t *testing.T) {
	needPython(t)
	t.Parallel()
	for _, c := range []struct{ url, start, script, flag string }{
		{"tcp+begin://127.0.0.1:0", "begin to", "tcp_send.py", "--file"},
		{"tcp+command://127.0.0.1:0", "hello serverc", "tcp_send.py", "--mode=command --file"},
		{framesURL, "infrared|", "frames_send.py", ""},
	} {
		t.Run(c.script+" "+c.flag, func(t *testing.T) {
			t.Parallel()
			r := receive(t, c.url)
			for i := range 6 {
				conn, err := net.Dial("tcp", "127.0.0.1:"+r.ports[0])
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := conn.Write([]byte(c.start[:i%2*len(c.start)])); err != nil {
					t.Fatal(err)
				}
			}
			args := append([]string{r.port()}, strings.Fields(c.flag)...)
			python(t, c.script, append(args, file(t, "x.jpg", jpeg(35935)))...).good(t)
			r.expect(t, jpeg(35935))
		})
	}
}
