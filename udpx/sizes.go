package udpx

import (
	"cmp"

	"github.com/pixferry/pixferry/internal/udpsock"
	"github.com/pixferry/pixferry/internal/wire"
)

// ladder holds the datagrams to probe for: IPv6's least MTU, the usual tunnels, IPv6
// and IPv4 on Ethernet, jumbo frames, and what a loopback interface takes.
var ladder = []int{1252, 1392, 1452, 1472, 8952, udpsock.MaxDatagram}

const defaultDatagram = 1472

// sizes returns the datagrams that this endpoint probes for.
func (t *Transport) sizes() []int {
	largest := min(cmp.Or(t.MaxDatagram, defaultDatagram), udpsock.MaxDatagram)
	var sizes []int
	for _, size := range ladder {
		if size < largest {
			sizes = append(sizes, size)
		}
	}
	if largest > wire.InitialMessage {
		sizes = append(sizes, largest)
	}
	return sizes
}

// below returns the size to fall back to when a datagram of size bytes was refused.
func below(size int) int {
	next := size * 7 / 8
	for _, s := range append([]int{wire.InitialMessage}, ladder...) {
		if s < size {
			next = max(next, s)
		}
	}
	return max(next, wire.MinMessage)
}
