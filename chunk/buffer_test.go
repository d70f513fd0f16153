package chunk

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"sync"
	"testing"
	"testing/iotest"
)

func TestBufferReadsLikeAFile(t *testing.T) {
	data := pattern(3*pageSize + 100)
	b := NewBuffer(int64(len(data)))
	for off := len(data); off > 0; {
		n := min(off, 1400)
		off -= n
		if _, err := b.WriteAt(data[off:off+n], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := iotest.TestReader(io.NewSectionReader(b, 0, b.Size()), data); err != nil {
		t.Error(err)
	}
	for _, off := range []int64{b.Size(), b.Size() + 1, 1 << 62} {
		if n, err := b.ReadAt(make([]byte, 1), off); n != 0 || err != io.EOF {
			t.Errorf("read at %d: %d, %v", off, n, err)
		}
	}
	if _, err := b.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
		t.Errorf("read at -1: %v", err)
	}
}

func TestBufferHolesAreZero(t *testing.T) {
	b := NewBuffer(1 << 40)
	end := int64(3*pageSize + 5)
	b.WriteAt([]byte("end"), end)
	got := bytes.Repeat([]byte{7}, int(end)+3)
	if _, err := b.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if want := append(make([]byte, end), "end"...); !bytes.Equal(got, want) {
		t.Error("a hole does not read as zeros")
	}
}

func TestBufferLimit(t *testing.T) {
	b := NewBuffer(10)
	for _, off := range []int64{-1, 8, 10, 1<<63 - 1} {
		if n, err := b.WriteAt([]byte("abc"), off); n != 0 || !errors.Is(err, ErrTooLarge) || b.Size() != 0 {
			t.Errorf("write of 3 at %d of 10: %d, %v", off, n, err)
		}
	}
	if _, err := b.WriteAt([]byte("abc"), 7); err != nil || b.Size() != 10 {
		t.Errorf("write up to the limit: %v", err)
	}
}

// A byte far out takes a page, not the room up to it.
func TestBufferMemoryFollowsBytes(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b := NewBuffer(1 << 62)
	for i := range 16 {
		if _, err := b.WriteAt([]byte{1}, 1<<61+int64(i)<<40); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 32*pageSize {
		t.Errorf("16 bytes took %d bytes of memory", took)
	}
}

func TestBufferConcurrently(t *testing.T) {
	data := pattern(10 * pageSize)
	b := NewBuffer(int64(len(data)))
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for off := w * 1000; off < len(data); off += 4000 {
				b.WriteAt(data[off:min(off+1000, len(data))], int64(off))
			}
		})
		wg.Go(func() {
			p := make([]byte, 5000)
			for off := int64(0); off < int64(len(data)); off += 5000 {
				b.ReadAt(p, off)
			}
		})
	}
	wg.Wait()
	got := make([]byte, len(data))
	if _, err := b.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("content differs, %v", err)
	}
}
