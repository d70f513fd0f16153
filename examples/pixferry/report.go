package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// A result is what became of one image; the fields are those of -json.
type result struct {
	Name    string  `json:"name"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	Resent  int64   `json:"resent"`
	Resumed int64   `json:"resumed"`
	Digest  string  `json:"digest"`
	Status  string  `json:"status"`
	Error   string  `json:"error"`
}

// A report prints results and progress: JSON lines, or text with a bar on a
// terminal. Safe for concurrent use.
type report struct {
	mu     sync.Mutex
	out    io.Writer
	json   *json.Encoder
	bar    *progressbar.ProgressBar
	active map[string][2]int64 // name: acknowledged, total
	acked  int64               // of images that have ended
	total  int64
}

// newReport draws the bar on stderr, so that stdout stays a clean record.
func newReport(stdout, stderr io.Writer, asJSON bool, progress string) *report {
	r := &report{out: stdout, active: make(map[string][2]int64)}
	if asJSON {
		r.json = json.NewEncoder(stdout)
	}
	if progress == "always" || progress == "auto" && !asJSON && isTerminal(stderr) {
		// Of unknown size (-1) it would draw on a goroutine of its own, with a race.
		r.bar = progressbar.NewOptions64(1, progressbar.OptionSetWriter(stderr), progressbar.OptionShowBytes(true),
			progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100e6), progressbar.OptionSetWidth(30))
	}
	return r
}

// progress moves the bar, which shows all images together.
func (r *report) progress(name string, acked, total int64) {
	if r.bar == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active[name] = [2]int64{acked, max(total, acked)}
	r.draw(name)
}

func (r *report) draw(name string) {
	acked, total := r.acked, r.total
	for _, a := range r.active {
		acked += a[0]
		total += a[1]
	}
	r.bar.Describe(name)
	r.bar.ChangeMax64(max(total, 1))
	_ = r.bar.Set64(acked)
}

func (r *report) image(res result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.active, res.Name)
	if res.Error == "" {
		r.acked += res.Bytes
		r.total += res.Bytes
	}
	if r.bar != nil {
		r.bar.Clear()
		defer r.draw(res.Name)
	}
	if r.json != nil {
		r.json.Encode(res)
		return
	}
	if res.Error != "" { // of which a part may be the peer's
		fmt.Fprintf(r.out, "%s %s: %s\n", res.Status, printable(res.Name), printable(res.Error))
		return
	}
	fmt.Fprintf(r.out, "%s %s: %d bytes in %.3f s", res.Status, printable(res.Name), res.Bytes, res.Seconds)
	if res.Resumed > 0 {
		fmt.Fprintf(r.out, ", %d were there already", res.Resumed)
	}
	if res.Resent > 0 {
		fmt.Fprintf(r.out, ", %d sent again", res.Resent)
	}
	if res.Digest != "" {
		fmt.Fprintf(r.out, ", %s", res.Digest)
	}
	fmt.Fprintln(r.out)
}

// message prints a message from a peer.
func (r *report) message(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.json != nil {
		r.json.Encode(struct {
			Message string `json:"message"`
		}{text})
		return
	}
	fmt.Fprintln(r.out, "message:", printable(text))
}

// printable quotes a text that could pass for other lines of the report, or control a terminal.
func printable(text string) string {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return strconv.Quote(text)
	}
	return text
}

// listening says, in text also with -json, where senders find this program.
func (r *report) listening(url string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintln(r.out, "listening", url)
}

func (r *report) close() {
	if r.bar != nil {
		r.bar.Clear()
	}
}

// isTerminal says whether a bar can be drawn there.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
