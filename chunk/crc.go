package chunk

import (
	"hash/crc32"
	"math/bits"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32C returns the CRC-32C (Castagnoli, RFC 3720 appendix B.4) of b.
func CRC32C(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// JoinCRC32C returns the CRC-32C of two runs of bytes, one after the other: a is that of the
// first, b that of the second, and n the length of the second.
func JoinCRC32C(a, b uint32, n int) uint32 {
	// a times x to the power of 8n.
	for i := 0; n > 0; i, n = i+1, n>>1 {
		if n&1 != 0 {
			a = multiply(a, squares[i])
		}
	}
	return a ^ b
}

// squares are x^8 and what comes of squaring it again and again. The lowest power is the highest bit.
var squares = func() (s [bits.UintSize]uint32) {
	s[0] = 1 << 23
	for i := 1; i < len(s); i++ {
		s[i] = multiply(s[i-1], s[i-1])
	}
	return s
}()

// multiply returns the product of two polynomials modulo that of the CRC.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		product ^= b & -(a >> 31)
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return product
}
