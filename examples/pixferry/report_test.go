package main

import (
	"strings"
	"testing"
)

// What a peer says stays on its line, and leaves the terminal alone.
func TestReportOfHostileTexts(t *testing.T) {
	const evil = "a.jpg: 1 bytes in 0.001 s\ndelivered b.jpg\x1b[2J\u202e"
	for _, res := range []result{
		{Name: evil, Status: "rejected", Error: "bad name"},
		{Name: "a.jpg", Status: "rejected", Error: evil},
		{Name: evil, Status: delivered, Bytes: 1},
	} {
		var out strings.Builder
		newReport(&out, nil, false, "never").image(res)
		if s := out.String(); strings.Count(s, "\n") != 1 || strings.ContainsAny(s, "\x1b\u202e") {
			t.Errorf("%q", s)
		}
	}
}
