package transporttest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pixferry/pixferry/transport"
	"github.com/pixferry/pixferry/transport/native"
)

// A MakeLink returns the two ends of a fresh link. It registers with t.Cleanup what their Close
// does not free.
type MakeLink func(t testing.TB) (a, b native.Link)

// LinkProperties are what a link claims; see [native.LinkInfo].
type LinkProperties struct {
	Ordered    bool
	Reliable   bool
	MaxMessage int // the expected Info().MaxMessage; 0: whatever it says
	// Bubble runs every check in a testing/synctest bubble, for links that block only on channels
	// and timers.
	Bubble bool
}

// TestLink checks the links that make returns against what [native.Link] promises and against
// their properties.
func TestLink(t *testing.T, make MakeLink, p LinkProperties) {
	runAll(t, linkChecks, linkKit{make, p}, p.Bubble)
}

type linkKit struct {
	make MakeLink
	LinkProperties
}

var linkChecks = []check[linkKit]{
	{"Info", checkLinkInfo},
	{"Sizes", checkLinkSizes},
	{"Stream", checkLinkStream},
	{"BothWays", checkLinkBothWays},
	{"TooLarge", checkLinkTooLarge},
	{"CloseFreesReader", checkLinkCloseFreesReader},
	{"CloseFreesWriter", checkLinkCloseFreesWriter},
	{"WriteThenClose", checkLinkWriteThenClose},
	{"AfterClose", checkLinkAfterClose},
}

// pair makes two ends and closes them at the end of the test.
func (k linkKit) pair(t testing.TB) (a, b native.Link) {
	a, b = k.make(t)
	t.Cleanup(func() {
		within(t, "Close at the end", func() { a.Close(); b.Close() })
	})
	return a, b
}

// largest is the largest message that a link may ever take.
func largest(l native.Link) int {
	info := l.Info()
	return max(info.MaxMessage, slices.Max(append(info.Sizes, 0)))
}

func checkLinkInfo(t testing.TB, k linkKit) {
	a, b := k.pair(t)
	for _, l := range []native.Link{a, b} {
		info := l.Info()
		if info.Ordered != k.Ordered || info.Reliable != k.Reliable {
			t.Errorf("Info says ordered %v, reliable %v; claimed are %v, %v", info.Ordered, info.Reliable, k.Ordered, k.Reliable)
		}
		if k.MaxMessage != 0 && info.MaxMessage != k.MaxMessage {
			t.Errorf("Info().MaxMessage is %d; claimed are %d", info.MaxMessage, k.MaxMessage)
		}
		if info.MaxMessage < 256 {
			t.Errorf("Info().MaxMessage is %d: it must be 256 or more", info.MaxMessage)
		}
		if !slices.IsSorted(info.Sizes) || len(info.Sizes) > 0 && info.Sizes[0] <= info.MaxMessage {
			t.Errorf("Info().Sizes is %v: it must ascend, from above MaxMessage (%d)", info.Sizes, info.MaxMessage)
		}
		if info.Protocol == "" {
			t.Error("Info().Protocol is empty")
		}
	}
}

// A numbered message: its number, its length and a checksum over random
// filling, so that one that was cut, joined or mixed is told from a lost one.
const numberedMin = 12

func numbered(n, size int) []byte {
	msg := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(size), byte(size >> 8)})
	r.Read(msg)
	binary.BigEndian.PutUint32(msg, uint32(n))
	binary.BigEndian.PutUint32(msg[4:], uint32(size))
	binary.BigEndian.PutUint32(msg[8:], 0)
	binary.BigEndian.PutUint32(msg[8:], crc32.ChecksumIEEE(msg))
	return msg
}

// number checks a message and returns its number.
func number(t testing.TB, msg []byte) int {
	if len(msg) >= numberedMin {
		m := bytes.Clone(msg)
		sum := binary.BigEndian.Uint32(m[8:])
		binary.BigEndian.PutUint32(m[8:], 0)
		if size := binary.BigEndian.Uint32(m[4:]); int(size) == len(m) && crc32.ChecksumIEEE(m) == sum {
			return int(binary.BigEndian.Uint32(m))
		}
	}
	t.Errorf("a message of %d bytes arrived that nobody has written like this: boundaries and content must stay", len(msg))
	return -1
}

// linkReader reads a link on a goroutine of its own until it ends.
type linkReader struct {
	msgs chan []byte
	err  chan error
}

func readLink(l native.Link) *linkReader {
	r := &linkReader{make(chan []byte, 4096), make(chan error, 1)}
	buf := make([]byte, largest(l))
	go func() {
		for {
			n, err := l.ReadMessage(buf)
			if err != nil {
				close(r.msgs)
				r.err <- err
				return
			}
			r.msgs <- bytes.Clone(buf[:n])
		}
	}()
	return r
}

// next returns the next message, or false if none comes for a while, which only
// links that are not reliable may do.
func (r *linkReader) next(t testing.TB, reliable bool) ([]byte, bool) {
	t.Helper()
	wait := 300 * time.Millisecond
	if reliable {
		wait = patience(t)
	}
	select {
	case msg, ok := <-r.msgs:
		return msg, ok
	case <-time.After(wait):
		return nil, false
	}
}

