package udpsock

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Control messages have the byte order and the layout of the processor. UDP_GRO is an int, of which two bytes will do
// on some only.
func TestControl(t *testing.T) {
	segment := appendControl(nil, unix.IPPROTO_UDP, unix.UDP_GRO, binary.NativeEndian.AppendUint32(nil, 1200))
	if c := received(segment); c != (control{segment: 1200}) {
		t.Errorf("a train: %+v", c)
	}
	other := appendControl(nil, unix.SOL_SOCKET, unix.SO_TIMESTAMP, make([]byte, 15)) // which is padded
	for _, want := range []control{
		{local: netip.MustParseAddr("127.0.0.2"), segment: 1200},
		{local: netip.MustParseAddr("2001:db8::1"), segment: 1200},
		{local: netip.MustParseAddr("fe80::1"), segment: 1200, iface: 7},
	} {
		if c := received(slices.Concat(other, want.source(), segment)); c != want {
			t.Errorf("%+v; want %+v", c, want)
		}
	}
}
