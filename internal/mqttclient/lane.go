package mqttclient

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/pixferry/pixferry/internal/session"
)

const (
	publishType = 0x30 // at QoS 0; other messages are the client's
	retained    = 0x01
	qosBits     = 0x06
	publishBits = 0x0f // of the first byte, which go with publishType

	pubackType, pubrecType    = 0x40, 0x50
	subscribeType, subackType = 0x82, 0x90
	pingPause                 = time.Second

	readAhead = 4 << 10 // read at once; the large part of a message goes past it
	joinSize  = 4 << 10 // messages up to this size are put together for one write
)

// pingAnswer is a PINGRESP.
var pingAnswer = []byte{0xd0, 0}

// A Lane is a client's connection to its broker, on which messages of the owner pass the
// client by: it copies each three times, into fresh memory, and hands it on through five
// goroutines. Packets of all other kinds, and what is about other topics, are the
// client's. It has one reader, the client's, and any number of writers of whole packets.
type Lane struct {
	net.Conn
	to      io.Writer // the connection, or one below that writes from several places at once
	timeout time.Duration
	stop    func() bool
	owner   *Owner // nil: all is the client's

	r      *bufio.Reader
	rest   int       // bytes of the present packet, which is the client's
	answer []byte    // what is left of a pingAnswer for it
	said   time.Time // when it had the last one

	asking sync.Mutex
	asked  map[uint16]int // how many filters the client's subscriptions have that are not answered, by packet ID

	mu    sync.Mutex // one packet after the other
	head  []byte
	parts [4][]byte
	queue net.Buffers // what is left of parts; a field, as a local one would escape
	err   error       // of the write that has failed
}

// An Owner takes the messages of some topics, at QoS 0. Those that are retained are dropped.
type Owner struct {
	Mine func(topic []byte) bool // nil: none
	// Take must not block. It retains from if it needs msg longer.
	Take func(topic string, from *session.Buffer, msg []byte)
	Most int // bytes of a message; larger ones are dropped too

	// Bound is how large a message of the client's may be, in bytes; nil: as it comes. A larger one is dropped, and
	// acknowledged, before the client has it in memory several times. Dropped, unless nil, is told.
	Bound   func(topic []byte) int
	Dropped func(topic string, size int)
}

// newLane takes over a connection and raw, the one below, which it closes when ctx ends. A
// write that takes longer than timeout ends it.
func newLane(ctx context.Context, conn, raw net.Conn, timeout time.Duration, owner *Owner) *Lane {
	return &Lane{
		Conn: conn, to: conn, timeout: timeout, owner: owner, r: bufio.NewReaderSize(conn, readAhead),
		stop: context.AfterFunc(ctx, func() { raw.Close() }),
	}
}

func (l *Lane) Close() error {
	l.stop()
	return l.Conn.Close()
}

