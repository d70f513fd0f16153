package mqttclient

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/pixferry/pixferry/internal/session"
)

const most = 256 << 10

// wireConn is a connection on which what is to be read is known, and what is written is kept.
type wireConn struct {
	net.Conn // nil: not called
	r        io.Reader
	wrote    bytes.Buffer
	err      error // of writes
	ended    bool  // the reader
}

func (s *wireConn) Read(p []byte) (int, error)       { return s.r.Read(p) }
func (s *wireConn) Write(p []byte) (int, error)      { s.wrote.Write(p); return len(p), s.err }
func (s *wireConn) SetWriteDeadline(time.Time) error { return nil }
func (s *wireConn) SetReadDeadline(time.Time) error  { s.ended = true; return nil }
func (s *wireConn) Close() error                     { return nil }

// laneOver returns a lane that takes the topic "mine", and what it took.
func laneOver(t testing.TB, conn net.Conn) (*Lane, *[]string) {
	var took []string
	l := newLane(t.Context(), conn, conn, time.Second, &Owner{
		Mine: func(topic []byte) bool { return string(topic) == "mine" },
		Take: func(_ string, _ *session.Buffer, msg []byte) { took = append(took, string(msg)) },
		Most: most,
	})
	l.said = time.Now().Add(time.Hour) // no answers to pings
	return l, &took
}

// packet is an MQTT packet.
func packet(typ byte, body string) string {
	return string(binary.AppendUvarint([]byte{typ}, uint64(len(body)))) + body
}

func publication(topic, payload string) string {
	return packet(publishType, string(binary.BigEndian.AppendUint16(nil, uint16(len(topic))))+topic+payload)
}

func TestLaneReads(t *testing.T) {
	large := strings.Repeat("x", 200_000)
	client := []string{
		packet(0x20, "\x00\x00"), packet(0xd0, ""), publication("other", large), publication("mine2", "a"),
		packet(publishType|2, "\x00\x04mine\x00\x01at QoS 1"),
		publication(strings.Repeat("t", readAhead), "a"), packet(publishType, ""), packet(publishType, "\x00\x05mine"),
	}
	mine := []string{"", "b", large, strings.Repeat("y", most)}
	stream := publication("mine", strings.Repeat("z", most+1)) + packet(publishType|retained, "\x00\x04mineold") // which are dropped
	for i, p := range client {
		if i < len(mine) {
			stream += publication("mine", mine[i])
		}
		stream += p
	}
	stream += "\x30\xff\xff\xff\xff\x00" // a length without an end
	for name, r := range map[string]io.Reader{
		"all at once": strings.NewReader(stream), "in bytes": iotest.OneByteReader(strings.NewReader(stream)),
	} {
		l, took := laneOver(t, &wireConn{r: r})
		got, err := io.ReadAll(l)
		if err == nil || string(got) != strings.Join(client, "") {
			t.Errorf("%s: the client has %d bytes and %v, want %d", name, len(got), err, len(strings.Join(client, "")))
		}
		if !slices.Equal(*took, mine) {
			t.Errorf("%s: %d messages, want %d", name, len(*took), len(mine))
		}
	}
}

// TestLaneSubscriptions has no answer to a subscription reach the client that has more codes than it has filters.
func TestLaneSubscriptions(t *testing.T) {
	s := &wireConn{r: strings.NewReader(packet(0x90, "\x00\x01\x00\x80") + packet(0x90, "\x00\x02\x00") + packet(0x9f, "\x00\x03\x00\x00"))}
	l, _ := laneOver(t, s)
	for id, filters := range []string{"", "\x00\x01a\x00\x00\x02bb\x01", "\x00\x01a\x00", "\x00\x01a\x00"} {
		l.Write([]byte(packet(0x82, string([]byte{0, byte(id)})+filters)))
	}
	got, err := io.ReadAll(l)
	if want := packet(0x90, "\x00\x01\x00\x80") + packet(0x90, "\x00\x02\x00"); string(got) != want || err == nil {
		t.Errorf("the client has %q and %v, want %q and a failure", got, err, want)
	}
}

