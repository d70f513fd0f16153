package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/pixferry/pixferry/chunk"
)

func TestGroupSharesCalls(t *testing.T) {
	var g group[int]
	calls, running := 0, atomic.Int32{}
	started, proceed := make(chan bool), make(chan bool)
	var got [][]int
	g.run = func(items []int) error {
		if running.Add(1) > 1 {
			t.Error("two calls at once")
		}
		defer running.Add(-1)
		calls++
		got = append(got, items)
		started <- true
		<-proceed
		if calls == 2 {
			return errCrash
		}
		return nil
	}
	var wg sync.WaitGroup
	var failed atomic.Int32
	do := func(i int) {
		wg.Go(func() {
			if g.do(i) == errCrash {
				failed.Add(1)
			}
		})
	}
	do(0)
	<-started
	for i := range 5 {
		do(1 + i)
	}
	for waiting := 0; waiting < 5; { // until all five gather behind the first call
		g.mu.Lock()
		if g.next != nil {
			waiting = len(g.next.items)
		}
		g.mu.Unlock()
		runtime.Gosched()
	}
	proceed <- true
	<-started
	proceed <- true
	wg.Wait()
	if len(got) != 2 || len(got[0]) != 1 || len(got[1]) != 5 || failed.Load() != 5 {
		t.Errorf("calls %v, %d failed", got, failed.Load())
	}
}

func TestReceiptsForgetTheOldest(t *testing.T) {
	r := newReceipts(3)
	for i := range uint64(5) {
		r.add(Receipt{ID: MakeID(1, i), Bytes: int64(i)})
	}
	r.add(Receipt{ID: MakeID(1, 2), Bytes: 22})
	for i := range uint64(5) {
		if got, ok := r.get(MakeID(1, i)); ok != (i >= 2) || i == 2 && got.Bytes != 22 {
			t.Errorf("receipt %d: %v, %t", i, got, ok)
		}
	}
	r.remove(MakeID(1, 3))
	r.add(Receipt{ID: MakeID(1, 9)})
	if _, ok := r.get(MakeID(1, 2)); !ok || len(r.byID) != 3 || len(r.order) != 3 {
		t.Error("removing one did not make room")
	}
}

// Memory grows with the transfers of a sender that are not finished.
func TestReceiptsForgetBelow(t *testing.T) {
	r := newReceipts(0)
	r.add(Receipt{ID: MakeID(2, 5)})
	for i := range uint64(10_000) {
		r.add(Receipt{ID: MakeID(1, i)})
		if i >= 3 {
			r.forget(1, i-3)
			r.forget(1, 2) // never back
		}
		for back := range uint64(6) {
			if _, ok := r.get(MakeID(1, i-back)); i > 6 && ok != (back <= 3) {
				t.Fatalf("after %d, receipt %d: %t", i, i-back, ok)
			}
		}
		if len(r.byID) > 200 || len(r.order) > 200 {
			t.Fatalf("%d receipts in memory after %d", len(r.byID), i)
		}
	}
	if _, ok := r.get(MakeID(2, 5)); !ok {
		t.Error("the receipt of another sender is gone")
	}
	for i := range uint64(1000) {
		r.forget(100+i, 7)
	}
	if len(r.floors) > 300 {
		t.Errorf("%d floors of senders without receipts", len(r.floors))
	}
}

// The log of a store that runs for long stays small, and keeps what counts.
func TestReceiptLogIsCompacted(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), NoSync: true, MaxReceipts: 50})
	const n = 1100
	largest := int64(0)
	for i := range n {
		mustDeliver(t, s, MakeID(1, uint64(i)), fmt.Sprint(i), nil)
		largest = max(largest, s.opened.log.end)
	}
	perRecord := largest / 1024
	if s.opened.log.records > 1024 || perRecord > 256 {
		t.Errorf("%d records, at most %d bytes", s.opened.log.records, largest)
	}
	s = reopen(t, s)
	for i := range n {
		r, ok, err := s.Receipt(t.Context(), MakeID(1, uint64(i)))
		if err != nil || ok != (i >= n-50) || ok && r != receiptOf(MakeID(1, uint64(i)), nil) {
			t.Errorf("receipt %d: %v, %t, %v", i, r, ok, err)
		}
	}
}

// A log that cannot be replaced is used as it is; one that cannot be opened again then, once it can be replaced.
func TestReceiptLogCannotBeReplaced(t *testing.T) {
	for _, refused := range [][]string{{"rename"}, {"rename", "open"}} {
		s := newDirStore(t, &DirStore{Dir: t.TempDir()})
		mustDeliver(t, s, MakeID(1, 1), "a.jpg", small)
		s.opened.log.records, s.opened.log.compactAt = 100, 0
		s.opened.disk.step = func(op, name string, n int) (int, error) {
			if slices.Contains(refused, op) && (name == logFile || name == newLogFile) {
				return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EACCES}
			}
			return 0, nil
		}
		_, _, err := deliver(s, MakeID(1, 2), "b.jpg", small)
		if len(refused) == 1 && err != nil {
			t.Error(err)
		} else if len(refused) == 2 {
			wantReason(t, err, ReasonDisk, true)
		}
		s.opened.disk.step = nil
		mustDeliver(t, s, MakeID(1, 3), "c.jpg", small)
		s = reopen(t, s)
		for seq := range uint64(3) {
			if _, ok, err := s.Receipt(t.Context(), MakeID(1, seq+1)); ok != (len(refused) == 1 || seq != 1) || err != nil {
				t.Errorf("%v refused: receipt %d: %v, %v", refused, seq+1, ok, err)
			}
		}
	}
}

