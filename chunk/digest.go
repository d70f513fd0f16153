package chunk

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// maxDigest is the longest digest in bytes; a longer hash is cut to it.
const maxDigest = 32

// An Algorithm is a hash for digests.
type Algorithm struct {
	ID   uint8            // on the wire: 1 XXH3-128, 2 SHA-256, 3 BLAKE3 (not included); from 128 on your own
	Name string           // for people
	New  func() hash.Hash // of its result the first 32 bytes count

	// Sum appends the same hash of p to b; nil: New is used. Many hashes are faster in one step
	// than in several, and then need no memory.
	Sum func(b, p []byte) []byte
}

// SHA256 is SHA-256 from the standard library.
var SHA256 = Algorithm{ID: 2, Name: "sha256", New: sha256.New, Sum: func(b, p []byte) []byte {
	sum := sha256.Sum256(p)
	return append(b, sum[:]...)
}}

// names are those of the algorithms with an assigned ID, in the order of IDs.
var names = [...]string{1: "xxh3-128", 2: "sha256", 3: "blake3"}

// A Digest is the hash of a block, or the root of an image, with the ID of its algorithm. The
// zero value means no digest. Digests can be compared with == and used as map keys.
type Digest struct {
	sum       [maxDigest]byte
	size      uint8
	algorithm uint8
}

// NewDigest returns the digest with the given 1 to 32 bytes, which it copies.
func NewDigest(algorithm uint8, sum []byte) (Digest, error) {
	if len(sum) == 0 || len(sum) > maxDigest {
		return Digest{}, fmt.Errorf("chunk: a digest has 1 to %d bytes, not %d", maxDigest, len(sum))
	}
	return cutDigest(algorithm, sum), nil
}

func cutDigest(algorithm uint8, sum []byte) Digest {
	d := Digest{algorithm: algorithm}
	d.size = uint8(copy(d.sum[:], sum))
	return d
}

// Algorithm returns the ID of the algorithm.
func (d Digest) Algorithm() uint8 { return d.algorithm }

// Len returns the number of bytes, 0 if there is no digest.
func (d Digest) Len() int { return int(d.size) }

// IsZero reports whether there is no digest.
func (d Digest) IsZero() bool { return d.size == 0 }

// Append appends the bytes of the digest, without its algorithm, to b.
func (d Digest) Append(b []byte) []byte { return append(b, d.sum[:d.size]...) }

// String returns the name of the algorithm, a colon and the bytes in hexadecimal, for example
// sha256:e3b0c442...; an algorithm without an assigned ID is named like alg128. The string of the
// zero Digest is empty.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	name := "alg" + strconv.Itoa(int(d.algorithm))
	if int(d.algorithm) < len(names) && names[d.algorithm] != "" {
		name = names[d.algorithm]
	}
	return name + ":" + hex.EncodeToString(d.sum[:d.size])
}

// MarshalText returns String's text.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = Digest{}
		return nil
	}
	name, digits, _ := strings.Cut(string(text), ":")
	sum, err := hex.DecodeString(digits)
	if err != nil {
		return fmt.Errorf("chunk: digest %.100q is not NAME:HEX: %w", text, err)
	}
	id, ok := algorithmID(name)
	if !ok {
		return fmt.Errorf("chunk: digest %.100q: unknown algorithm", text)
	}
	*d, err = NewDigest(id, sum)
	return err
}

func algorithmID(name string) (uint8, bool) {
	for id, known := range names {
		if known == name && name != "" {
			return uint8(id), true
		}
	}
	number, ok := strings.CutPrefix(name, "alg")
	id, err := strconv.ParseUint(number, 10, 8)
	return uint8(id), ok && err == nil
}
