package chunk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash"
	"hash/crc32"
	"strings"
	"testing"
)

func TestCRC32C(t *testing.T) {
	// RFC 3720 appendix B.4: 32 bytes of zeros, 32 ascending bytes; and the usual check value.
	ascending := make([]byte, 32)
	for i := range ascending {
		ascending[i] = byte(i)
	}
	for _, v := range []struct {
		in   []byte
		want uint32
	}{
		{nil, 0}, {[]byte("123456789"), 0xe3069283}, {make([]byte, 32), 0x8a9136aa}, {ascending, 0x46dd794e},
	} {
		if got := CRC32C(v.in); got != v.want {
			t.Errorf("CRC32C(%x) = %08x, want %08x", v.in, got, v.want)
		}
	}
}

func TestJoinCRC32C(t *testing.T) {
	b := make([]byte, 300<<10)
	for i := range b {
		b[i] = byte(i * i >> 3)
	}
	for _, n := range []int{0, 1, 31, 256, 1452, 64 << 10, 256<<10 + 7, len(b)} {
		head, rest := b[:len(b)-n], b[len(b)-n:]
		if got, want := JoinCRC32C(CRC32C(head), CRC32C(rest), n), CRC32C(b); got != want {
			t.Errorf("joined at the last %d bytes: %08x, want %08x", n, got, want)
		}
	}
}

// naiveRoot computes the digest of an image as the documentation of Tree words it.
func naiveRoot(alg Algorithm, data []byte) Digest {
	root := alg.New()
	for rest := data; len(rest) > 0; {
		block := rest[:min(len(rest), BlockSize)]
		rest = rest[len(block):]
		h := alg.New()
		h.Write(block)
		root.Write(h.Sum(nil))
	}
	binary.Write(root, binary.LittleEndian, uint64(len(data)))
	d, err := NewDigest(alg.ID, root.Sum(nil))
	if err != nil {
		panic(err)
	}
	return d
}

// The empty image: SHA-256 of eight zero bytes.
func TestRootVector(t *testing.T) {
	const want = "sha256:af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"
	root, ok := NewTree(SHA256).Root(0)
	if !ok || root.String() != want {
		t.Errorf("empty image: %v %v", root, ok)
	}
}

var blockSizes = []int{0, 1, BlockSize - 1, BlockSize, BlockSize + 1, 2*BlockSize - 1, 2 * BlockSize, 2*BlockSize + 1}

func TestHashers(t *testing.T) {
	for _, size := range blockSizes {
		data := pattern(size)
		want := naiveRoot(SHA256, data)
		for _, step := range []int{1400, BlockSize, 3 * BlockSize} {
			h := NewHasher(SHA256)
			for rest := data; len(rest) > 0; {
				n, err := h.Write(rest[:min(step, len(rest))])
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
				if len(rest) < 1400 {
					h.Root() // asking early must change nothing
				}
			}
			if got := h.Root(); got != want {
				t.Errorf("Hasher, %d bytes by %d: %v, want %v", size, step, got, want)
			}
		}
		tree, hasher := NewTree(SHA256), NewBlockHasher(SHA256)
		for i := BlockCount(int64(size)) - 1; i >= 0; i-- {
			if _, ok := tree.Root(int64(size)); ok {
				t.Errorf("%d bytes: a root without block %d", size, i)
			}
			d, err := hasher.Read(bytes.NewReader(data), i, int64(size))
			if err != nil {
				t.Fatal(err)
			}
			r := BlockRange(i, int64(size))
			if sum := hasher.Sum(data[r.Start:r.End]); sum != d {
				t.Errorf("block %d: read %v, summed %v", i, d, sum)
			}
			if err := tree.Set(Block{i, d}); err != nil {
				t.Fatal(err)
			}
		}
		if got, ok := tree.Root(int64(size)); !ok || got != want {
			t.Errorf("Tree, %d bytes: %v %v, want %v", size, got, ok, want)
		}
		if _, ok := tree.Root(int64(size) + BlockSize); ok {
			t.Errorf("%d bytes: a root for another number of blocks", size)
		}
		tree.Set(Block{99, want})
		if _, ok := tree.Root(int64(size)); ok {
			t.Errorf("%d bytes: a root beside a block behind the end", size)
		}
	}
}

func TestBlockHasherStartsAfreshAfterAnError(t *testing.T) {
	b := NewBlockHasher(SHA256)
	if _, err := b.Read(bytes.NewReader(pattern(100_000)), 0, 200_000); !errors.Is(err, ErrSourceShort) {
		t.Fatalf("a short source: %v", err)
	}
	if want := sha256.Sum256([]byte("x")); !bytes.Equal(b.Sum([]byte("x")).Append(nil), want[:]) {
		t.Error("the digest after an error holds earlier bytes")
	}
}

