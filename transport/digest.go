package transport

import (
	"hash"

	"github.com/pixferry/pixferry/chunk"
	"github.com/zeebo/xxh3"
)

// XXH3 is XXH3-128, the default algorithm of digests. It detects accidents, not attacks: where
// somebody may forge bytes use a secure transport or [chunk.SHA256].
var XXH3 = chunk.Algorithm{ID: 1, Name: "xxh3-128", New: func() hash.Hash { return xxh3.New128() }, Sum: func(b, p []byte) []byte {
	sum := xxh3.Hash128(p).Bytes()
	return append(b, sum[:]...)
}}

// AlgorithmByID returns the digest algorithm with an ID that a peer has sent: XXH3 or
// chunk.SHA256. For any other ID it returns false.
func AlgorithmByID(id uint8) (chunk.Algorithm, bool) {
	for _, a := range []chunk.Algorithm{XXH3, chunk.SHA256} {
		if a.ID == id {
			return a, true
		}
	}
	return chunk.Algorithm{}, false
}
