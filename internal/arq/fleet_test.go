package arq

import (
	"errors"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/internal/wire"
)

// An engine with its loss recovery is one object of a size that the allocator has: a few bytes more take a tenth more
// memory in each idle session.
func TestEngineSize(t *testing.T) {
	const most = 2048
	if n := unsafe.Sizeof(struct {
		Engine
		recovery recovery
	}{}); n > most {
		t.Errorf("%d bytes, over %d", n, most)
	}
}

// visitor sends images over two engines that are idle in between, and makes no garbage itself.
type visitor struct {
	t      *testing.T
	a, b   *Engine
	now    time.Time
	data   []byte
	buf    []byte
	digest chunk.Digest
	kept   bool
}

func newVisitor(t *testing.T) *visitor {
	a, b := couple(t, func(ca, cb *Config) {
		ca.Ordered, ca.Reliable, cb.Ordered, cb.Reliable = false, false, false, false
	})
	exchange(start, a, b)
	digest, _ := chunk.NewDigest(2, make([]byte, 32))
	return &visitor{t: t, digest: digest, a: a.Engine, b: b.Engine, now: start, data: pattern(10_000), buf: make([]byte, 1<<16)}
}

// image sends one and returns when both engines are idle.
func (v *visitor) image() {
	v.now, v.kept = v.now.Add(10*time.Second), false
	v.a.Advance(v.now)
	v.b.Advance(v.now)
	if _, err := v.a.Offer(&wire.Offer{ID: [16]byte{1}, Size: int64(len(v.data)), Algorithm: 2}); err != nil {
		v.t.Fatal(err)
	}
	for range 1000 {
		if moved := v.move(v.a, v.b) || v.move(v.b, v.a); moved {
			continue
		}
		at, other := v.a.Deadline(), v.b.Deadline()
		if v.kept && v.a.Quiet() && v.b.Quiet() && !v.a.acks.now && v.a.acks.due == 0 {
			return
		}
		if at.IsZero() || !other.IsZero() && other.Before(at) {
			at = other
		}
		v.now = at
		v.a.Advance(at)
		v.b.Advance(at)
	}
	v.t.Fatal("the image does not arrive", v.a.ending.err)
}

func (v *visitor) move(from, to *Engine) (moved bool) {
	v.drain(from)
	n := from.Poll(v.now, v.buf)
	if n == 0 {
		return false
	}
	v.now = v.now.Add(10 * time.Millisecond)
	to.Receive(v.now, v.buf[:n])
	v.drain(to)
	from.Deadline()
	to.Deadline()
	return true
}

func (v *visitor) drain(e *Engine) {
	for ev := e.NextEvent(); ev != nil; ev = e.NextEvent() {
		switch ev.Kind {
		case Wanted:
			h := ev.Handle
			if e.Want(h) == 0 {
				continue
			}
			if err := errors.Join(e.Supply(h, 0, v.data), e.Finish(h, int64(len(v.data)), v.digest)); err != nil {
				v.t.Fatal(err)
			}
		case Received:
			e.Consumed(len(ev.Data), 1)
		case Finished:
			if err := e.Receipt(ev.Handle, &wire.Receipt{Level: wire.LevelKept, Bytes: ev.Fin.Size, Algorithm: 2, Digest: ev.Fin.Digest}); err != nil {
				v.t.Fatal(err)
			}
		case Receipted:
			v.kept = true
		}
	}
}

// What an image allocates is collected, and that costs the more, the more sessions there are.
func TestImageAllocatesLittle(t *testing.T) {
	v := newVisitor(t)
	for range 10 {
		v.image()
	}
	const most = 8 // at both ends, one of them the OFFER and one the RECEIPT
	if per := testing.AllocsPerRun(100, v.image); per > most && !lossyPools() {
		t.Errorf("%.0f allocations for an image", per)
	}
}

// lossyPools reports whether a pool drops what it is given, as it does at times under the race detector.
func lossyPools() bool {
	pool := sync.Pool{New: func() any { return nil }}
	for range 100 {
		pool.Put(new(int))
		if pool.Get() == nil {
			return true
		}
	}
	return false
}

// An engine that is idle has given back what it has borrowed.
func TestIdleEngineHoldsNothing(t *testing.T) {
	v := newVisitor(t)
	v.image()
	for _, e := range []*Engine{v.a, v.b} {
		if e.sent.buf != nil || e.events.list != nil {
			t.Errorf("a ring of %d, events %v", len(e.sent.buf), e.events.list)
		}
	}
}

// What is borrowed next points to nothing of the one before.
func TestRingIsGivenBackEmpty(t *testing.T) {
	var r sentRing
	for n := range 3 * sharedRing {
		m := r.push()
		if m.from != nil || len(m.facts) > 0 {
			t.Fatal("not forgotten")
		}
		*m = sentMessage{state: []state{resolved, lost}[n%2], from: new(outgoing), facts: append(m.facts, new(control))}
	}
	buf := r.buf[:cap(r.buf)]
	r.shrink(time.Hour)
	if r.buf != nil {
		t.Fatal("not given back")
	}
	for i := range buf {
		if m := &buf[i]; m.from != nil || len(m.facts) > 0 || cap(m.facts) > 0 && m.facts[:1][0] != nil {
			t.Fatalf("%+v", *m)
		}
	}
}

// Memory beside the engine outlives what was in it, and lets go of that when a list leaves it.
func TestListsForgetWhatTheyLeave(t *testing.T) {
	var memory [2]*control
	list := memory[:0]
	for range 5 {
		list = add(list, new(control))
	}
	if memory != [2]*control{} || len(list) != 5 || list[0] == nil || list[4] == nil {
		t.Errorf("%v is left of %v", memory, list)
	}
	table := table[control]{list: make([]entry[control], 0, 1)}
	first := table.list[:1]
	for h := range uint16(5) {
		table.add(5-h, new(control))
	}
	if first[0].value != nil || table.len() != 5 || table.get(1) == nil || table.get(5) == nil {
		t.Errorf("%v is left of %v", first, table.list)
	}
}
