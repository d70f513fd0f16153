package session

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A crew's goroutines serve all sessions of an Endpoint, rest when there is nothing to do, and
// are gone soon, or at once when no session is left.
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		idle := func() int {
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.idle)
		}
		c.join()
		c.join()
		hold := make(chan struct{})
		for range 3 {
			c.run(func() { <-hold })
		}
		close(hold)
		if n := idle(); n != 3 {
			t.Fatalf("%d of 3 rest", n)
		}
		for range 5 { // one after the other: the same one, so that the others end
			time.Sleep(rest / 2)
			c.run(func() {})
		}
		if n := idle(); n != 1 {
			t.Errorf("%d rest, not the one that is used", n)
		}
		c.leave()
		if n := idle(); n != 1 {
			t.Errorf("%d rest while there is a session", n)
		}
		c.leave() // without time passing, or the bubble would not end
		c.run(func() {})
	})
}

// Work that comes when a goroutine is about to end is done.
func TestCrewLosesNoWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		c.join()
		var done sync.WaitGroup
		for range 1000 {
			done.Add(1)
			c.run(done.Done)
			time.Sleep(rest)
		}
		done.Wait()
		c.leave()
	})
}
