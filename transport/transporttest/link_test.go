package transporttest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// memLink is an ordered, reliable link in memory. twist makes it a bad one.
type memLink struct {
	in, out *memPipe
	twist   twist
	written atomic.Int64
	kept    []byte // the caller's
}

type memPipe struct {
	msgs   chan []byte
	closed chan struct{}
	once   sync.Once
}

func newMemPipe() *memPipe { return &memPipe{msgs: make(chan []byte, 64), closed: make(chan struct{})} }

func (p *memPipe) close() { p.once.Do(func() { close(p.closed) }) }

// A twist is one way of breaking the promise of a link.
type twist int

const (
	honest      twist = iota
	keeps             // holds on to the caller's slice until the next message
	truncates         // cuts long messages
	joins             // sends two as one
	swaps             // exchanges neighbours
	loses             // every tenth
	doubles           // every tenth
	takesAll          // has no limit
	lowMax            // names a limit in its error that it does not take itself
	stuckReader       // its Close does not free the reader
	stuckWriter       // nor the writer
	drops             // its Close throws away what was written
	leaks             // leaves a goroutine
	small             // its messages are under the least
	mute              // nothing arrives
)

const memMax = 2048

func memPair(tw twist) MakeLink {
	return func(testing.TB) (native.Link, native.Link) {
		p, q := newMemPipe(), newMemPipe()
		if tw == leaks {
			go func() { time.Sleep(100 * time.Hour) }()
		}
		return &memLink{in: p, out: q, twist: tw}, &memLink{in: q, out: p, twist: tw}
	}
}

func (l *memLink) Info() native.LinkInfo {
	if l.twist == small {
		return native.LinkInfo{Protocol: "mem", Ordered: true, Reliable: true, MaxMessage: 100}
	}
	return native.LinkInfo{Protocol: "mem", Ordered: true, Reliable: true, MaxMessage: memMax}
}

func (l *memLink) ReadMessage(buf []byte) (int, error) {
	end := l.in.closed
	if l.twist == stuckReader {
		end = nil
	}
	select {
	case m := <-l.in.msgs:
		return copy(buf, m), nil
	default:
	}
	select {
	case m := <-l.in.msgs:
		return copy(buf, m), nil
	case <-end:
		return 0, io.EOF
	}
}

func (l *memLink) WriteMessage(msg []byte) error {
	n := l.written.Add(1)
	switch {
	case len(msg) > memMax && l.twist == takesAll:
	case len(msg) > memMax && l.twist == lowMax:
		return &transport.TooLargeError{What: "message", Size: int64(len(msg)), Max: int64(len(msg))}
	case len(msg) > memMax:
		return &transport.TooLargeError{What: "message", Size: int64(len(msg)), Max: memMax}
	}
	if l.twist == keeps || l.twist == drops {
		if l.twist == drops { // the last one, whenever the reader comes
			msg = bytes.Clone(msg)
		}
		msg, l.kept = l.kept, msg
		if msg == nil {
			return nil
		}
	}
	msg = bytes.Clone(msg)
	switch l.twist {
	case truncates:
		msg = msg[:min(len(msg), memMax-1)]
	case joins:
		if n%10 == 0 {
			msg = append(msg, msg...)
		}
	case swaps:
		if n%10 == 0 {
			select {
			case earlier := <-l.out.msgs:
				defer func() { l.out.msgs <- earlier }()
			default:
			}
		}
	case loses:
		if n%10 == 0 {
			return nil
		}
	case mute:
		return nil
	case doubles:
		if n%10 == 0 {
			l.out.msgs <- msg
		}
	}
	end := l.out.closed
	if l.twist == stuckWriter {
		end = nil
	}
	select {
	case <-l.out.closed:
		return net.ErrClosed
	default:
	}
	select {
	case l.out.msgs <- msg:
		return nil
	case <-end:
		return net.ErrClosed
	}
}

func (l *memLink) Close() error {
	l.in.close()
	l.out.close()
	return nil
}

var memProperties = LinkProperties{Ordered: true, Reliable: true, MaxMessage: memMax, Bubble: true}

