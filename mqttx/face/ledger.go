package face

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// maxEnds is how many connections the largest of the messages on their way may see the end of.
const maxEnds = 10

// outbound is how the client's keys of messages that it publishes begin.
const outbound = "o."

// A ledger is a client's store, which tells when the broker has a message at QoS 1. The client's own token does so
// already when it is about to send the message again, since its connection has ended. It would do that for ever with
// one at which the broker ends each connection, as many do if it is too large for them.
type ledger struct {
	mqtt.Store
	log *slog.Logger

	mu   sync.Mutex
	open map[string]*entry // by key
}

// An entry is a message that the broker has not acknowledged.
type entry struct {
	size int
	ends int        // of connections
	over chan error // has room
}

func newLedger(store mqtt.Store, log *slog.Logger) *ledger {
	return &ledger{log: log, Store: cmp.Or[mqtt.Store](store, mqtt.NewMemoryStore()), open: make(map[string]*entry)}
}

// Put implements mqtt.Store.
func (l *ledger) Put(key string, p packets.ControlPacket) {
	l.mu.Lock()
	l.enter(key, p)
	l.mu.Unlock()
	l.Store.Put(key, p)
}

// enter makes the entry of a message. The mutex is held.
func (l *ledger) enter(key string, p packets.ControlPacket) {
	if m, ok := p.(*packets.PublishPacket); ok && strings.HasPrefix(key, outbound) {
		l.open[key] = &entry{size: len(m.Payload), over: make(chan error, 1)}
	}
}

// Del implements mqtt.Store. Of a message it means that it is acknowledged.
func (l *ledger) Del(key string) {
	l.Store.Del(key)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(key, nil)
}

// end is the end of a message. The mutex is held.
func (l *ledger) end(key string, err error) {
	if e := l.open[key]; e != nil {
		delete(l.open, key)
		e.over <- err
	}
}

// Reset implements mqtt.Store. The client forgets by it what an earlier program has left: after it has called itself
// connected, so that some of its own messages may be there already.
func (l *ledger) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range l.Store.All() {
		if l.open[key] == nil {
			l.Store.Del(key)
		}
	}
}

// All implements mqtt.Store. The client asks at each connection what it is to send again. If one of these messages is
// why so many have ended, it is the largest.
func (l *ledger) All() []string {
	keys, givenUp := l.look(l.Store.All())
	if givenUp != nil { // it may be an earlier program's, which nobody waits for
		l.log.Warn("a record is given up", "err", givenUp)
	}
	return keys
}

// look returns the keys without that of a message that is given up, and why that is.
func (l *ledger) look(keys []string) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	largest, size := "", -1
	for _, key := range keys {
		if l.open[key] == nil { // of an earlier program
			l.enter(key, l.Store.Get(key))
		}
		if e := l.open[key]; e != nil && e.size > size {
			largest, size = key, e.size
		}
	}
	e := l.open[largest]
	if e == nil {
		return keys, nil
	}
	if e.ends++; e.ends < maxEnds {
		return keys, nil
	}
	err := fmt.Errorf("%d connections have ended with this message of %d bytes on its way, the largest: the broker may not take it; see its limits, and set MaxPayload", e.ends, size)
	l.Store.Del(largest)
	l.end(largest, err)
	return slices.DeleteFunc(keys, func(key string) bool { return key == largest }), err
}

// wait returns when the broker has a message at QoS 1, or one at QoS 0 is written.
func (l *ledger) wait(ctx context.Context, token *mqtt.PublishToken) error {
	l.mu.Lock()
	e := l.open[outbound+strconv.Itoa(int(token.MessageID()))]
	l.mu.Unlock()
	if e == nil { // or it has that already
		select {
		case <-token.Done():
			return token.Error()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case err := <-e.over:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