// Read gives the client what is its own.
func (l *Lane) Read(p []byte) (int, error) {
	for l.rest == 0 && len(l.answer) == 0 {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	if len(l.answer) > 0 {
		n := copy(p, l.answer)
		l.answer = l.answer[n:]
		return n, nil
	}
	n, err := l.r.Read(p[:min(len(p), l.rest)])
	l.rest -= n
	return n, err
}

// next takes the next packet if it is for the owner, and else leaves it to the client.
//
//	+------+--------+--------------+-------+---------+
//	| type | length | topic length | topic | payload |
//	+------+--------+--------------+-------+---------+
//	  1      1 to 4   2, big endian
func (l *Lane) next() error {
	head, length := 1, uint64(0)
	for done := false; !done; {
		if head++; head > 5 { // malformed, and the client would take it for another packet
			return errors.New("the broker sends a packet whose length has no end")
		}
		b, err := l.r.Peek(head)
		if err != nil {
			return err
		}
		length, _ = binary.Uvarint(b[1:])
		done = b[head-1] < 0x80
	}
	b, _ := l.r.Peek(head)
	if b[0]&0xf0 == subackType { // the client does not look at the other bits either
		b, err := l.r.Peek(head + min(2, int(length)))
		if err != nil {
			return err
		}
		if l.rest = head + int(length); length >= 2 {
			return l.answered(binary.BigEndian.Uint16(b[head:]), int(length)-2)
		}
		return nil
	}
	if l.owner == nil || b[0]&^publishBits != publishType || length < 2 {
		l.rest = head + int(length)
		return nil
	}
	b, err := l.r.Peek(head + 2)
	if err != nil {
		return err
	}
	topic := uint64(binary.BigEndian.Uint16(b[head:]))
	if topic+2 > length || head+2+int(topic) > readAhead {
		l.rest = head + int(length)
		return nil
	}
	if b, err = l.r.Peek(head + 2 + int(topic)); err != nil {
		return err
	}
	name, payload := b[head+2:], int(length-topic-2)
	mine := b[0]&^retained == publishType && l.owner.Mine != nil && l.owner.Mine(name)
	switch {
	case !mine && l.owner.Bound != nil && payload-2 > l.owner.Bound(name):
		return l.drop(string(name), len(b), payload, b[0]&qosBits)
	case !mine:
		l.rest = head + int(length)
		return nil
	}
	most := l.owner.Most
	if b[0]&retained != 0 {
		most = -1
	}
	return l.message(string(name), len(b), payload, most)
}

// drop takes a message of the client's that is too large, with so many bytes before the payload, and in it.
func (l *Lane) drop(topic string, head, payload int, qos byte) error {
	if _, err := l.r.Discard(head); err != nil {
		return err
	}
	var answer []byte
	if qos != 0 {
		id, err := l.r.Peek(2)
		if err != nil {
			return err
		}
		if answer = []byte{pubackType, 2, id[0], id[1]}; qos > 2 { // twice the QoS
			answer[0] = pubrecType
		}
	}
	if _, err := l.r.Discard(payload); err != nil {
		return err
	}
	if answer != nil {
		go l.Write(answer) // which may block, and the reader must not
		payload -= 2
	}
	if l.owner.Dropped != nil {
		l.owner.Dropped(topic, payload)
	}
	return nil
}

// message takes a message with so many bytes before the payload, and in it, unless those are over most.
func (l *Lane) message(topic string, head, payload, most int) error {
	if _, err := l.r.Discard(head); err != nil {
		return err
	}
	if payload > most {
		_, err := l.r.Discard(payload)
		return err
	}
	b := session.NewBuffer(payload)
	defer b.Release()
	msg := b.Bytes()[:payload]
	if _, err := io.ReadFull(l.r, msg); err != nil {
		return err
	}
	l.owner.Take(topic, b, msg)
	// The client would think the broker dead whose answer to a ping is behind our messages.
	if now := time.Now(); now.Sub(l.said) > pingPause {
		l.said, l.answer = now, pingAnswer
	}
	return nil
}

// asks notes how many answers the client expects to a packet.
func (l *Lane) asks(p []byte) {
	_, n := binary.Uvarint(p[1:])
	if n <= 0 || len(p) < 1+n+2 {
		return
	}
	id, filters := binary.BigEndian.Uint16(p[1+n:]), 0
	for p = p[1+n+2:]; len(p) > 2; filters++ {
		p = p[min(len(p), 2+int(binary.BigEndian.Uint16(p))+1):]
	}
	l.asking.Lock()
	defer l.asking.Unlock()
	if l.asked == nil {
		l.asked = make(map[uint16]int)
	}
	l.asked[id] = filters
}

// answered fails if the broker gives more answers than there were questions, of which the client dies.
func (l *Lane) answered(id uint16, codes int) error {
	l.asking.Lock()
	defer l.asking.Unlock()
	if asked, ok := l.asked[id]; ok && codes > asked {
		return fmt.Errorf("the broker answers %d of %d filters of a subscription", codes, asked)
	}
	delete(l.asked, id)
	return nil
}

// Write writes a packet of the client's.
func (l *Lane) Write(p []byte) (int, error) {
	if len(p) > 0 && p[0] == subscribeType {
		l.asks(p)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts[0] = p
	if err := l.write(1); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Publish writes a message in parts, at most three. Whether it arrives nobody says.
func (l *Lane) Publish(topic string, parts ...[]byte) {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	h := binary.AppendUvarint(append(l.head[:0], publishType), uint64(2+len(topic)+size))
	h = append(binary.BigEndian.AppendUint16(h, uint16(len(topic))), topic...)
	n := 1
	for _, p := range parts {
		if size <= joinSize {
			h = append(h, p...)
		} else if len(p) > 0 {
			l.parts[n] = p
			n++
		}
	}
	l.head, l.parts[0] = h, h
	_ = l.write(n)
}

// write writes the first n parts. The mutex is held. A packet that was cut short cannot
// be continued, so that a failure ends the connection: by its reader, as the client takes
// one that is closed for its own doing.
func (l *Lane) write(n int) error {
	if l.err == nil {
		l.Conn.SetWriteDeadline(time.Now().Add(l.timeout))
		l.queue = l.parts[:n]
		if _, l.err = l.queue.WriteTo(l.to); l.err != nil {
			l.Conn.SetReadDeadline(time.Now())
		}
	}
	clear(l.parts[:])
	return l.err
}

// SetWriteDeadline does nothing: the lane sees to it that no write takes too long.
func (l *Lane) SetWriteDeadline(time.Time) error { return nil }
