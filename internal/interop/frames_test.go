package interop_test

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const framesURL = "tcp+frames://127.0.0.1:0?format=infrared"

func TestFramesFromPython(t *testing.T) {
	needPython(t)
	t.Parallel()
	sizes := []int{35935, 1, 2, 3, 1023, 1024, 1025, 35 * 1024, 0, 2_000_000, 0, 1}
	for _, c := range []struct {
		name  string
		flags []string
		sizes []int
	}{
		{"apart", nil, sizes},
		{"joined", []string{"--join"}, sizes},
		{"cut", []string{"--cut=700"}, sizes[:9]},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, framesURL)
			for range 2 {
				all := images(jpeg, c.sizes...)
				p := python(t, "frames_send.py", append(append(c.flags, r.port()), files(t, all)...)...)
				r.expect(t, all...)
				p.good(t)
			}
		})
	}
}

func TestFramesFromField(t *testing.T) {
	needPython(t)
	t.Parallel()
	r := receive(t, framesURL)
	var all [][]byte
	for i := range 12 {
		all = append(all, jpeg(5000+i))
	}
	p := python(t, "field_frames_client.py", append([]string{r.port()}, files(t, all)...)...)
	for i, want := range all {
		res := r.next(t)
		if want := "got/" + itoa(i) + ".jpg"; res.Name != want {
			t.Errorf("%+v, want %s", res, want)
		}
		equal(t, filepath.Join(r.dir, filepath.FromSlash(res.Name)), want)
	}
	p.good(t)
}

func TestFramesOutside(t *testing.T) {
	needPython(t)
	t.Parallel()
	r := receive(t, framesURL)
	path := file(t, "evil.jpg", jpeg(5000))
	for _, flag := range []string{"--before=../", "--before=../../", "--before=/tmp/", "--before=a/../../", "--dir=..", "--dir=/tmp", "--dir=../../x"} {
		p := python(t, "frames_send.py", r.port(), flag, path)
		rep := p.report(t) // it may be refused, or stored under a name that is one
		t.Log(flag, rep.OK, rep.Error)
	}
	python(t, "frames_send.py", r.port(), file(t, "last.jpg", jpeg(1000))).good(t)
	for range 20 {
		res := r.next(t)
		if res.Status != "delivered" {
			continue
		}
		path, err := filepath.Rel(r.dir, filepath.Join(r.dir, filepath.FromSlash(res.Name)))
		if err != nil || !filepath.IsLocal(path) {
			t.Errorf("%+v is outside", res)
		}
		if strings.HasSuffix(res.Name, "last.jpg") {
			break
		}
	}
	around, err := filepath.Glob(filepath.Join(filepath.Dir(r.dir), "*"))
	if err != nil || len(around) > 1 {
		t.Errorf("beside the directory there are %v", around)
	}
	if outside, _ := filepath.Glob("/tmp/evil*.jpg"); len(outside) > 0 {
		t.Errorf("there is %v", outside)
	}
}

// TestFramesAdmission has a client with a format that is not accepted.
func TestFramesAdmission(t *testing.T) {
	needPython(t)
	t.Parallel()
	r := receive(t, framesURL)
	path := file(t, "x.jpg", jpeg(5000))
	if rep := python(t, "frames_send.py", r.port(), "--format=visible", path).report(t); rep.OK {
		t.Error("the format visible was taken, although the URL has format=infrared")
	}
}

// TestFramesGivenUp has clients that go away.
func TestFramesGivenUp(t *testing.T) {
	needPython(t)
	t.Parallel()
	r := receive(t, framesURL)
	for _, script := range [][]string{{}, {"infrared|got"}, {"infrared|got", "over"}, {"infrared|got", "1000|x.jpg"}, {"infrared|got", "1000|x.jpg", "some"}} {
		c, err := net.Dial("tcp", "127.0.0.1:"+r.ports[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for _, text := range script {
			if _, err := c.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(text, "|") {
				if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.Close()
	}
	python(t, "frames_send.py", r.port(), file(t, "x.jpg", jpeg(35935))).good(t)
	for {
		if res := r.next(t); res.Status == "delivered" {
			equal(t, filepath.Join(r.dir, filepath.FromSlash(res.Name)), jpeg(35935))
			return
		}
	}
}

func TestFramesToPython(t *testing.T) {
	needPython(t)
	t.Parallel()
	t.Run("frames_recv.py", func(t *testing.T) {
		t.Parallel()
		all := images(jpeg, 35935, 2, 1024, 35*1024, 2_000_000)
		dir := t.TempDir()
		p := python(t, "frames_recv.py", "--out", dir, "--formats=infrared,visible")
		url := "tcp+frames://" + p.listening(t)
		if _, err := trySend(t, url+"?format=other&dir=got", file(t, "x.jpg", all[0])); err == nil {
			t.Error("the format was taken")
		}
		send(t, url+"?format=infrared&dir=got", append([]string{"-concurrency", "1"}, files(t, all)...)...)
		r := p.good(t)
		equalAll(t, dir, r, all...)
		if got := r.Sources[0]; got[0] != "infrared" || got[1] != "got" {
			t.Errorf("the source is %q", got)
		}
	})
	t.Run("tiny", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		p := python(t, "field_frames_server.py", "--out", dir)
		url := "tcp+frames://" + p.listening(t) + "?format=infrared&dir=got"
		for _, n := range []int{0, 1} {
			if res, err := trySend(t, url, file(t, "x.jpg", picture(n, ""))); err == nil {
				t.Errorf("%+v, which a server in the field does not survive", res)
			}
		}
		send(t, url, file(t, "x.jpg", jpeg(5000)))
		equalAll(t, dir, p.good(t), jpeg(5000))
	})
	t.Run("field", func(t *testing.T) {
		t.Parallel()
		var all [][]byte
		for i := range 40 {
			all = append(all, jpeg(5000+i))
		}
		if testing.Short() {
			all = all[:5]
		}
		// A server that finds no time for what is sent between two pauses hears it joined.
		attempts(t, 3, func() error {
			dir := t.TempDir()
			p := python(t, "field_frames_server.py", "--out", dir)
			url := "tcp+frames://" + p.listening(t) + "?format=infrared&dir=got"
			args := append([]string{"-timeout", "20s", "-concurrency", "1"}, files(t, all)...)
			if _, err := trySend(t, url, args...); err != nil {
				return fmt.Errorf("%w: %s", err, p.stderr.String())
			}
			equalAll(t, dir, p.good(t), all...)
			return nil
		})
	})
	t.Run("field, one connection after the other", func(t *testing.T) {
		t.Parallel()
		attempts(t, 3, func() error {
			dir := t.TempDir()
			p := python(t, "field_frames_server.py", "--out", dir, "--count=3")
			url := "tcp+frames://" + p.listening(t) + "?format=infrared&dir=got"
			var all [][]byte
			for i := range 3 {
				two := [][]byte{jpeg(5000 + i), jpeg(35935 + i)}
				args := []string{"-timeout", "20s", "-concurrency", "1"}
				for j, b := range two {
					args = append(args, file(t, fmt.Sprintf("%d-%d.jpg", i, j), b))
				}
				// It ends although the server does not close the connection.
				if _, err := trySend(t, url, args...); err != nil {
					return fmt.Errorf("%w: %s", err, p.stderr.String())
				}
				all = append(all, two...)
			}
			equalAll(t, dir, p.good(t), all...)
			return nil
		})
	})
}