func TestLinkKitPassesGoodLinks(t *testing.T) {
	t.Run("memory", func(t *testing.T) { TestLink(t, memPair(honest), memProperties) })
	t.Run("memory in real time", func(t *testing.T) {
		TestLink(t, memPair(honest), LinkProperties{Ordered: true, Reliable: true})
	})
	t.Run("lossy", func(t *testing.T) {
		TestLink(t, faultyPair(Faults{Seed: 1, Loss: 0.1, Burst: 3, Duplicate: 0.1}), LinkProperties{Ordered: true, Bubble: true})
	})
	t.Run("lossy and disordered", func(t *testing.T) {
		TestLink(t, faultyPair(Faults{Seed: 2, Loss: 0.1, Reorder: 0.1, PartitionEvery: time.Minute, PartitionFor: time.Second}), LinkProperties{Bubble: true})
	})
}

func faultyPair(f Faults) MakeLink {
	return func(t testing.TB) (native.Link, native.Link) {
		a, b := memPair(honest)(t)
		back := f
		back.Seed++
		return f.Wrap(t, a), back.Wrap(t, b)
	}
}

// Each lie must be found by the check that is there for it.
func TestLinkKitCatches(t *testing.T) {
	for _, tt := range []struct {
		name  string
		check string
		make  MakeLink
		p     LinkProperties
		says  string
	}{
		{"keeping the slice", "Stream", memPair(keeps), memProperties, "never keeps msg"},
		{"truncation", "Sizes", memPair(truncates), memProperties, "nobody has written"},
		{"joined messages", "Stream", memPair(joins), memProperties, "nobody has written"},
		{"disorder", "Stream", memPair(swaps), memProperties, "claims to be ordered"},
		{"loss", "Stream", memPair(loses), memProperties, "claims to be reliable"},
		{"duplicates", "Stream", memPair(doubles), memProperties, "claims to be reliable"},
		{"disorder in the way back", "BothWays", memPair(swaps), memProperties, "claims to be ordered"},
		{"no limit", "TooLarge", memPair(takesAll), memProperties, "want a *transport.TooLargeError"},
		{"a limit that is not true", "TooLarge", memPair(lowMax), memProperties, "must be what the link takes"},
		{"a stuck reader", "CloseFreesReader", memPair(stuckReader), memProperties, "nothing after"},
		{"a stuck writer", "CloseFreesWriter", memPair(stuckWriter), memProperties, "nothing after"},
		{"a Close that drops", "WriteThenClose", memPair(drops), memProperties, "claims to be reliable"},
		{"a goroutine", "Info", memPair(leaks), memProperties, leftBehind},
		{"small messages", "Info", memPair(small), LinkProperties{Ordered: true, Reliable: true}, "256 or more"},
		{"other properties", "Info", memPair(honest), LinkProperties{Ordered: true}, "claimed are"},
		{"another size", "Info", memPair(honest), LinkProperties{Ordered: true, Reliable: true, MaxMessage: 300}, "claimed are 300"},
		{"total loss", "Stream", memPair(mute), LinkProperties{Ordered: true}, "none of"},
		{"total loss of single messages", "Sizes", memPair(mute), LinkProperties{Ordered: true}, "may lose most"},
		{"corruption", "Stream", faultyPair(Faults{Seed: 3, Corrupt: 0.2}), LinkProperties{Ordered: true}, "nobody has written"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mustComplain(t, linkChecks, tt.check, linkKit{tt.make, tt.p}, tt.says)
		})
	}
}

func collect(f Faults, t testing.TB, n int) string {
	a, b := memPair(honest)(t)
	l := f.Wrap(t, a)
	var got strings.Builder
	buf := make([]byte, memMax)
	for i := range n {
		msg := fmt.Appendf(nil, "%d ", i)
		if err := l.WriteMessage(msg); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%d ", i); string(msg) != want {
			t.Fatalf("the faults changed the caller's message to %q", msg)
		}
		for len(b.(*memLink).in.msgs) > 0 {
			k, err := b.ReadMessage(buf)
			if err != nil {
				t.Fatal(err)
			}
			got.Write(buf[:k])
		}
	}
	return got.String()
}

