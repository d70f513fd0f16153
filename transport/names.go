package transport

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// checkName is the one place that decides which names an image may have. What
// passes is a plain file name, but for characters that Windows has no room for, and
// never a way out of a directory. The answer is ReasonName, with the rule that was broken.
func checkName(name string, most int) error {
	stem, _, _ := strings.Cut(strings.ToUpper(name), ".")
	switch {
	case name == "":
		return reject(ReasonName, "the name is empty")
	case len(name) > most:
		return reject(ReasonName, "the name has %d bytes: at most %d are taken", len(name), most)
	case !utf8.ValidString(name):
		return reject(ReasonName, "%.80q is not UTF-8", name)
	case strings.ContainsAny(name, `/\`):
		return reject(ReasonName, "%.80q is a path: send the last part alone, and the rest as Source or Meta", name)
	case hasControl(name):
		return reject(ReasonName, "%.80q has control characters", name)
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "):
		return reject(ReasonName, "%.80q ends with a dot or a space", name) // "." and ".." are among them
	case reserved[strings.TrimRight(stem, " ")]:
		return reject(ReasonName, "%.80q is a device on Windows", name)
	case strings.HasPrefix(strings.ToLower(name), ".pixferry"):
		return reject(ReasonName, "%.80q: the prefix .pixferry is for the store's own files", name)
	}
	return nil
}

// reserved are the names that Windows takes for devices, with any extension.
var reserved = func() map[string]bool {
	m := map[string]bool{"CON": true, "PRN": true, "AUX": true, "NUL": true, "CONIN$": true, "CONOUT$": true}
	for _, port := range []string{"COM", "LPT"} {
		for _, n := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "¹", "²", "³"} {
			m[port+n] = true
		}
	}
	return m
}()

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }
