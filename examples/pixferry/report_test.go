package main

import (
	"io"
	"strings"
	"testing"
)

// A sender's message is one line and does nothing to a terminal.
func TestMessagesAreOneLine(t *testing.T) {
	for text, want := range map[string]string{
		`a "text" 图`: `a "text" 图`, "": "",
		"a\ndelivered b: 1 bytes": `"a\ndelivered b: 1 bytes"`,
		"\x1b[2J":                 `"\x1b[2J"`, "\u202ea": `"\u202ea"`, "\x9b2J": `"\x9b2J"`, "a\r": `"a\r"`,
	} {
		var out strings.Builder
		newReport(&out, io.Discard, false, "never").message(text)
		if got := out.String(); got != "message: "+want+"\n" {
			t.Errorf("%q is printed as %q", text, got)
		}
	}
}

// Neither do the names and reasons that it has a say in.
func TestImagesAreOneLine(t *testing.T) {
	const evil = "a.jpg: 1 bytes in 0.001 s\ndelivered b.jpg\x1b[2J\u202e"
	for _, res := range []result{
		{Name: evil, Status: "rejected", Error: "bad name"},
		{Name: "a.jpg", Status: "rejected", Error: evil},
		{Name: evil, Status: delivered, Bytes: 1},
	} {
		var out strings.Builder
		newReport(&out, io.Discard, false, "never").image(res)
		if s := out.String(); strings.Count(s, "\n") != 1 || strings.ContainsAny(s, "\x1b\u202e") {
			t.Errorf("%q", s)
		}
	}
}
