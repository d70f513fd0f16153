package interop_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var headerSizes = []int{35935, 1, 1023, 1024, 1025, 35 * 1024, 2_000_000, 2048 * 1024}

// delivered returns what the next image is that has come whole: a system that is
// short of time loses datagrams, which the sender notices and the receiver reports.
func (r *receiver) delivered(t *testing.T, want []byte) {
	t.Helper()
	for range 10 {
		if res := r.next(t); res.Status == "delivered" {
			equal(t, filepath.Join(r.dir, res.Name), want)
			return
		}
	}
	t.Fatal("no image has come")
}

func TestDatagramFromPython(t *testing.T) {
	needPython(t)
	t.Parallel()
	for _, c := range []struct {
		name  string
		flags []string
		sizes []int
	}{
		{"datagram", []string{"--mode=datagram"}, []int{35935, 1, 1024, 65507}},
		{"header", nil, headerSizes},
		{"header of 4", []string{"--width=4"}, headerSizes[:6]},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mode, _, _ := strings.Cut(c.name, " ")
			r := receive(t, "udp+"+mode+"://127.0.0.1:0")
			all := images(jpeg, c.sizes...)
			p := python(t, "datagram_send.py", append(append(c.flags, r.port()), files(t, all)...)...)
			for _, want := range all {
				r.delivered(t, want)
			}
			p.good(t)
		})
	}
}

func TestDatagramToPython(t *testing.T) {
	needPython(t)
	t.Parallel()
	for _, c := range []struct {
		name, options string
		flags         []string
		sizes         []int
	}{
		{"datagram", "", []string{"--mode=datagram"}, []int{35935, 1, 1024, 65507}},
		{"header", "", nil, headerSizes},
		{"header of 4", "?width=4", nil, headerSizes[:6]},
		{"header of 8, slow", "?width=8&gap=1ms", []string{"--slow=0.5"}, headerSizes[:3]},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mode, _, _ := strings.Cut(c.name, " ")
			all := images(jpeg, c.sizes...)
			dir := t.TempDir()
			p := python(t, "datagram_recv.py", append(c.flags, "--mode="+mode, "--out", dir, "--count", itoa(len(all)))...)
			url := "udp+" + mode + "://" + p.listening(t) + c.options
			for _, path := range files(t, all) {
				attempts(t, 4, func() error {
					_, err := trySend(t, url, path)
					return err
				})
			}
			equalAll(t, dir, p.good(t), all...)
		})
	}
}

func TestCameraInTheField(t *testing.T) {
	needPython(t)
	t.Parallel()
	// Behind a multiple of 1024 comes an empty datagram, and then other images.
	for _, flag := range []string{"--early", "--width=4"} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			all := images(jpeg, 35*1024, 1024, 35935, 2048, 1, 1000)
			attempts(t, 3, func() error {
				r := receive(t, "udp+header://127.0.0.1:0")
				p := python(t, "field_camera.py", append([]string{flag, r.port()}, files(t, all)...)...)
				for _, want := range all {
					res := r.next(t)
					if res.Status != "delivered" {
						return fmt.Errorf("%+v", res)
					}
					equal(t, filepath.Join(r.dir, res.Name), want)
				}
				p.good(t)
				return nil
			})
		})
	}
	t.Run("a datagram is lost", func(t *testing.T) {
		t.Parallel()
		r := receive(t, "udp+header://127.0.0.1:0")
		all := images(jpeg, 35935, 5000, 1024)
		p := python(t, "field_camera.py", append([]string{"--lose=5", r.port()}, files(t, all)...)...)
		// It waits for an answer without limit, so that it ends only if there is one.
		answers := p.good(t).Answers
		if answers[0] == "get message!!!" || answers[0] == "" {
			t.Errorf("the broken image was answered with %q", answers[0])
		}
		if res := r.next(t); res.Status == "delivered" || res.Error == "" {
			t.Errorf("the broken image is %+v", res)
		}
		for i, want := range all[1:] {
			if answers[i+1] != "get message!!!" {
				t.Errorf("the answer to a whole image is %q", answers[i+1])
			}
			r.delivered(t, want)
		}
	})
}

