package transport

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a":                                true,
		"cam 1 - 12h30.jpg":                true,
		"図.png":                            true,
		".hidden":                          true,
		"..a":                              true,
		"CONSOLE.jpg":                      true,
		"com10.jpg":                        true,
		strings.Repeat("x", 255):           true,
		"":                                 false,
		".":                                false,
		"..":                               false,
		"../../x":                          false,
		"/etc/passwd":                      false,
		`..\x`:                             false,
		`C:\x`:                             false,
		"a/":                               false,
		"a\x00b":                           false,
		"a\nb":                             false,
		"a\x7f":                            false,
		"a\u0085b":                         false,
		"a.":                               false,
		"a ":                               false,
		"CON":                              false,
		"con.jpg":                          false,
		"Nul .txt":                         false,
		"lpt1.tar.gz":                      false,
		"COM¹":                             false,
		".pixferry":                        false,
		".PixFerry-x":                      false,
		"\xff":                             false,
		strings.Repeat("x", 256):           false,
		strings.Repeat("../", 3_000) + "x": false,
	} {
		err := checkName(name, 255)
		if ok && err != nil {
			t.Errorf("%.40q: %v", name, err)
		}
		if !ok {
			wantReason(t, err, ReasonName, false)
			if len(err.Error()) > 200 {
				t.Errorf("%.40q: an error of %d bytes", name, len(err.Error()))
			}
		}
	}
}

func TestSniff(t *testing.T) {
	id := MakeID(1, 2)
	const stem = "00000000000000010000000000000002"
	for _, c := range []struct{ head, mediaType, name string }{
		{"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg", stem + ".jpg"},
		{"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "image/png", stem + ".png"},
		{"GIF89a", "image/gif", stem + ".gif"},
		{"BM6\x00\x24\x00", "image/bmp", stem + ".bmp"},
		{"RIFF\x24\x00\x00\x00WEBPVP8 ", "image/webp", stem + ".webp"},
		{"RIFF\x24\x00\x00\x00WAVEfmt ", unknownType, stem + ".bin"},
		{"II*\x00\x08\x00", "image/tiff", stem + ".tiff"},
		{"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00", "image/avif", stem + ".avif"},
		{"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "image/heic", stem + ".heic"},
		{"\x00\x00\x00\x18ftyp", unknownType, stem + ".bin"},
		{"\x89PN", unknownType, stem + ".bin"},
		{"", unknownType, stem + ".bin"},
	} {
		head := []byte(c.head)
		got := sniff(head[:min(len(head), sniffLen)])
		if name := defaultName(id, got); got != c.mediaType || name != c.name {
			t.Errorf("%q: %s, %s; want %s, %s", c.head, got, name, c.mediaType, c.name)
		}
	}
}