func TestFaultsRepeatFromTheirSeed(t *testing.T) {
	f := Faults{Seed: 7, Loss: 0.1, Burst: 4, Duplicate: 0.1, Reorder: 0.1, Corrupt: 0.1}
	first := collect(f, t, 300)
	if again := collect(f, t, 300); again != first {
		t.Errorf("one seed, two fates:\n%s\n%s", first, again)
	}
	if !strings.HasPrefix(collect(f, t, 400), first) {
		t.Error("later messages change the fate of earlier ones")
	}
	f.Seed++
	if collect(f, t, 300) == first {
		t.Error("two seeds, one fate")
	}
}

func TestFaultsDoWhatTheyAreToldTo(t *testing.T) {
	const n = 20_000
	arrivals := func(f Faults) (lost, runs, twice, late int) {
		last := -1
		seen := make([]int, n)
		for s := range strings.FieldsSeq(collect(f, t, n)) {
			var i int
			fmt.Sscan(s, &i)
			seen[i]++
			if i < last {
				late++
			}
			last = max(last, i)
		}
		for i, times := range seen {
			if times == 0 {
				lost++
				if i > 0 && seen[i-1] > 0 {
					runs++
				}
			} else if times > 1 {
				twice++
			}
		}
		return lost, runs, twice, late
	}
	near := func(what string, got, want, off int) {
		t.Helper()
		if got < want-off || got > want+off {
			t.Errorf("%s: %d, want %d ± %d", what, got, want, off)
		}
	}
	lost, runs, twice, late := arrivals(Faults{})
	near("without faults", lost+runs+twice+late, 0, 0)
	lost, runs, _, _ = arrivals(Faults{Seed: 1, Loss: 0.2})
	near("lost", lost, n/5, n/100)
	near("runs of single losses", runs, n/5*4/5, n/100)
	lost, runs, _, _ = arrivals(Faults{Seed: 2, Loss: 0.2, Burst: 10})
	near("lost in bursts", lost, n/5, n/50)
	near("bursts", runs, n/5/10, n/200)
	_, _, twice, _ = arrivals(Faults{Seed: 3, Duplicate: 0.1})
	near("twice", twice, n/10, n/100)
	lost, _, _, late = arrivals(Faults{Seed: 4, Reorder: 0.1, Hold: 5})
	near("late", late, n/10, n/100)
	near("lost by disorder", lost, 0, 5)
	lost, _, _, _ = arrivals(Faults{Seed: 5, Loss: 1})
	near("all lost", lost, n, 0)
}

func TestFaultsCorrupt(t *testing.T) {
	clean, bad := collect(Faults{}, t, 5000), collect(Faults{Corrupt: 0.1}, t, 5000)
	changed := 0
	a, b := strings.SplitAfter(clean, " "), bad
	for _, field := range a { // lengths stay, so that both run in step
		if b[:len(field)] != field {
			changed++
		}
		b = b[len(field):]
	}
	if changed < 400 || changed > 600 || b != "" {
		t.Errorf("%d of 5,000 messages changed, %q left over; want about 500", changed, b)
	}
}

func TestFaultsPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memPair(honest)(t)
		l := Faults{PartitionEvery: 3 * time.Second, PartitionFor: 2 * time.Second}.Wrap(t, a)
		var got []byte
		for i := range byte(10) {
			l.WriteMessage([]byte{i})
			time.Sleep(time.Second)
		}
		for len(b.(*memLink).in.msgs) > 0 {
			buf := make([]byte, 1)
			b.ReadMessage(buf)
			got = append(got, buf...)
		}
		if want := []byte{0, 1, 2, 5, 6, 7}; !bytes.Equal(got, want) {
			t.Errorf("%v came through, want %v", got, want)
		}
	})
}

func TestFaultsSayTheirSeed(t *testing.T) {
	var r *recorder
	judge(t, false, func(t testing.TB) {
		r = t.(*recorder)
		a, _ := memPair(honest)(t)
		Faults{Seed: 4711}.Wrap(t, a)
		t.Error("something went wrong")
	})
	if len(r.logs) != 1 || !strings.Contains(r.logs[0], "Seed:0x1267") {
		t.Errorf("a failed test logs %q, want the seed", r.logs)
	}
}

func TestFaultyLinkEndsWithClose(t *testing.T) {
	a, _ := memPair(honest)(t)
	l := Faults{Loss: 1}.Wrap(t, a)
	l.Close()
	if l.WriteMessage([]byte("x")) == nil {
		t.Error("a closed link that loses everything takes messages")
	}
}
