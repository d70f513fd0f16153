package interop_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// equal compares a file.
func equal(t *testing.T, path string, want []byte) {
	t.Helper()
	if err := same(path, want); err != nil {
		t.Fatal(err)
	}
}

func same(path string, want []byte) error {
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if bytes.Equal(got, want) {
		return nil
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	return fmt.Errorf("%s has %d bytes, want %d; they differ at %d", path, len(got), len(want), i)
}

// equalAll compares what a peer has stored under dir.
func equalAll(t *testing.T, dir string, r report, want ...[]byte) {
	t.Helper()
	if len(r.Images) != len(want) {
		t.Fatalf("the peer has %d images, want %d", len(r.Images), len(want))
	}
	for i, w := range want {
		equal(t, filepath.Join(dir, r.Images[i].Name), w)
	}
}

// jpeg returns n bytes that look like a JPEG file: the marks are where they belong.
func jpeg(n int) []byte {
	b := picture(n, "")
	for i := range b {
		b[i] &^= 0x80 // no mark among the data
	}
	copy(b, "\xff\xd8\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00")
	if n >= 14 {
		copy(b[n-2:], "\xff\xd9")
	}
	return b
}

// bmp returns n bytes that begin as a BMP file does, whose header tells n.
func bmp(n int) []byte {
	return picture(n, "BM"+string(binary.LittleEndian.AppendUint32(nil, uint32(n)))+"\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00")
}

func picture(n int, head string) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = r.Read(b) // never fails
	copy(b, head)
	return b
}

// file writes a file and returns its path.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// files writes images as 0.jpg, 1.jpg, ...
func files(t *testing.T, images [][]byte) []string {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for i, b := range images {
		path := filepath.Join(dir, strconv.Itoa(i)+".jpg")
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// images makes one of each size; with -short, only the first two.
func images(make func(int) []byte, sizes ...int) [][]byte {
	if testing.Short() && len(sizes) > 2 {
		sizes = sizes[:2]
	}
	var all [][]byte
	for _, n := range sizes {
		all = append(all, make(n))
	}
	return all
}