// TestLaneBounds has what is too large for the client never reach it, and be acknowledged.
func TestLaneBounds(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	var dropped []string
	l := newLane(t.Context(), ours, ours, time.Second, &Owner{
		Bound: func(topic []byte) int {
			if string(topic) == "free" {
				return math.MaxInt
			}
			return len(topic) * 1000
		},
		Dropped: func(topic string, size int) { dropped = append(dropped, fmt.Sprint(topic, " ", size)) },
	})
	message := func(qos byte, topic string, size int) string {
		id := ""
		if qos > 0 {
			id = "\x01" + string('0'+qos)
		}
		return packet(publishType|qos<<1, string(binary.BigEndian.AppendUint16(nil, uint16(len(topic))))+topic+id+strings.Repeat("x", size))
	}
	fits := message(0, "a", 1000) + message(1, "aa", 2000) + message(1, "free", 9000) + packet(0xd0, "")
	go func() {
		for _, p := range []string{message(0, "a", 1003), fits[:700], fits[700:], message(1, "b", 9000), message(2, "c", 100_000)} {
			theirs.Write([]byte(p))
		}
	}()
	got := make(chan string)
	go func() {
		all, _ := io.ReadAll(l)
		got <- string(all)
	}()
	answers := make([]byte, 8)
	if _, err := io.ReadFull(theirs, answers); err != nil {
		t.Fatal(err)
	}
	if a := string(answers); a != "\x40\x02\x011\x50\x02\x012" && a != "\x50\x02\x012\x40\x02\x011" {
		t.Errorf("acknowledged are %q", a)
	}
	theirs.Close()
	if all := <-got; all != fits {
		t.Errorf("the client has %d bytes, want %d", len(all), len(fits))
	}
	if want := []string{"a 1003", "b 9000", "c 100000"}; !slices.Equal(dropped, want) {
		t.Errorf("dropped are %q, want %q", dropped, want)
	}
}

// FuzzLane has the client see what is not for the owner as it came, however it is cut.
func FuzzLane(f *testing.F) {
	f.Add([]byte(publication("mine", "a") + packet(0xd0, "")))
	f.Add([]byte("\x30\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		l, took := laneOver(t, &wireConn{r: bytes.NewReader(stream)})
		got, _ := io.ReadAll(iotest.HalfReader(l))
		rest := string(stream)
		for _, msg := range *took {
			before, after, ok := strings.Cut(rest, publication("mine", msg))
			if !ok || !bytes.HasPrefix(got, []byte(before)) {
				return // the length was written in more bytes than it takes
			}
			rest, got = after, got[len(before):]
		}
		if !strings.HasPrefix(rest, string(got)) {
			t.Errorf("the client has %q of %q", got, rest)
		}
	})
}

// TestLaneAnswersPings has what comes count as a sign of the broker's life.
func TestLaneAnswersPings(t *testing.T) {
	l, _ := laneOver(t, &wireConn{r: strings.NewReader(publication("mine", "a") + publication("mine", "b") + packet(0x90, "cd"))})
	l.said = time.Time{}
	got, err := io.ReadAll(iotest.OneByteReader(l))
	if want := string(pingAnswer) + packet(0x90, "cd"); err != nil || string(got) != want {
		t.Errorf("the client reads %q and %v, want %q", got, err, want)
	}
}

func TestLaneWrites(t *testing.T) {
	s := &wireConn{}
	l, _ := laneOver(t, s)
	large := bytes.Repeat([]byte("x"), joinSize)
	l.Publish("topic", []byte("a"), nil, []byte("b"))
	l.Publish("topic", []byte("a"), large, []byte("b"))
	if n, err := l.Write([]byte("client")); n != 6 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if want := publication("topic", "ab") + publication("topic", "a"+string(large)+"b") + "client"; s.wrote.String() != want {
		t.Errorf("%d bytes, want %d", s.wrote.Len(), len(want))
	}
}

// TestLaneFails has nothing follow a packet that was cut short.
func TestLaneFails(t *testing.T) {
	s := &wireConn{err: io.ErrShortWrite}
	l, _ := laneOver(t, s)
	l.Publish("topic", []byte("a"))
	s.err = nil
	n := s.wrote.Len()
	l.Publish("topic", []byte("b"))
	if _, err := l.Write([]byte("client")); err == nil || s.wrote.Len() != n || !s.ended {
		t.Errorf("%v, %d bytes after the failure, the reader ended: %v", err, s.wrote.Len()-n, s.ended)
	}
}

// TestLaneStuck has a broker that takes nothing: writers go on, and so does the reader.
func TestLaneStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		l, _ := laneOver(t, ours)
		began := time.Now()
		l.Publish("topic", []byte("a"))
		if _, err := l.Write([]byte("client")); err == nil || time.Since(began) != time.Second {
			t.Errorf("%v after %v, want a failure after a second", err, time.Since(began))
		}
		if _, err := l.Read(make([]byte, 1)); err == nil {
			t.Error("the reader goes on")
		}
	})
}

// TestLaneWritesWhole has many write at once.
func TestLaneWritesWhole(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	l, _ := laneOver(t, ours)
	far, took := laneOver(t, theirs)
	var writers sync.WaitGroup
	payload := strings.Repeat("p", 3*joinSize)
	for range 4 {
		writers.Go(func() {
			for range 25 {
				l.Publish("mine", []byte(payload[:1]), []byte(payload[2:]), []byte(payload[:1]))
				l.Write([]byte(packet(0xc0, "")))
			}
		})
	}
	go func() {
		writers.Wait()
		ours.Close()
	}()
	got, err := io.ReadAll(far)
	if err != nil || string(got) != strings.Repeat(packet(0xc0, ""), 100) || len(*took) != 100 || slices.ContainsFunc(*took, func(s string) bool { return s != payload }) {
		t.Errorf("%d bytes of the client's, %d messages, %v", len(got), len(*took), err)
	}
}
