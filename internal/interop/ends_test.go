package interop_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// A report is what a peer says at its end.
type report struct {
	OK      bool
	Error   string
	Died    string
	Images  []peerImage
	Answers []string
	Texts   []map[string]any
	Broken  int
	Peers   int
	Junk    int

	Commands   json.RawMessage // texts (P3) or objects (P1)
	Missed     int
	Sources    [][]string
	Records    json.RawMessage
	Others     []map[string]any
	Time       string
	Heartbeats int

	Begins, Data, Streams, Finished, First, Packages, Unexpected int
	Missing                                                      []int
}

type peerImage struct {
	Name  string
	Bytes int
}

// A result is a line of pixferry.
type result struct {
	Name    string
	Bytes   int64
	Status  string
	Error   string
	Message *string
}

// trySend has pixferry send files, with flags before them, if any.
func trySend(t *testing.T, url string, more ...string) ([]result, error) {
	t.Helper()
	n := 0
	for n+1 < len(more) && strings.HasPrefix(more[n], "-") {
		n += 2
	}
	args := append([]string{"send"}, more[:n]...)
	args = append(append(args, url), more[n:]...)
	p := pixferry(t, args...)
	results := p.results(t, len(more)-n)
	if code := p.wait(t); code != 0 {
		return results, fmt.Errorf("%s: exit code %d", p.name, code)
	}
	return results, nil
}

// send has pixferry send files, which must succeed.
func send(t *testing.T, url string, more ...string) []result {
	t.Helper()
	results, err := trySend(t, url, more...)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// A receiver is a pixferry that receives.
type receiver struct {
	*process
	dir   string
	ports []string
}

func receive(t *testing.T, urls ...string) *receiver {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "in")
	r := &receiver{process: pixferry(t, append([]string{"recv", "-json", "-dir", dir}, urls...)...), dir: dir}
	for range urls {
		where := r.listening(t)
		r.ports = append(r.ports, where[strings.LastIndexByte(where, ':')+1:])
	}
	return r
}

// port is the flag for a peer that connects to the receiver's first URL.
func (r *receiver) port() string { return "--port=" + r.ports[0] }

// next returns the next line, which must be there.
func (r *receiver) next(t *testing.T) result {
	t.Helper()
	results := r.results(t, 1)
	if len(results) == 0 {
		t.Fatalf("%s has ended", r.name)
	}
	return results[0]
}

// expect waits for images and compares them.
func (r *receiver) expect(t *testing.T, want ...[]byte) {
	t.Helper()
	for i, w := range want {
		res := r.next(t)
		if res.Status != "delivered" || res.Error != "" {
			t.Fatalf("image %d: %+v", i, res)
		}
		equal(t, filepath.Join(r.dir, filepath.FromSlash(res.Name)), w)
	}
}

// expectMessages waits for messages.
func (r *receiver) expectMessages(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if res := r.next(t); res.Message == nil || *res.Message != w {
			t.Fatalf("%+v instead of the message %q", res, w)
		}
	}
}
