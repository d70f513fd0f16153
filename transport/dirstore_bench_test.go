package transport

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pixferry/pixferry/chunk"
)

// Images of 100 KB from the offer to the receipt.
func BenchmarkDirStoreCommit(b *testing.B) {
	content := picture(1, 100_000)
	receipt := receiptOf(ID{}, content)
	for _, noSync := range []bool{false, true} {
		for _, workers := range []int{1, 8} {
			b.Run(fmt.Sprintf("nosync=%t/concurrent=%d", noSync, workers), func(b *testing.B) {
				s := &DirStore{Dir: b.TempDir(), NoSync: noSync}
				defer s.Close()
				b.SetBytes(int64(len(content)))
				var wg sync.WaitGroup
				var next atomic.Int64
				b.ResetTimer()
				for range workers {
					wg.Go(func() {
						for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
							id, img := MakeID(1, uint64(i)), Image{Name: fmt.Sprintf("%d.jpg", i)}
							p, err := s.Open(b.Context(), PartialOffer{ID: id, Key: img.Name, Image: img, Size: receipt.Bytes, Algorithm: chunk.SHA256})
							if err != nil {
								b.Error(err)
								return
							}
							p.WriteAt(content, 0)
							r := receipt
							r.ID = id
							if _, err := p.Commit(b.Context(), &img, r); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

// What the system asks for the steps of such a commit.
func BenchmarkDirStoreSteps(b *testing.B) {
	content := picture(1, 100_000)
	dir := b.TempDir()
	name := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	create := func(b *testing.B, i int) *os.File {
		f, err := os.Create(name(i))
		if err != nil {
			b.Fatal(err)
		}
		f.WriteAt(content, 0)
		return f
	}
	b.Run("create+write", func(b *testing.B) {
		for i := range b.N {
			create(b, i).Close()
		}
	})
	b.Run("create+write+sync", func(b *testing.B) {
		for i := range b.N {
			f := create(b, i)
			f.Sync()
			f.Close()
		}
	})
	b.Run("link+remove", func(b *testing.B) {
		create(b, 0).Close()
		for range b.N {
			os.Link(name(0), name(-1))
			os.Remove(name(-1))
		}
	})
	b.Run("append+sync", func(b *testing.B) {
		f := create(b, 0)
		defer f.Close()
		for i := range b.N {
			f.WriteAt(content[:120], int64(i)*120)
			f.Sync()
		}
	})
	b.Run("link+syncdir", func(b *testing.B) {
		create(b, 0).Close()
		d, err := os.Open(dir)
		if err != nil || runtime.GOOS == "windows" {
			b.Skip(err)
		}
		defer d.Close()
		for i := range b.N {
			os.Link(name(0), name(-1-i))
			d.Sync()
			os.Remove(name(-1 - i))
		}
	})
}
