package mqttx

import (
	"fmt"
	"strings"
	"time"

	"github.com/pixferry/pixferry/chunk"
	"github.com/pixferry/pixferry/transport"
)

// A baseReceiver is BASE's side. It takes messages and the time, and says what to do with
// the image, what to answer and when to come back; it does no I/O.
//
//	idle --begin--> receiving --finished, whole--> finishing --kept or not--> idle
//	                    \-------- given up, with "over" ----------------------^
//
// Each message gets one answer, with these exceptions, for senders that answer an answer
// at once, without end, or start once more with each answer to begin:
//   - begin counts when there is no transfer, or when there was nothing but begins for half
//     a Timeout: packages of one image could be taken for those of the next. One of another image
//     counts as long as no package is there. A begin like the last does not while its rest is asked for.
//   - finished, while packages are missing, is answered once in a Timeout.
//   - while the image is finishing nothing is answered: then comes "over".
//
// Whatever comes when there is no transfer is answered with "over", so that a sender that
// was left behind ends.
type baseReceiver struct {
	baseRules

	state    baseState
	head     BaseHead
	packages int
	got      chunk.Ranges  // packages
	sums     []uint32      // CRC-32C of those
	frontier int           // packages below it have been sent, in the sender's order
	asked    map[int]int   // how often a gap was asked for
	tails    int           // how often, at the end, without anything new
	askAt    time.Time     // then again; zero: the sender is not at the end
	active   time.Time     // when the sender last did something, or heard that it is over
	soonest  time.Duration // the sender reacts to an answer after this, at the earliest
	last     BaseHead      // the image before
	kept     bool          // it was
}

type baseState uint8

const (
	baseIdle baseState = iota
	baseReceiving
	baseFinishing
)

// A baseTurn is what a message or the time leads to.
type baseTurn struct {
	lost   error // give the image up that was on its way; nil: no
	prefix int64 // of it, in bytes before the first gap
	begin  bool  // a new image, head
	data   []byte
	offset int64      // of data
	finish bool       // all is there
	answer BaseAnswer // Function 0: none
}

// maxAsks is how often BASE asks for a package that is missing.
const maxAsks = 3

func (b *Base) newReceiver() *baseReceiver { return &baseReceiver{baseRules: b.rules()} }

// deadline is when tick is to be called; zero: never.
func (r *baseReceiver) deadline() time.Time {
	switch {
	case r.state != baseReceiving:
		return time.Time{}
	case !r.askAt.IsZero():
		return r.askAt
	case r.attempts > 0:
		return r.active.Add(time.Duration(r.attempts) * r.timeout)
	}
	return time.Time{}
}

// tick asks again, or gives the sender up.
func (r *baseReceiver) tick(now time.Time) baseTurn {
	switch at := r.deadline(); {
	case at.IsZero() || now.Before(at):
		return baseTurn{}
	case !r.askAt.IsZero():
		return r.askTail(now)
	case r.whole(): // finished was lost, and its repetitions
		return r.finish()
	}
	return r.giveUp(fmt.Sprintf("the sender has been silent for %v", now.Sub(r.active)), now)
}

// receive takes what came. Data in the turn alias p.
func (r *baseReceiver) receive(p []byte, now time.Time) (t baseTurn, err error) {
	var m BaseMessage
	if err := m.Parse(p); err != nil {
		return t, err
	}
	switch {
	case r.state == baseFinishing:
	case m.Function == BaseBegin:
		return r.begin(m.Data, now)
	case r.state == baseIdle:
		t.answer = BaseAnswer{BaseFinished, m.Number, r.kept}
	case m.Function == BaseData:
		t = r.data(&m, now)
	default:
		t = r.finished(now)
	}
	return t, nil
}

func (r *baseReceiver) begin(text []byte, now time.Time) (t baseTurn, err error) {
	var h BaseHead
	err = h.Parse(text)
	if most := maxNumber * int64(r.packageSize); err == nil && (h.Size == 0 || h.Size > most) {
		err = fmt.Errorf("an image of %d bytes: 1 to %d are possible in packages of %d", h.Size, most, r.packageSize)
	}
	pause := now.Sub(r.active)
	switch {
	case r.state == baseReceiving && (pause < r.timeout/2 && (h == r.head || r.got.Count() > 0) || h == r.head && !r.askAt.IsZero()):
		return t, nil
	case r.state == baseIdle && h == r.last && pause < r.soonest*3/4:
		return t, nil // repeated before the sender heard that it is over
	case err != nil && r.state == baseIdle:
		t.answer = BaseAnswer{Function: BaseFinished}
		return t, err
	case err != nil:
		return t, err
	}
	r.active = now
	if r.state == baseReceiving {
		if h == r.head && r.got.Count() == 0 { // the answer was lost
			t.answer = r.beginAnswer()
			return t, nil
		}
		t.lost, t.prefix = r.incomplete("the sender has begun anew"), r.prefix()
	}
	*r = baseReceiver{
		baseRules: r.baseRules, state: baseReceiving, head: h, active: now, asked: make(map[int]int),
		packages: int((h.Size + int64(r.packageSize) - 1) / int64(r.packageSize)), soonest: r.timeout / 2,
	}
	r.sums = make([]uint32, r.packages) // 128 KiB at most
	t.begin, t.answer = true, r.beginAnswer()
	return t, nil
}

