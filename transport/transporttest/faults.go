package transporttest

import (
	"cmp"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport/native"
)

// Faults are what a bad medium does to the messages written to a link. The zero value does
// nothing. Probabilities are between 0 and 1.
//
// What happens to the nth message depends on the seed and n alone, so that a repeated test meets
// the same faults. Only partitions go by time, which a testing/synctest bubble repeats too.
type Faults struct {
	Seed uint64
	// Loss is the share of messages that is lost.
	Loss float64
	// Burst is the mean length of a run of lost messages (Gilbert's model); below 2, losses are
	// independent.
	Burst int
	// Duplicate is the probability that a message arrives twice.
	Duplicate float64
	// Reorder is the probability that a message is held back until later ones have passed it; if
	// none come, it never arrives.
	Reorder float64
	// Hold is the most messages that may pass one held back; 0 means 3.
	Hold int
	// Corrupt is the probability that one to three bits of a message flip.
	Corrupt float64
	// PartitionEvery and PartitionFor let nothing through for the time PartitionFor after each
	// time PartitionEvery, counted from Wrap.
	PartitionEvery, PartitionFor time.Duration
}

// Wrap returns link with these faults in what is written to it. For the way back wrap the other
// end, with another seed. If the test fails the faults are logged with their seed.
func (f Faults) Wrap(t testing.TB, link native.Link) native.Link {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the faults were %#v", f)
		}
	})
	return &faulty{Link: link, Faults: f, rand: rand.New(rand.NewPCG(f.Seed, 0)), begin: time.Now()}
}

// faulty belongs to the one goroutine that writes, Info and Close apart.
type faulty struct {
	native.Link
	Faults
	rand    *rand.Rand
	begin   time.Time
	losing  bool // in a run of losses
	delayed []delayed
	closed  atomic.Bool
}

type delayed struct {
	msg  []byte
	left int // messages until it follows, itself included
}

func (l *faulty) Info() native.LinkInfo {
	info := l.Link.Info()
	info.Ordered = info.Ordered && l.Reorder == 0
	info.Reliable = info.Reliable && l.Loss == 0 && l.Duplicate == 0 && l.Reorder == 0 && l.Corrupt == 0 && l.PartitionFor == 0
	return info
}

func (l *faulty) WriteMessage(msg []byte) error {
	// Always the same number of draws, or the fate of one message would change
	// that of all later ones.
	draw := func(p float64) bool { return l.rand.Float64() < p }
	lost, twice, late, corrupt := l.lose(l.rand.Float64()), draw(l.Duplicate), draw(l.Reorder), draw(l.Corrupt)
	hold, bits := 1+l.rand.IntN(max(1, cmp.Or(l.Hold, 3))), [4]uint64{l.rand.Uint64(), l.rand.Uint64(), l.rand.Uint64(), l.rand.Uint64()}

	if l.closed.Load() {
		return net.ErrClosed
	}
	defer l.release()
	if lost || l.partitioned() {
		return nil // as far as a writer can see, all is well
	}
	if corrupt && len(msg) > 0 {
		msg = slices.Clone(msg)
		for _, b := range bits[:1+bits[3]%3] {
			b %= uint64(len(msg)) * 8
			msg[b/8] ^= 1 << (b % 8)
		}
	}
	if late {
		l.delayed = append(l.delayed, delayed{slices.Clone(msg), hold + 1})
		return nil
	}
	err := l.Link.WriteMessage(msg)
	if err == nil && twice {
		err = l.Link.WriteMessage(msg)
	}
	return err
}

// release writes the delayed messages that have been passed often enough. Their
// own errors would be told for the wrong message, so they count as lost.
func (l *faulty) release() {
	rest := l.delayed[:0]
	for _, d := range l.delayed {
		if d.left--; d.left > 0 {
			rest = append(rest, d)
		} else {
			_ = l.Link.WriteMessage(d.msg)
		}
	}
	l.delayed = rest
}

func (l *faulty) Close() error {
	l.closed.Store(true)
	return l.Link.Close()
}

// lose decides with a draw between 0 and 1 whether a message is lost.
func (l *faulty) lose(draw float64) bool {
	if l.Burst < 2 || l.Loss >= 1 {
		return draw < l.Loss
	}
	leave := 1 / float64(l.Burst)
	if l.losing {
		l.losing = draw >= leave
	} else {
		l.losing = draw < leave*l.Loss/(1-l.Loss)
	}
	return l.losing
}

func (l *faulty) partitioned() bool {
	period := l.PartitionEvery + l.PartitionFor
	return l.PartitionFor > 0 && time.Since(l.begin)%period >= l.PartitionEvery
}
