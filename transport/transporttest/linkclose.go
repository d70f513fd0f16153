package transporttest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func checkLinkCloseFreesReader(t testing.TB, k linkKit) {
	a, _ := k.pair(t)
	in := readLink(a)
	time.Sleep(20 * time.Millisecond) // so that it reads, mostly
	within(t, "Close while a reader waits", func() { a.Close() })
	if err := await(t, "ReadMessage after Close", in.err); err == nil {
		t.Error("ReadMessage returned no error after Close")
	}
}

// Nobody reads at the other end, so that a link that can block does.
func checkLinkCloseFreesWriter(t testing.TB, k linkKit) {
	a, _ := k.pair(t)
	msg := numbered(0, a.Info().MaxMessage)
	var wrote atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range 64<<20/len(msg) + 1 { // what never blocks must end too
			if a.WriteMessage(msg) != nil {
				return
			}
			wrote.Add(1)
		}
	}()
	for seen, deadline := int64(-1), time.Now().Add(2*time.Second); seen != wrote.Load() && time.Now().Before(deadline); {
		seen = wrote.Load()
		time.Sleep(100 * time.Millisecond)
	}
	within(t, "Close while a writer waits", func() { a.Close() })
	await(t, "WriteMessage after Close", ended)
}

func checkLinkWriteThenClose(t testing.TB, k linkKit) {
	a, b := k.pair(t)
	in := readLink(b)
	within(t, "writing and Close", func() { writeStream(t, a); a.Close() })
	readStream(t, in, k)
	if k.Reliable {
		if err := await(t, "ReadMessage after the peer's Close", in.err); err == nil {
			t.Error("ReadMessage returned no error after the peer's Close")
		}
	}
}

func checkLinkAfterClose(t testing.TB, k linkKit) {
	a, b := k.pair(t)
	within(t, "Close from many sides, and every call after it", func() {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { a.Close() })
			wg.Go(func() { a.Info() })
		}
		wg.Wait()
		if err := a.WriteMessage(numbered(0, numberedMin)); err == nil {
			t.Error("WriteMessage returned no error after Close")
		}
		if n, err := a.ReadMessage(make([]byte, largest(a))); err == nil {
			t.Errorf("ReadMessage returned %d bytes and no error after Close", n)
		}
		b.Close()
		if info := b.Info(); info.MaxMessage < 256 {
			t.Errorf("Info().MaxMessage is %d after Close: sessions still look at it", info.MaxMessage)
		}
	})
}
