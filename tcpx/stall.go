package tcpx

import (
	"sync/atomic"
	"time"
)

// A stall ends the connection of a peer that begins a message, which has memory then, and leaves it at that: after the
// idle time, or a second more. It looks every second, as a timer for each read would wake a processor each time; nor is
// it a deadline, of which Close has its own. Of one that is slow it tells, at each look.
type stall struct {
	idle  time.Duration // 0: no limit
	end   func()
	slow  atomic.Pointer[func()] // nil: nobody is told
	reads atomic.Uint32          // within messages, counted when they begin and end: odd while one waits
	looks atomic.Bool            // a timer is set
	over  atomic.Bool            // end was called
}

// begin notes that a read within a message begins.
func (s *stall) begin() {
	s.reads.Add(1)
	if s.idle > 0 && !s.looks.Load() {
		s.watch()
	}
}

// done notes that it has ended.
func (s *stall) done() { s.reads.Add(1) }

func (s *stall) watch() {
	if s.looks.CompareAndSwap(false, true) {
		s.look(s.reads.Load(), 0)
	}
}

// look looks again later. What it has seen has not changed for a while.
func (s *stall) look(seen uint32, unchanged time.Duration) {
	pause := min(s.idle, time.Second)
	time.AfterFunc(pause, func() {
		now := s.reads.Load()
		switch within := now%2 == 1; {
		case now != seen:
			if slow := s.slow.Load(); within && slow != nil {
				(*slow)()
			}
			s.look(now, 0)
		case within && unchanged+pause < s.idle:
			s.look(now, unchanged+pause)
		case within:
			s.over.Store(true)
			s.end()
		default:
			s.looks.Store(false)
			if s.reads.Load() != now { // one has begun that took this timer for its own
				s.watch()
			}
		}
	})
}