func TestReceiverInTheField(t *testing.T) {
	needPython(t)
	t.Parallel()
	t.Run("in order", func(t *testing.T) {
		t.Parallel()
		all := images(jpeg, 35*1024, 1024, 35935, 1, 5000)
		attempts(t, 3, func() error {
			dir := t.TempDir()
			p := python(t, "field_header_recv.py", "--out", dir, "--count", itoa(len(all)))
			url := "udp+header://" + p.listening(t)
			if _, err := trySend(t, url, append([]string{"-concurrency", "1"}, files(t, all)...)...); err != nil {
				return err
			}
			r := p.good(t)
			equalAll(t, dir, r, all...)
			if r.Junk != 0 {
				t.Errorf("%d datagrams stand where a header was expected", r.Junk)
			}
			return nil
		})
	})
	t.Run("a datagram is lost", func(t *testing.T) {
		t.Parallel()
		long(t)
		// The header of the second image completes the first one, whose answer comes
		// when most of the second one is still to be sent. None of the second one's
		// datagrams looks like a header, so that no other answer ever comes.
		second := make([]byte, 200*1024)
		for i := range second {
			second[i] = 0xff
		}
		p := python(t, "field_header_recv.py", "--lose=3")
		url := "udp+header://" + p.listening(t) + "?gap=5ms"
		results, err := trySend(t, url, append([]string{"-concurrency", "1"}, files(t, [][]byte{jpeg(35935), second})...)...)
		if err == nil || len(results) != 2 {
			t.Fatal(err, results)
		}
		for i, res := range results {
			if res.Status == "delivered" || res.Error == "" {
				t.Errorf("image %d is %+v", i, res)
			}
		}
		if r := p.good(t); r.Peers != 2 {
			t.Errorf("two images after a missing answer came from %d ports", r.Peers)
		}
	})
}

func TestHeaderThatIsNone(t *testing.T) {
	needPython(t)
	t.Parallel()
	r := receive(t, "udp+header://127.0.0.1:0")
	c, err := net.Dial("udp", "127.0.0.1:"+r.ports[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	huge := binary.LittleEndian.AppendUint64(nil, 1<<62)
	negative := slices.Repeat([]byte{0xff}, 8)
	for _, d := range [][]byte{negative, negative[:4], huge, {}, []byte("12345"), make([]byte, 8), make([]byte, 1024)} {
		if _, err := c.Write(d); err != nil {
			t.Fatal(err)
		}
	}
	p := python(t, "datagram_send.py", r.port(), file(t, "x.jpg", jpeg(35935)))
	r.delivered(t, jpeg(35935))
	p.good(t)
}

func TestCamerasAtOnce(t *testing.T) {
	needPython(t)
	t.Parallel()
	r := receive(t, "udp+header://127.0.0.1:0", "udp+datagram://127.0.0.1:0", "udp+json://127.0.0.1:0")
	sizes := []int{50000, 50001, 50002, 20000}
	var peers []*process
	for _, n := range sizes[:3] {
		peers = append(peers, python(t, "datagram_send.py", r.port(), "--gap=0.004", file(t, "x.jpg", jpeg(n))))
	}
	peers = append(peers,
		python(t, "datagram_send.py", "--port", r.ports[1], "--mode=datagram", file(t, "x.jpg", jpeg(sizes[3]))),
		python(t, "datagram_send.py", "--port", r.ports[2], "--mode=json", file(t, "x.json", []byte(`{"a": "ä"}`))))
	want := map[int64][]byte{}
	for _, n := range sizes {
		want[int64(n)] = jpeg(n)
	}
	message := false
	for len(want) > 0 || !message {
		switch res := r.next(t); {
		case res.Message != nil:
			message = *res.Message == `{"a": "ä"}`
		case res.Status == "delivered":
			equal(t, filepath.Join(r.dir, res.Name), want[res.Bytes])
			delete(want, res.Bytes)
		}
	}
	for _, p := range peers {
		p.good(t)
	}
}

func TestJSONFromPython(t *testing.T) {
	needPython(t)
	t.Parallel()
	r := receive(t, "udp+json://127.0.0.1:0")
	good := file(t, "good.json", []byte(`{"command": "go", "speed": [1, 2.5, null]}`))
	for _, bad := range []string{`{"a": `, `nothing`, "\xff\xfe", `{"a": "` + strings.Repeat("x", 2000) + `"}`} {
		p := python(t, "datagram_send.py", r.port(), "--mode=json", "--tries=1", file(t, "bad.json", []byte(bad)))
		if rep := p.report(t); rep.OK || rep.Answers[0] == "" {
			t.Errorf("the answer to %.20q is %q, not the text of an error", bad, rep.Answers)
		}
	}
	python(t, "datagram_send.py", r.port(), "--mode=json", good).good(t)
	r.expectMessages(t, `{"command": "go", "speed": [1, 2.5, null]}`)
}

func TestJSONToPython(t *testing.T) {
	needPython(t)
	t.Parallel()
	p := python(t, "datagram_recv.py", "--mode=json")
	url := "udp+json://" + p.listening(t)
	if _, err := trySend(t, url, "-message", "no JSON"); err == nil {
		t.Error("what is no JSON was sent")
	}
	send(t, url, "-message", `{"a": "ä"}`)
	if r := p.good(t); r.Texts[0]["a"] != "ä" {
		t.Errorf("it has taken %v", r.Texts)
	}
}
