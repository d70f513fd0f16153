package transport

import (
	"fmt"
	"runtime"
	"strings"
	"unicode/utf8"
)

// Limits bound what a Server takes. A field that is zero or negative means its default.
type Limits struct {
	MaxImage     int64 // bytes of one image; default 16 GiB
	MaxMessage   int   // bytes of one message; default 64 KiB
	MaxName      int   // bytes of a name, a source, a media type or a message type; default 255, as in most file systems
	MaxMeta      int   // bytes of all keys and values of an image's Meta; default 16 KiB
	MaxTransfers int   // images on their way in over one Conn; default 64. More are refused as busy; native.Config.MaxTransfers makes them wait
	MaxActive    int   // images on their way in over all Conns; default 1,024
	MaxReceipts  int   // receipts that a Server without a Store remembers, and senders of which it knows what is finished; default 65,536
}

func (l Limits) withDefaults() Limits {
	def := func(v *int, fallback int) {
		if *v <= 0 {
			*v = fallback
		}
	}
	if l.MaxImage <= 0 {
		l.MaxImage = 16 << 30
	}
	def(&l.MaxMessage, 64<<10)
	def(&l.MaxName, 255)
	def(&l.MaxMeta, 16<<10)
	def(&l.MaxTransfers, 64)
	def(&l.MaxActive, 1024)
	def(&l.MaxReceipts, 65536)
	return l
}

// check holds the metadata and the size of an offer against the limits.
func (l Limits) check(img *Image, size int64) error {
	if size > l.MaxImage {
		return l.tooLarge(size)
	}
	if img.Name != "" {
		if err := checkName(img.Name, l.MaxName); err != nil {
			return err
		}
		if runtime.GOOS == "windows" && strings.ContainsAny(img.Name, `<>:"|?*`) { // a sender there may have a receiver elsewhere
			return reject(ReasonName, "%.80q has characters that the receiver's system cannot store", img.Name)
		}
	}
	if err := l.checkText("media type", img.MediaType); err != nil {
		return err
	}
	if err := l.checkText("source", img.Source); err != nil {
		return err
	}
	total := 0
	for k, v := range img.Meta {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return reject(ReasonMeta, "the metadata of key %.40q is not UTF-8", k)
		}
		if total += len(k) + len(v); total > l.MaxMeta {
			return reject(ReasonMeta, "the metadata has over %d bytes: shorten it, or raise Limits.MaxMeta at the receiver", l.MaxMeta)
		}
	}
	return nil
}

func (l Limits) checkText(what, s string) error {
	switch {
	case len(s) > l.MaxName:
		return reject(ReasonMeta, "a %s of %d bytes: at most %d are taken", what, len(s), l.MaxName)
	case !utf8.ValidString(s) || hasControl(s):
		return reject(ReasonMeta, "the %s %.80q has characters that cannot be shown", what, s)
	}
	return nil
}

func (l Limits) tooLarge(size int64) error {
	return reject(ReasonTooLarge, "%d bytes: at most %d are taken; send a smaller image, or raise Limits.MaxImage at the receiver", size, l.MaxImage)
}

// reject is a permanent refusal.
func reject(r Reason, format string, a ...any) *RejectedError {
	return &RejectedError{Reason: r, Text: clip(fmt.Sprintf(format, a...))}
}

// later is a refusal that another try may overcome.
func later(r Reason, format string, a ...any) *RejectedError {
	e := reject(r, format, a...)
	e.Retryable = true
	return e
}

// clip cuts a refusal's text to the 1,024 bytes that travel.
func clip(s string) string {
	const most = 1024
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for len(s) > 0 && !utf8.ValidString(s[max(0, len(s)-utf8.UTFMax):]) {
		s = s[:len(s)-1]
	}
	return s
}