func (r *baseReceiver) beginAnswer() BaseAnswer {
	if r.lastFirst {
		return BaseAnswer{BaseBegin, r.packages - 1 + r.first, false}
	}
	return BaseAnswer{BaseBegin, 0, true}
}

// data takes a package.
func (r *baseReceiver) data(m *BaseMessage, now time.Time) (t baseTurn) {
	r.soonest = min(r.soonest, now.Sub(r.active))
	r.active = now
	i := m.Number
	inside := 0 <= i && i < r.packages
	good := inside && len(m.Data) == r.length(i)
	sum := chunk.CRC32C(m.Data)
	if good && r.has(i) && sum != r.sums[i] { // one of the two is late, from an image before
		return r.giveUp(fmt.Sprintf("package %d has come twice, and not the same", i), now)
	}
	if good && r.got.Add(int64(i), int64(i)+1) > 0 {
		r.sums[i] = sum
		t.data, t.offset = m.Data, int64(i)*int64(r.packageSize)
		r.tails = 0
		if !r.askAt.IsZero() {
			r.askAt = now.Add(r.timeout)
		}
		if i < r.packages-1 { // the last one may come first
			r.frontier = max(r.frontier, i+1)
		}
	}
	want := r.missing(r.frontier)
	switch {
	case inside && !good && !r.has(i):
		want = i
	case !r.askAt.IsZero():
		want = r.missing(r.packages)
	}
	t.answer = BaseAnswer{BaseData, i, true}
	if want >= 0 && r.asked[want] < maxAsks {
		r.asked[want]++
		t.answer = BaseAnswer{BaseData, want + r.first, false}
	}
	return t
}

// finished is for a sender that has nothing more to send.
func (r *baseReceiver) finished(now time.Time) baseTurn {
	r.soonest = min(r.soonest, now.Sub(r.active))
	r.active = now
	switch {
	case r.whole():
		return r.finish()
	case now.Before(r.askAt):
		return baseTurn{}
	}
	return r.askTail(now)
}

// askTail asks for what is missing although the sender thinks that it has finished.
func (r *baseReceiver) askTail(now time.Time) baseTurn {
	if r.whole() {
		return r.finish()
	}
	if r.tails++; r.tails > maxAsks {
		return r.giveUp("the sender does not send it", now)
	}
	r.askAt = now.Add(r.timeout)
	return baseTurn{answer: BaseAnswer{BaseData, r.missing(r.packages) + r.first, false}}
}

func (r *baseReceiver) finish() baseTurn {
	r.state = baseFinishing
	return baseTurn{finish: true}
}

// ended is called when an image that was to be finished is kept, or could not be; and, to
// end one that is on its way, when it was refused. The answer is to be sent.
func (r *baseReceiver) ended(kept bool, now time.Time) baseTurn {
	r.state, r.active, r.last, r.kept = baseIdle, now, r.head, kept
	return baseTurn{answer: BaseAnswer{BaseFinished, 0, kept}}
}

func (r *baseReceiver) giveUp(why string, now time.Time) baseTurn {
	t := r.ended(false, now)
	t.lost, t.prefix = r.incomplete(why), r.prefix()
	return t
}

// prefix is how many bytes there are before the first gap.
func (r *baseReceiver) prefix() int64 {
	return min(r.got.RunEnd(0)*int64(r.packageSize), r.head.Size)
}

// incomplete says what is missing.
func (r *baseReceiver) incomplete(why string) error {
	const most = 8
	var ranges []string
	var bytes int64
	for gap := range r.got.Gaps(0, int64(r.packages)) {
		start, end := gap.Start*int64(r.packageSize), min(gap.End*int64(r.packageSize), r.head.Size)
		bytes += end - start
		if len(ranges) < most {
			ranges = append(ranges, fmt.Sprintf("%d-%d", start, end-1))
		} else if len(ranges) == most {
			ranges = append(ranges, "...")
		}
	}
	return &transport.RejectedError{
		Reason: transport.ReasonIncomplete, Retryable: true,
		Text: fmt.Sprintf("%d of %d bytes are missing (%s): %s", bytes, r.head.Size, strings.Join(ranges, ", "), why),
	}
}

func (r *baseReceiver) whole() bool { return r.missing(r.packages) < 0 }

func (r *baseReceiver) has(i int) bool { return r.got.Contains(int64(i), int64(i)+1) }

// missing returns the first package below end that is missing, -1 if there is none.
func (r *baseReceiver) missing(end int) int {
	if i := int(r.got.RunEnd(0)); i < end {
		return i
	}
	return -1
}

// length is how many bytes package i has.
func (r *baseReceiver) length(i int) int {
	return int(min(int64(r.packageSize), r.head.Size-int64(i)*int64(r.packageSize)))
}
