package mqttx

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/pixferry/pixferry/internal/testbroker"
)

// A script says messages to BASE by hand.
type script struct {
	testing.TB
	*simBase
	now time.Time
}

func newScript(t testing.TB, b *Base) *script {
	return &script{t, &simBase{baseReceiver: b.newReceiver()}, time.Unix(1e9, 0)}
}

// say sends a message and checks the answer, nil for none.
func (s *script) say(p, want []byte) {
	s.Helper()
	s.now = s.now.Add(time.Millisecond)
	var got []byte
	if out := s.receive(p, s.now); len(out) > 0 {
		got = out[0]
	}
	if !bytes.Equal(got, want) {
		s.Fatalf("% .12x was answered with % x, want % x", p, got, want)
	}
}

func (s *script) begin(size int) {
	s.Helper()
	s.say(fieldMessage(1, 0, fmt.Appendf(nil, "image.jpg;%d", size)), fieldAnswer(1, 0, 1))
}

func part(image []byte, i int) []byte {
	return fieldMessage(2, i, image[i*1400:min(i*1400+1400, len(image))])
}

var finishedMessage = fieldMessage(3, 0, nil)

// TestBaseSenderDies has a sender stop half-way and another one send an image of the same
// name and size: the two must not be mixed.
func TestBaseSenderDies(t *testing.T) {
	image, other := pattern(1, 7000), pattern(2, 7000)
	s := newScript(t, &Base{})
	s.begin(7000)
	s.say(part(image, 0), fieldAnswer(2, 0, 1))
	s.say(part(image, 1), fieldAnswer(2, 1, 1))
	s.say(fieldMessage(1, 0, []byte("image.jpg;7000")), nil) // too soon
	s.say(fieldMessage(1, 0, []byte("other.jpg;7000")), nil)
	s.now = s.now.Add(fieldWait)
	s.begin(7000)
	if len(s.lost) != 1 {
		t.Errorf("lost %v", s.lost)
	}
	for i := range 5 {
		s.say(part(other, i), fieldAnswer(2, i, 1))
	}
	s.say(finishedMessage, nil)
	s.keeps(other)
}

// TestBaseLatePackage has a package of an earlier image come late, before that of the same number.
func TestBaseLatePackage(t *testing.T) {
	image, other := pattern(1, 7000), pattern(2, 7000)
	s := newScript(t, &Base{})
	s.begin(7000)
	s.say(part(image, 0), fieldAnswer(2, 0, 1))
	s.say(part(other, 2), fieldAnswer(2, 2, 0)) // 1 is missing
	s.say(part(image, 1), fieldAnswer(2, 1, 1))
	s.say(part(image, 1), fieldAnswer(2, 1, 1)) // the same again
	s.say(part(image, 2), fieldAnswer(3, 0, 0))
	if len(s.lost) != 1 || len(s.kept) != 0 {
		t.Errorf("lost %v, kept %d", s.lost, len(s.kept))
	}
	s.begin(7000)
	for i := range 5 {
		s.say(part(image, i), fieldAnswer(2, i, 1))
	}
	s.say(finishedMessage, nil)
	s.keeps(image)
}

// TestBaseTwoBegins has the beginnings of two images come together, behind a path that stood still: the sender has
// given the first up.
func TestBaseTwoBegins(t *testing.T) {
	image := pattern(1, 7000)
	s := newScript(t, &Base{})
	s.say(fieldMessage(1, 0, []byte("first.jpg;7000")), fieldAnswer(1, 0, 1))
	s.begin(7000)
	if len(s.lost) != 1 || s.head.Name != "image.jpg" {
		t.Errorf("lost %v, and now %s", s.lost, s.head.Name)
	}
	for i := range 5 {
		s.say(part(image, i), fieldAnswer(2, i, 1))
	}
	s.say(finishedMessage, nil)
	s.keeps(image)
}

// keeps has BASE keep what is finished, which must be the image.
func (s *script) keeps(image []byte) {
	s.Helper()
	if out := s.tick(s.now); len(out) != 1 || !bytes.Equal(out[0], fieldAnswer(3, 0, 1)) {
		s.Errorf("the answer to finished is %x", out)
	}
	if len(s.kept) != 1 || !bytes.Equal(s.kept[0], image) {
		s.Errorf("kept %d, or wrong bytes", len(s.kept))
	}
}

