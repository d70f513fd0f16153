package udpx

import (
	"testing"

	"github.com/pixferry/pixferry/internal/session"
	"github.com/pixferry/pixferry/internal/udpsock"
)

// A reader at rest holds nothing: after a burst to thousands of sockets the memory of each is another one's.
func TestReaderAtRestHoldsNothing(t *testing.T) {
	r := &reader{memory: []*session.Buffer{session.NewBuffer(3000)}}
	r.grow(2)
	for i := range r.packets {
		r.packets[i] = udpsock.Packet{Data: r.memory[0].Bytes()[i*1500:][:1500]}
	}
	r.grow(1)
	r.letGo()
	for i, p := range r.packets[:2] {
		if p.Data != nil {
			t.Errorf("the memory of packet %d is held", i)
		}
	}
	if len(r.memory) != 0 || r.memory[:1][0] != nil {
		t.Error("a buffer is held")
	}
}
