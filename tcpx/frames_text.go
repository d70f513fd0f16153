package tcpx

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A FrameSource is the first text of a [Frames] client: what it sends, and where that is to be
// stored.
//
//	+--------+---+-----+
//	| FORMAT | | | DIR |      UTF-8, no terminator, at most 1024 bytes
//	+--------+---+-----+
type FrameSource struct {
	Format string // such as "infrared" or "visible"
	Dir    string // one level, never a path; may be empty
}

// Append appends the text to b. If the fields cannot be sent it returns b unchanged and an error.
func (s *FrameSource) Append(b []byte) ([]byte, error) {
	text := s.Format + "|" + s.Dir
	if err := new(FrameSource).Parse([]byte(text)); err != nil {
		return b, err
	}
	return append(b, text...), nil
}

// Parse reads the text, which must fill text. A Dir that is not the name of a single directory is
// an error.
func (s *FrameSource) Parse(text []byte) error {
	format, dir, err := frameFields(text, "FORMAT|DIR")
	if err != nil {
		return err
	}
	if dir != "" && (dir == "." || !filepath.IsLocal(dir) || strings.ContainsAny(dir, `/\`) || strings.HasSuffix(dir, ".") || strings.HasSuffix(dir, " ") || len(dir) > 255) {
		return fmt.Errorf("the directory %.80q is not one level: use a plain name", dir)
	}
	s.Format, s.Dir = format, dir
	return nil
}

// A FrameHeader announces an image of a [Frames] client.
//
//	+--------+---+------+
//	| LENGTH | | | NAME |     UTF-8, no terminator, at most 1024 bytes
//	+--------+---+------+
//
// LENGTH is the image's size in bytes, in decimal.
type FrameHeader struct {
	Size int64
	Name string
}

// Append appends the text to b. If the fields cannot be sent it returns b unchanged and an error.
func (h *FrameHeader) Append(b []byte) ([]byte, error) {
	text := strconv.FormatInt(h.Size, 10) + "|" + h.Name
	if err := new(FrameHeader).Parse([]byte(text)); err != nil {
		return b, err
	}
	return append(b, text...), nil
}

// Parse reads the text, which must fill text. It leaves the check of the name to the
// [transport.Inbox].
func (h *FrameHeader) Parse(text []byte) error {
	length, name, err := frameFields(text, "LENGTH|NAME")
	if err != nil {
		return err
	}
	size, err := strconv.ParseUint(length, 10, 63)
	if err != nil {
		return fmt.Errorf("%.40q is no length: use a decimal number of bytes", length)
	}
	if name == "" {
		return fmt.Errorf("%.40q has no name", text)
	}
	h.Size, h.Name = int64(size), name
	return nil
}

// frameFields takes a text apart at its only bar.
func frameFields(text []byte, form string) (first, second string, err error) {
	first, second, found := strings.Cut(string(text), "|")
	switch {
	case !found || first == "" || strings.Contains(second, "|"):
		err = fmt.Errorf("%.80q is not of the form %s, without further bars", text, form)
	case len(text) > deviceText:
		err = fmt.Errorf("a text of %d bytes: %s has at most %d", len(text), form, deviceText)
	case !utf8.Valid(text) || bytes.ContainsFunc(text, unicode.IsControl):
		err = fmt.Errorf("%.80q has characters that cannot be shown", text)
	}
	return first, second, err
}

const (
	frameOK   = "ok"
	frameNext = "continue"
	frameOver = "over"
)

// splitSource splits off FORMAT|DIR, whose end only a pause tells.
func splitSource(data []byte, paused bool) (int, error) {
	if paused && bytes.IndexByte(data, '|') > 0 {
		return len(data), nil
	}
	return 0, nil
}

// splitHeader splits off LENGTH|NAME, or over. The name ends where the extension of
// an image does, or else with a pause: nothing may follow before the answer.
func splitHeader(data []byte, paused bool) (int, error) {
	if startsLike(data, frameOver) {
		return literal(frameOver)(data, paused)
	}
	length, name, found := bytes.Cut(data, []byte("|"))
	switch {
	case len(bytes.Trim(length, "0123456789")) > 0:
		return 0, fmt.Errorf("%.40q came, where LENGTH|NAME or %q is due", data, frameOver)
	case !found || len(name) == 0:
		return 0, nil
	case paused || hasImageExtension(name):
		return len(data), nil
	}
	return 0, nil
}

// hasImageExtension reports whether a name ends in an extension that is not the
// beginning of a longer one.
func hasImageExtension(name []byte) bool {
	for _, ext := range []string{".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tiff", ".bin"} {
		if len(name) > len(ext) && strings.EqualFold(string(name[len(name)-len(ext):]), ext) {
			return true
		}
	}
	return false
}

// splitNext splits off what follows an image.
func splitNext(data []byte, paused bool) (int, error) {
	if startsLike(data, frameOver) {
		return literal(frameOver)(data, paused)
	}
	return literal(frameNext)(data, paused)
}
