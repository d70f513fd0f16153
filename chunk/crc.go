package chunk

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32C returns the CRC-32C (Castagnoli, RFC 3720 appendix B.4) of b.
func CRC32C(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// JoinCRC32C returns the CRC-32C of some bytes, whose CRC-32C is a, and n bytes behind them,
// whose CRC-32C is b.
func JoinCRC32C(a, b uint32, n int) uint32 {
	// a times x to the power of 8n, by squaring.
	power := uint32(1 << 23) // x^8: the lowest power is the highest bit
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			a = multiply(a, power)
		}
		power = multiply(power, power)
	}
	return a ^ b
}

// multiply returns the product of two polynomials modulo that of the CRC.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		product ^= b & -(a >> 31)
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return product
}