func TestTreeRefuses(t *testing.T) {
	tree := NewTree(SHA256)
	other, _ := NewDigest(1, make([]byte, 16))
	own, _ := NewDigest(2, make([]byte, 32))
	for _, b := range []Block{{0, other}, {0, Digest{}}, {-1, own}, {maxBlocks, own}} {
		if err := tree.Set(b); err == nil {
			t.Errorf("took %v", b)
		}
	}
	if _, ok := tree.Root(-1); ok {
		t.Error("a root for a negative size")
	}
}

func TestBlockRange(t *testing.T) {
	const top = 1<<63 - 1
	for _, v := range []struct {
		index, size int64
		want        Range
	}{
		{0, 0, Range{}}, {0, 1, Range{0, 1}}, {0, -1, Range{0, BlockSize}}, {1, BlockSize, Range{BlockSize, BlockSize}},
		{1, BlockSize + 1, Range{BlockSize, BlockSize + 1}}, {-1, 5, Range{}}, {maxBlocks, top, Range{}},
		{maxBlocks - 1, top, Range{top - BlockSize + 1, top}},
	} {
		if got := BlockRange(v.index, v.size); got != v.want {
			t.Errorf("BlockRange(%d, %d) = %v, want %v", v.index, v.size, got, v.want)
		}
	}
	for size, want := range map[int64]int64{-1: 0, -5 * BlockSize: 0, 0: 0, 1: 1, BlockSize: 1, BlockSize + 1: 2, top: maxBlocks} {
		if got := BlockCount(size); got != want {
			t.Errorf("BlockCount(%d) = %d, want %d", size, got, want)
		}
	}
}

func TestDigestText(t *testing.T) {
	for text, id := range map[string]uint8{
		"xxh3-128:00112233445566778899aabbccddeeff": 1, "sha256:0102": 2, "blake3:ff": 3, "alg0:aa": 0, "alg200:aa": 200,
	} {
		var d Digest
		if err := json.Unmarshal([]byte(`"`+text+`"`), &d); err != nil || d.Algorithm() != id || d.IsZero() {
			t.Errorf("%s: algorithm %d, %v", text, d.Algorithm(), err)
		}
		again, _ := NewDigest(id, d.Append(nil))
		if out, _ := json.Marshal(again); again != d || string(out) != `"`+text+`"` {
			t.Errorf("%s became %s", text, out)
		}
	}
	var zero Digest
	if out, err := json.Marshal(zero); string(out) != `""` || err != nil || json.Unmarshal(out, &zero) != nil || !zero.IsZero() {
		t.Errorf("no digest became %s, %v", out, err)
	}
	again := NewBlockHasher(SHA256).Sum([]byte("x"))
	if err := again.UnmarshalText(nil); err != nil || !again.IsZero() {
		t.Errorf("no digest read over another one: %v, %v", again, err)
	}
	for _, text := range []string{"alg256:aa", "alg300:aa", "alg-1:aa", "alg:aa", "algx:aa", "md5:aa"} {
		if again.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%s became %v", text, again)
		}
	}
}

func FuzzDigestUnmarshalText(f *testing.F) {
	for _, s := range []string{"", ":", "sha256:", "sha256", ":aa", "alg:aa", "alg256:aa", "alg-1:aa", "sha256:a", "md5:aa", "sha256:aa", "sha256:" + strings.Repeat("a", 66)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var d, again Digest
		if d.UnmarshalText([]byte(s)) != nil {
			if d != (Digest{}) {
				t.Fatalf("%q: an error and %v", s, d)
			}
			return
		}
		if d.IsZero() != (s == "") {
			t.Fatalf("%q became %q", s, d)
		}
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Fatalf("%q became %q, then %q, %v", s, d, again, err)
		}
	})
}

func TestNewDigestRefuses(t *testing.T) {
	for _, n := range []int{0, 33} {
		if _, err := NewDigest(1, make([]byte, n)); err == nil {
			t.Errorf("took %d bytes", n)
		}
	}
}

func TestHasherAllocatesNothing(t *testing.T) {
	h, p := NewHasher(SHA256), make([]byte, 1000)
	if n := testing.AllocsPerRun(500, func() { h.Write(p) }); n != 0 {
		t.Errorf("%v allocations a write", n)
	}
}

// crcAlgorithm is quick, for tests in which much is hashed.
var crcAlgorithm = Algorithm{ID: 200, Name: "crc32c", New: func() hash.Hash { return crc32.New(castagnoli) }}

func TestSumIsNewInOneStep(t *testing.T) {
	p := pattern(BlockSize)
	for _, n := range []int{0, 1, 63, 64, 1000, BlockSize} {
		h := SHA256.New()
		h.Write(p[:n])
		if sum := SHA256.Sum([]byte("before"), p[:n]); !bytes.Equal(sum, h.Sum([]byte("before"))) {
			t.Errorf("%d bytes: %x", n, sum)
		}
	}
}
