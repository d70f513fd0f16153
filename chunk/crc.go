package chunk

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32C returns the CRC-32C (Castagnoli, RFC 3720 appendix B.4) of b.
func CRC32C(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
