package framing

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// ErrChecksum says that bytes were changed or lost on their way.
var ErrChecksum = errors.New("framing: wrong checksum: bytes were changed or lost on the way")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendCRC32C appends the CRC32C (RFC 3720, appendix B.4) of b[from:], 4 bytes, little-endian.
// The frame starts at b[from].
func AppendCRC32C(b []byte, from int) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[from:], castagnoli))
}

// TrimCRC32C checks the trailer that AppendCRC32C wrote and returns frame without it. The error
// is ErrShort if there is no room for a trailer, else ErrChecksum.
func TrimCRC32C(frame []byte) ([]byte, error) {
	n := len(frame) - 4
	if n < 0 {
		return nil, ErrShort
	}
	if crc32.Checksum(frame[:n], castagnoli) != binary.LittleEndian.Uint32(frame[n:]) {
		return nil, ErrChecksum
	}
	return frame[:n], nil
}