// TestBaseGaps has packages missing, cut, and sent again when they are asked for.
func TestBaseGaps(t *testing.T) {
	image := pattern(1, 10*1400)
	s := newScript(t, &Base{})
	s.begin(len(image))
	s.say(part(image, 0), fieldAnswer(2, 0, 1))
	s.say(part(image, 2), fieldAnswer(2, 2, 0)) // 1 is missing; counted from 1 it is 2
	s.say(part(image, 1), fieldAnswer(2, 1, 1))
	s.say(part(image, 3)[:500], nil)                            // cut on the way
	s.say(fieldMessage(2, 3, image[:10]), fieldAnswer(2, 4, 0)) // shorter than it should be
	s.say(part(image, 3), fieldAnswer(2, 3, 1))
	s.say(fieldMessage(2, 3, image[:10]), fieldAnswer(2, 3, 1)) // it is here already
	s.say(part(image, 5), fieldAnswer(2, 5, 0))
	s.say(part(image, 6), fieldAnswer(2, 5, 0))
	s.say(part(image, 6), fieldAnswer(2, 5, 0))
	s.say(part(image, 6), fieldAnswer(2, 6, 1)) // the sender does not listen
	s.say(part(image, 9), fieldAnswer(2, 9, 1)) // the last one may come early
	s.say(finishedMessage, fieldAnswer(2, 5, 0))
	s.say(finishedMessage, nil) // at once
	s.say(part(image, 4), fieldAnswer(2, 8, 0))
	s.say(part(image, 7), fieldAnswer(2, 9, 0))
	s.say(part(image, 8), fieldAnswer(2, 8, 1))
	s.say(finishedMessage, nil)
	s.say(finishedMessage, nil)
	s.keeps(image)
	s.say(finishedMessage, fieldAnswer(3, 0, 1))
	s.say(part(image, 4), fieldAnswer(3, 4, 1))
}

// TestBaseFinishedLost has a sender vanish before it says finished.
func TestBaseFinishedLost(t *testing.T) {
	image := pattern(1, 2000)
	s := newScript(t, &Base{Attempts: 3})
	s.begin(len(image))
	s.say(part(image, 0), fieldAnswer(2, 0, 1))
	s.say(part(image, 1), fieldAnswer(2, 1, 1))
	if at := s.deadline(); at != s.now.Add(3*fieldWait) {
		t.Errorf("BASE waits for %v", at.Sub(s.now))
	}
	s.now = s.deadline()
	if out := s.tick(s.now); out != nil {
		t.Errorf("%x", out)
	}
	s.keeps(image)
}

// TestBaseRetained has an old begin lie in the broker.
func TestBaseRetained(t *testing.T) {
	b := testbroker.Embedded(t, testbroker.Options{})
	f := runField(t, b, silent{}, "unused", defaultFromBase)
	seen := make(chan struct{}) // by when the broker is through with it
	done(t, f.client.Subscribe(defaultToBase, 0, func(mqtt.Client, mqtt.Message) { close(seen) }))
	done(t, f.client.Publish(defaultToBase, 0, true, fieldMessage(1, 0, []byte("old.jpg;3"))))
	<-seen
	done(t, f.client.Unsubscribe(defaultToBase))
	const wait = 20 * time.Second
	receive(t, &Base{Broker: b.URL(), Timeout: wait})
	c := dial(t, &Base{Broker: b.URL(), Timeout: wait})
	began := time.Now()
	baseSend(t, c, "new.jpg", random(3000))
	if time.Since(began) > wait/2 {
		t.Error("the old begin was taken for a new one")
	}
}

// TestBaseTail has a sender that needs to be asked more than once for each package.
func TestBaseTail(t *testing.T) {
	image := pattern(1, 3*1400)
	s := newScript(t, &Base{})
	s.begin(len(image))
	asks := func(number, times int) {
		t.Helper()
		for range times {
			s.now = s.deadline()
			if out := s.tick(s.now); len(out) != 1 || !bytes.Equal(out[0], fieldAnswer(2, number, 0)) {
				t.Fatalf("BASE asks % x for package %d", out, number)
			}
		}
	}
	s.say(finishedMessage, fieldAnswer(2, 1, 0))
	asks(1, maxAsks-1)
	s.say(part(image, 0), fieldAnswer(2, 2, 0)) // something new: its patience begins anew
	asks(2, maxAsks)
	s.now = s.deadline()
	if out := s.tick(s.now); len(out) != 1 || !bytes.Equal(out[0], fieldAnswer(3, 0, 0)) || len(s.lost) != 1 || len(s.prefix[0]) != 1400 {
		t.Errorf("the end: % x, %v", out, s.lost)
	}
}
