package wire

// ExpandNumber returns the packet number whose low 32 bits are truncated and
// that is closest to largest+1 (RFC 9000, appendix A.3). largest is the highest
// number received so far, or for numbers in an ACK the highest sent; -1: none.
func ExpandNumber(truncated uint32, largest int64) int64 {
	const window = 1 << 32
	expected := largest + 1
	candidate := expected&^(window-1) | int64(truncated)
	switch {
	case candidate <= expected-window/2:
		return candidate + window
	case candidate > expected+window/2 && candidate >= window:
		return candidate - window
	}
	return candidate
}
