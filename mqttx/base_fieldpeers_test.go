package mqttx

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The programs in the field, with their defects, written from the description of the
// protocol alone. They know nothing of the codec.

func fieldMessage(function, number int, data []byte) []byte {
	p := []byte{0xee, 0xee, 0xff, 0xff, byte(function), byte(number), byte(number >> 8), byte(len(data)), byte(len(data) >> 8)}
	return append(p, data...)
}

func fieldAnswer(function, number, status int) []byte {
	return []byte{0xff, 0xff, 0xee, 0xee, byte(function), byte(number), byte(number >> 8), byte(status)}
}

// A fieldServer is the sender. Each answer to begin starts a stream of packages, which
// run beside each other; the last package is in none of them.
type fieldServer struct {
	testing.TB
	name     string
	image    []byte
	wait     time.Duration // before it repeats itself; begin after that: a fifth
	deaf     time.Duration // after begin, until it is subscribed
	stubborn bool          // it repeats begin although it has heard an answer

	begun    time.Time
	newest   []byte
	said     time.Time
	nextHead time.Time // when begin is repeated
	streams  []int     // newest package of each
	turn     int
	atEnd    bool
	over     bool

	begins, finishes, packages int // messages so far
}

func (f *fieldServer) count() int { return (len(f.image) + 1399) / 1400 }

func (f *fieldServer) head() []byte {
	f.begins++
	return fieldMessage(1, 0, fmt.Appendf(nil, "%s;%d", f.name, len(f.image)))
}

// start says begin.
func (f *fieldServer) start(now time.Time) [][]byte {
	f.begun, f.nextHead = now, now.Add(f.wait)
	return f.say(now, f.head())
}

func (f *fieldServer) say(now time.Time, p []byte) [][]byte {
	f.newest, f.said = p, now
	return [][]byte{p}
}

func (f *fieldServer) finish(now time.Time) [][]byte {
	f.atEnd = true
	f.finishes++
	return f.say(now, fieldMessage(3, 0, nil))
}

// packet sends a package. Number -1 is whatever lies before the image.
func (f *fieldServer) packet(now time.Time, i int) [][]byte {
	f.packages++
	if i < 0 || i >= f.count() {
		return f.say(now, fieldMessage(2, i, nil))
	}
	return f.say(now, fieldMessage(2, i, f.image[i*1400:min(i*1400+1400, len(f.image))]))
}

func (f *fieldServer) receive(p []byte, now time.Time) [][]byte {
	if now.Before(f.begun.Add(f.deaf)) {
		return nil
	}
	if len(p) != 8 {
		f.Errorf("an answer of %d bytes has killed the field's sender", len(p))
		return nil
	}
	function, number, status := p[4], int(int16(binary.LittleEndian.Uint16(p[5:]))), p[7]
	if binary.LittleEndian.Uint32(p) != 0xeeeeffff || function < 1 || function > 3 || status > 1 {
		f.Errorf("the answer %x hangs the field's sender", p)
		return nil
	}
	switch {
	case f.over:
		return nil
	case function == 3:
		f.over = true
		return nil
	case f.atEnd:
		return f.finish(now)
	case function == 1 && status == 0:
		f.streams = append(f.streams, -1)
		return f.packet(now, number-1)
	case function == 1:
		f.streams = append(f.streams, -1)
		f.turn = len(f.streams) - 1
	}
	if len(f.streams) == 0 {
		f.Errorf("the answer %x comes before one to begin", p)
		return nil
	}
	f.turn %= len(f.streams)
	stream := &f.streams[f.turn]
	f.turn++
	switch {
	case status == 0 && *stream != f.count()-2:
		return f.packet(now, number-1)
	case *stream >= f.count()-2:
		return f.finish(now)
	}
	*stream++
	return f.packet(now, *stream)
}

func (f *fieldServer) deadline() time.Time {
	switch {
	case f.over || f.begun.IsZero():
		return time.Time{}
	case f.stubborn && f.nextHead.Before(f.said.Add(f.wait)):
		return f.nextHead
	case len(f.streams) == 0 && !f.atEnd:
		return f.nextHead
	}
	return f.said.Add(f.wait)
}

func (f *fieldServer) tick(now time.Time) [][]byte {
	if now.Before(f.deadline()) || f.over {
		return nil
	}
	if !now.Before(f.nextHead) && (f.stubborn || len(f.streams) == 0) {
		f.nextHead = now.Add(f.wait / 5)
		return [][]byte{f.head()}
	}
	f.said = now
	return [][]byte{f.newest}
}

// A fieldBase is the hardware. It answers everything and checks nothing.
type fieldBase struct {
	testing.TB
	number  func(i int) int // what it says beside status 1
	first   int             // it counts from 1 or 0 when it asks
	ask     map[int]int     // after package i it asks for another, once
	askHead int             // begin is answered by asking for this package; -1: it is not
	copies  int             // of each answer

	name   string
	image  []byte
	order  []int
	begins int
	ends   int
}

func (f *fieldBase) receive(p []byte, now time.Time) [][]byte {
	function, number := p[4], int(int16(binary.LittleEndian.Uint16(p[5:])))
	if length := int(int16(binary.LittleEndian.Uint16(p[7:]))); binary.LittleEndian.Uint32(p) != 0xffffeeee || length != len(p)-9 {
		f.Errorf("BASE does not understand %.20x", p)
		return nil
	}
	answer := fieldAnswer(int(function), f.number(number), 1)
	switch function {
	case 1:
		name, size, _ := strings.Cut(string(p[9:]), ";")
		n, err := strconv.Atoi(size)
		if err != nil || number != 0 {
			f.Errorf("BASE does not understand %q", p)
			return nil
		}
		f.begins++
		f.name, f.image = name, make([]byte, n)
		if f.askHead >= 0 {
			answer = fieldAnswer(1, f.askHead+f.first, 0)
		}
	case 2:
		if number < 0 || number*1400 >= len(f.image) {
			f.Errorf("BASE has overwritten its memory with package %d", number)
			return nil
		}
		copy(f.image[number*1400:], p[9:])
		f.order = append(f.order, number)
		if other, ok := f.ask[number]; ok {
			delete(f.ask, number)
			answer = fieldAnswer(2, other+f.first, 0)
		}
	case 3:
		f.ends++
		answer = fieldAnswer(3, f.number(0), 0)
	}
	var out [][]byte
	for range max(1, f.copies) {
		out = append(out, answer)
	}
	return out
}

func (f *fieldBase) tick(time.Time) [][]byte { return nil }
func (f *fieldBase) deadline() time.Time     { return time.Time{} }
