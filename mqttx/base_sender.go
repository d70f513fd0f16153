package mqttx

import (
	"fmt"
	"slices"
	"time"

	"github.com/pixferry/pixferry/transport"
)

// A baseSender is the server's side of one transfer. It takes answers and the time, and
// says what to send and when to come back; it does no I/O.
//
//	begin --answer--> data 0 ... data n-1 --answer--> finished --over--> ended
//
// An answer of status 1 does not say what it answers, so that one which comes twice, or
// late, must not be taken for the answer to the next package: losses would go unnoticed.
//   - Its function tells the answers to begin, data and finished apart.
//   - After a repetition the answers to each copy are awaited, for a while.
//   - One with a number that was there lately is no news from a BASE that counts. From
//     another BASE it is none if it comes sooner than any answer can, and is put aside,
//     for as long as the real one may take.
type baseSender struct {
	baseRules
	packages int

	newest   baseStep // sent last
	next     int      // the package to send then; packages: finished
	acked    int      // packages before it were answered
	finished bool     // was sent
	tries    int      // how often newest was sent
	sentAt   time.Time
	asked    map[int]int // how often BASE asked for a package

	recent           []int // numbers of answers that counted, the latest
	ignored, erratic bool  // an answer was ignored for its number; that was wrong
	soonest, slowest time.Duration
	owed             int       // answers to come before the next step is taken
	until            time.Time // it is taken then, at the latest
	suspect          time.Duration
	over             bool
	err              error
	silent           bool // err says that BASE is
}

// A baseStep is something to send.
type baseStep struct {
	function BaseFunction
	index    int // of the package
}

// maxRecent is how far back an answer is looked for that comes again.
const maxRecent = 8

// newSender returns a sender whose newest, begin, is to be sent.
func (b *Base) newSender(packages int, now time.Time) *baseSender {
	return &baseSender{
		baseRules: b.rules(), packages: packages,
		newest: baseStep{function: BaseBegin}, tries: 1, sentAt: now,
		asked: make(map[int]int),
	}
}

// ended reports whether there is nothing more to do; err says how it went.
func (s *baseSender) ended() bool { return s.over || s.err != nil }

// deadline is when tick is to be called.
func (s *baseSender) deadline() time.Time {
	if s.owed > 0 {
		return s.until
	}
	return s.sentAt.Add(s.timeout)
}

// tick reports whether newest is to be sent, because it is time.
func (s *baseSender) tick(now time.Time) bool {
	switch {
	case s.ended() || now.Before(s.deadline()):
		return false
	case s.owed > 0:
		if s.suspect > 0 {
			s.soonest = min(s.soonest, s.suspect) // BASE has become faster
		}
		return s.advance(now)
	case s.attempts > 0 && s.tries >= s.attempts:
		s.err, s.silent = s.silence(), true
		return false
	}
	s.tries++
	s.sentAt = now
	return true
}

func (s *baseSender) silence() error {
	waited := time.Duration(s.tries) * s.timeout
	switch s.newest.function {
	case BaseBegin:
		return fmt.Errorf("BASE has not answered for %v: %w", waited, transport.ErrNoReceiver)
	case BaseFinished:
		return fmt.Errorf("BASE has taken all packages and not said for %v that the transfer is over", waited)
	}
	return fmt.Errorf("BASE has not answered package %d of %d for %v", s.newest.index+1, s.packages, waited)
}

// receive takes what came from BASE and reports whether newest is to be sent.
func (s *baseSender) receive(p []byte, now time.Time) bool {
	var a BaseAnswer
	if s.ended() || a.Parse(p) != nil {
		return false
	}
	awaited := BaseData // after finished too: BASE may ask for what it misses
	if s.newest.function == BaseBegin {
		awaited = BaseBegin
	}
	switch {
	case a.Function == BaseFinished:
		s.finish(a.Whole)
		return false
	case a.Function != awaited:
		return false // late
	case !a.Whole:
		return s.request(a.Number-s.first, now)
	case s.newest.function == BaseBegin:
		return s.advance(now)
	case s.newest.function == BaseData:
		return s.accept(a.Number, now)
	}
	return false // a package was answered twice
}

// finish is for an answer that says that the transfer is over. Its status counts only
// from a BASE that has asked for something after finished.
func (s *baseSender) finish(whole bool) {
	switch {
	case s.newest.function == BaseFinished, s.finished && whole:
		s.over = true
	case s.newest.function == BaseData:
		s.err = &transport.RejectedError{Retryable: true, Text: fmt.Sprintf("BASE has ended the transfer at package %d of %d", s.newest.index+1, s.packages)}
	case s.tries > 1: // the first may be an answer to the transfer before
		s.err = &transport.RejectedError{Retryable: true, Text: "BASE does not take the image"}
	}
}

// request is for an answer that asks for a package. The order goes on afterwards.
func (s *baseSender) request(index int, now time.Time) bool {
	again := s.newest == baseStep{BaseData, index} && s.tries == 1 && now.Sub(s.sentAt) < s.soonest/2
	if index < 0 || index >= s.packages || again {
		return false
	}
	if s.asked[index]++; s.attempts > 0 && s.asked[index] > s.attempts {
		s.err = fmt.Errorf("BASE has asked for package %d of %d for the %dth time: are PackageSize and ZeroBased right?", index+1, s.packages, s.asked[index])
		return false
	}
	s.recent = s.recent[:0]
	return s.step(baseStep{BaseData, index}, now)
}

// accept is for an answer of status 1 while a package is the newest.
func (s *baseSender) accept(number int, now time.Time) bool {
	if s.owed > 0 {
		if s.owed--; s.owed > 0 {
			return false
		}
		return s.advance(now)
	}
	took := now.Sub(s.sentAt)
	again := slices.Contains(s.recent, number)
	counts := len(s.recent) > 1 && s.recent[0] != s.recent[len(s.recent)-1] && !s.erratic
	switch {
	case s.tries > 1:
		s.erratic = s.erratic || s.ignored && again
		s.owed, s.until, s.suspect = s.tries-1, now.Add(s.patience()), 0
		return false
	case again && counts:
		s.ignored = true
		return false
	case again && took < s.soonest/2:
		s.owed, s.until, s.suspect = 1, s.sentAt.Add(s.patience()), max(took, 1)
		return false
	}
	if s.slowest == 0 {
		s.soonest = took
	}
	s.soonest, s.slowest = min(s.soonest, took), max(s.slowest, took)
	if s.newest.index == s.next-1 { // others are sent twice
		s.recent = append(s.recent[max(0, len(s.recent)-maxRecent+1):], number)
	}
	return s.advance(now)
}

// patience is how long an answer may take that is on its way.
func (s *baseSender) patience() time.Duration {
	if s.slowest == 0 {
		return s.timeout
	}
	return min(2*s.slowest, s.timeout)
}

// advance goes on in order.
func (s *baseSender) advance(now time.Time) bool {
	s.acked = s.next
	if s.next == s.packages {
		s.finished = true
		return s.step(baseStep{function: BaseFinished}, now)
	}
	s.next++
	return s.step(baseStep{BaseData, s.next - 1}, now)
}

func (s *baseSender) step(step baseStep, now time.Time) bool {
	s.newest, s.tries, s.sentAt, s.owed, s.ignored = step, 1, now, 0, false
	return true
}
