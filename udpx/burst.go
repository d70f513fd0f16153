package udpx

import (
	"sync"

	"github.com/pixferry/pixferry/internal/udpsock"
)

const (
	// arenaSize is how much is written at once: two trains.
	arenaSize = 2 << 16
	// burstPackets is how many packets are written at once, or a few more.
	burstPackets = 64
)

// burst is messages that are written together.
type burst struct {
	arena   []byte // of the messages, one behind the other
	used    int
	packets []udpsock.Packet
	owners  []*carrier // of packets
	ended   []*carrier // whose sessions have said their last
}

var bursts = sync.Pool{New: func() any { return &burst{arena: make([]byte, arenaSize)} }}

func newBurst() *burst { return bursts.Get().(*burst) }

// recycle leaves the memory to others.
func (b *burst) recycle() {
	clear(b.packets)
	clear(b.owners)
	clear(b.ended)
	b.used, b.packets, b.owners, b.ended = 0, b.packets[:0], b.owners[:0], b.ended[:0]
	bursts.Put(b)
}

func (b *burst) empty() bool { return len(b.packets) == 0 && len(b.ended) == 0 }

func (b *burst) full() bool { return len(b.packets) >= burstPackets }

// add adds a message to c's peer, which stands where the used memory ends. It lengthens the train
// before it, if it can.
func (b *burst) add(c *carrier, msg []byte) (lengthened bool) {
	b.used += len(msg)
	if last := len(b.packets) - 1; last >= 0 && b.owners[last] == c && joins(&b.packets[last], len(msg)) {
		p := &b.packets[last]
		p.Data = p.Data[:len(p.Data)+len(msg)]
		return true
	}
	b.packets = append(b.packets, udpsock.Packet{Data: msg, Segment: len(msg)})
	b.owners = append(b.owners, c)
	return false
}

// joins reports whether a message of n bytes may lengthen the train p. Only the last of a
// train may be shorter than the others.
func joins(p *udpsock.Packet, n int) bool {
	size := len(p.Data)
	return n <= p.Segment && size%p.Segment == 0 && size/p.Segment < udpsock.MaxTrain && size+n <= udpsock.MaxDatagram
}