// A log that could not be opened again is closed once.
func TestReceiptLogThatCouldNotBeOpenedAgainIsClosed(t *testing.T) {
	s := newDirStore(t, &DirStore{Dir: t.TempDir()})
	mustDeliver(t, s, MakeID(1, 1), "a.jpg", small)
	s.opened.log.records, s.opened.log.compactAt = 100, 0
	s.opened.disk.step = func(op, name string, n int) (int, error) {
		if op == "rename" || op == "open" {
			return 0, &fs.PathError{Op: op, Path: name, Err: syscall.EACCES}
		}
		return 0, nil
	}
	if _, _, err := deliver(s, MakeID(1, 2), "b.jpg", small); err == nil {
		t.Fatal("the log cannot be written, and an image is kept")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// The log cannot be written, nor what was written of it be cut off: it is
// written anew, with what is under way.
func TestReceiptLogTorn(t *testing.T) {
	failing := map[string]bool{}
	s := newDirStore(t, &DirStore{Dir: t.TempDir(), step: func(op, name string, n int) (int, error) {
		if failing[op+" "+name] {
			return n, &os.PathError{Op: op, Path: name, Err: syscall.EIO}
		}
		return 0, nil
	}})
	mustDeliver(t, s, MakeID(1, 1), "a.jpg", []byte("a"))
	failing["write "+logFile], failing["truncate "+logFile], failing["create "+newLogFile] = true, true, true
	for i := range uint64(2) {
		_, _, err := deliver(s, MakeID(1, 2+i), "b.jpg", []byte("b"))
		wantReason(t, err, ReasonDisk, true)
	}
	if len(s.opened.pending) != 1 { // the first may be in the log, the second is not
		t.Errorf("%d images pending", len(s.opened.pending))
	}
	s2 := &DirStore{Dir: s.Dir}
	clear(failing)
	mustDeliver(t, s, MakeID(1, 3), "b.jpg", []byte("c"))
	wantReceipt(t, s, MakeID(1, 2), true)
	s.Close()
	s = newDirStore(t, s2)
	for i := range uint64(3) {
		wantReceipt(t, s, MakeID(1, 1+i), true)
	}
	wantOnly(t, s.Dir, map[string][]byte{"a.jpg": []byte("a"), "b.jpg": []byte("b"), "b (1).jpg": []byte("c")})
}

// A log that cannot be read is not taken for a short one, the rest of which is cut off.
func TestReadRecordsFails(t *testing.T) {
	one, _ := appendRecord(nil, []byte("one"))
	n := 0
	good, err := readRecords(io.MultiReader(bytes.NewReader(one), iotest.ErrReader(syscall.EIO)), func([]byte) error { n++; return nil })
	if !errors.Is(err, syscall.EIO) || n != 1 || good != int64(len(one)) {
		t.Errorf("%d records of %d bytes, %v", n, good, err)
	}
}

func FuzzParseLog(f *testing.F) {
	in := intent{receipt: receiptOf(MakeID(1, 2), []byte("x")), token: "TOKEN", name: "a/b.jpg", number: 3}
	f.Add(in.payload())
	f.Add((&intent{receipt: Receipt{ID: MakeID(3, 4)}}).payload())
	f.Add(voidPayload(MakeID(1, 2)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		in, void, err := parseLog(payload)
		if err != nil || void {
			return
		}
		again, _, err := parseLog(in.payload())
		if err != nil || again != in {
			t.Errorf("%+v became %+v, %v", in, again, err)
		}
	})
}

// Any file is read without a failure, and no more than what is whole.
func FuzzReadRecords(f *testing.F) {
	one, _ := appendRecord(nil, []byte("one"))
	two, _ := appendRecord(one, []byte("two"))
	f.Add(two)
	f.Add(two[:len(two)-1])
	f.Add(make([]byte, 100))
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Fuzz(func(t *testing.T, file []byte) {
		var again []byte
		good, err := readRecords(bytes.NewReader(file), func(payload []byte) error {
			var err error
			again, err = appendRecord(again, bytes.Clone(payload))
			return err
		})
		if err != nil || !bytes.Equal(again, file[:good]) {
			t.Errorf("%d bytes whole, %v", good, err)
		}
	})
}

func FuzzJournal(f *testing.F) {
	h := chunk.NewBlockHasher(chunk.SHA256)
	block := appendDigest([]byte{kindBlock, 1, 0, 0, 0, 0, 0, 0, 0}, h.Sum([]byte("x")))
	f.Add(block)
	f.Add([]byte{kindDrop, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte(string(kindPartial) + strings.Repeat("k", 32)))
	f.Fuzz(func(t *testing.T, payload []byte) {
		written := make(map[int64]chunk.Digest)
		err := replay(payload, written)
		for i, d := range written {
			if err != nil || i < 0 || d.IsZero() {
				t.Errorf("block %d, %v, %v", i, d, err)
			}
		}
		if err != nil && !errors.Is(err, errJournal) && len(payload) >= 9 && payload[0] == kindDrop {
			t.Error(err)
		}
	})
}
