package parity

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// The code is that of SPEC.md: byte for byte, symbol i of parity is the sum over the symbols j of the image,
// n of them, of these times 1/((n+i) xor j) in GF(256) modulo x^8+x^4+x^3+x^2+1.
func TestCodeIsSpecified(t *testing.T) {
	multiply := func(a, b byte) (p byte) {
		for ; b > 0; b >>= 1 {
			if b&1 > 0 {
				p ^= a
			}
			if a&0x80 > 0 {
				a = a<<1 ^ 0x1d
			} else {
				a <<= 1
			}
		}
		return p
	}
	inverse := func(a byte) byte {
		for x := 1; x < 256; x++ {
			if multiply(a, byte(x)) == 1 {
				return byte(x)
			}
		}
		return 0
	}
	for _, c := range [][2]int{{1, 1}, {2, 1}, {8, 3}, {50, 25}, {200, 56}} {
		n, k := c[0], c[1]
		data, parity := symbols(n, 31), symbols(k, 31)
		if err := new(Coder).Encode(data, parity); err != nil {
			t.Fatal(err)
		}
		for i, p := range parity {
			for at := range p {
				var want byte
				for j := range data {
					want ^= multiply(data[j][at], inverse(byte(n+i)^byte(j)))
				}
				if p[at] != want {
					t.Fatalf("%d and %d symbols: byte %d of parity %d is %#x, want %#x", n, k, at, i, p[at], want)
				}
			}
		}
	}
}

func symbols(n, size int) [][]byte {
	s := make([][]byte, n)
	for i := range s {
		s[i] = make([]byte, size)
		for j := range s[i] {
			s[i][j] = byte(rand.Uint32())
		}
	}
	return s
}

func TestRepair(t *testing.T) {
	var c Coder
	for range 300 {
		n := 2 + rand.IntN(50)
		k := 1 + rand.IntN(n/2)
		data, parity := symbols(n, 100), symbols(k, 100)
		if err := c.Encode(data, parity); err != nil {
			t.Fatal(err)
		}
		want := make([][]byte, n)
		for i := range data {
			want[i] = bytes.Clone(data[i])
		}
		for i, lost := range rand.Perm(n + k)[:k] {
			if i >= rand.IntN(k+1) {
				break
			}
			if lost < n {
				data[lost] = nil
			} else {
				parity[lost-n] = nil
			}
		}
		if err := c.Repair(data, parity); err != nil {
			t.Fatal(err)
		}
		for i := range data {
			if !bytes.Equal(data[i], want[i]) {
				t.Fatalf("symbol %d of %d and %d is wrong", i, n, k)
			}
		}
	}
	if len(c.codes) > maxCodes {
		t.Errorf("%d codes kept", len(c.codes))
	}
	data, parity := symbols(4, 10), symbols(2, 10)
	data[0], data[1], data[2] = nil, nil, nil
	if err := c.Repair(data, parity); err == nil {
		t.Error("three of four symbols repaired with two")
	}
}