func checkLinkSizes(t testing.TB, k linkKit) {
	a, b := k.pair(t)
	in, most := readLink(b), a.Info().MaxMessage
	sizes := []int{numberedMin, numberedMin + 1, 255, 256, most/2 + 1, most - 1, most}
	arrived := 0
	for n, size := range sizes {
		within(t, "WriteMessage", func() {
			if err := a.WriteMessage(numbered(n, size)); err != nil {
				t.Errorf("WriteMessage of %d bytes, with MaxMessage %d: %v", size, most, err)
			}
		})
		msg, ok := in.next(t, k.Reliable)
		switch {
		case ok && number(t, msg) >= 0:
			arrived++
		case k.Reliable:
			t.Fatalf("a message of %d bytes did not arrive", size)
		}
	}
	if arrived < len(sizes)/2 {
		t.Errorf("%d of %d messages arrived, one at a time: not even an unreliable link may lose most of them", arrived, len(sizes))
	}
}

// streamMessages is few enough for the buffers of an unreliable link.
const streamMessages = 200

// writeStream writes numbered messages from one buffer that changes as soon as
// WriteMessage has returned.
func writeStream(t testing.TB, l native.Link) {
	most := min(l.Info().MaxMessage, 1200)
	buf := make([]byte, most)
	for n := range streamMessages {
		msg := buf[:copy(buf, numbered(n, numberedMin+n*7%(most-numberedMin)))]
		if err := l.WriteMessage(msg); err != nil {
			t.Errorf("WriteMessage number %d: %v", n, err)
			return
		}
		for i := range msg {
			msg[i] = 0xee
		}
	}
}

// readStream checks what arrives of it.
func readStream(t testing.TB, in *linkReader, k linkKit) {
	seen, last := make([]int, streamMessages), -1
	for count := 0; !k.Reliable || count < streamMessages; count++ {
		msg, ok := in.next(t, k.Reliable)
		if !ok {
			break
		}
		n := number(t, msg)
		if n < 0 || n >= streamMessages {
			t.Error("it may have been changed after WriteMessage had returned: a link never keeps msg")
			return
		}
		if seen[n]++; k.Ordered && n < last {
			t.Errorf("message %d came after %d on a link that claims to be ordered", n, last)
		}
		last = n
	}
	none := !slices.ContainsFunc(seen, func(times int) bool { return times > 0 })
	if wrong := slices.IndexFunc(seen, func(times int) bool { return times != 1 }); k.Reliable && wrong >= 0 {
		t.Errorf("message %d came %d times on a link that claims to be reliable", wrong, seen[wrong])
	} else if none {
		t.Errorf("none of %d messages arrived", streamMessages)
	}
}

func checkLinkStream(t testing.TB, k linkKit) {
	a, b := k.pair(t)
	in := readLink(b)
	within(t, "writing", func() { writeStream(t, a) })
	readStream(t, in, k)
}

func checkLinkBothWays(t testing.TB, k linkKit) {
	a, b := k.pair(t)
	inA, inB := readLink(a), readLink(b)
	within(t, "writing both ways", func() {
		var wg sync.WaitGroup
		wg.Go(func() { writeStream(t, a) })
		wg.Go(func() { writeStream(t, b) })
		wg.Wait()
	})
	readStream(t, inA, k)
	readStream(t, inB, k)
}

func checkLinkTooLarge(t testing.TB, k linkKit) {
	a, b := k.pair(t)
	in, size := readLink(b), largest(a)+1
	within(t, "WriteMessage of too much", func() {
		err := a.WriteMessage(numbered(0, size))
		if tooLarge := (*transport.TooLargeError)(nil); !errors.As(err, &tooLarge) {
			t.Errorf("WriteMessage of %d bytes, one over the most that Info names: %v; want a *transport.TooLargeError", size, err)
		} else if tooLarge.Max >= int64(size) || tooLarge.Max < 256 {
			t.Errorf("TooLargeError.Max is %d for %d bytes: it must be what the link takes", tooLarge.Max, size)
		} else if err := a.WriteMessage(numbered(1, int(tooLarge.Max))); err != nil {
			t.Errorf("TooLargeError.Max is %d, but a message of this size fails: %v", tooLarge.Max, err)
		}
	})
	for n := 2; n < 12; n++ { // it must go on working
		within(t, "WriteMessage after one of too much", func() {
			if err := a.WriteMessage(numbered(n, numberedMin)); err != nil {
				t.Fatalf("WriteMessage after one of too much: %v", err)
			}
		})
	}
	for {
		msg, ok := in.next(t, k.Reliable)
		if !ok {
			t.Fatal("nothing arrives after a message of too much")
		}
		n := number(t, msg)
		if n < 0 || n == 0 {
			t.Fatal("the message of too much arrived, or a part of it")
		}
		if n >= 2 {
			return
		}
	}
}
