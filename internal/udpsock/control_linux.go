package udpsock

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// control is what the system tells about a packet that has come.
type control struct {
	segment int        // bytes of each of the datagrams that GRO has joined; 0: it has not
	local   netip.Addr // where it was sent to; not valid: unknown, or no address to answer from
	iface   uint32     // that it came through
}

// received reads control messages (cmsg(3), ip(7), ipv6(7), udp(7)):
//
//	UDP_GRO       int segment
//	IP_PKTINFO    int interface, in_addr local, in_addr destination
//	IPV6_PKTINFO  in6_addr destination, uint32 interface
func received(b []byte) (c control) {
	for len(b) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			break
		}
		switch b = rest; {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			c.segment = int(binary.NativeEndian.Uint32(data))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			c.cameTo(netip.AddrFrom4([4]byte(data[4:])), binary.NativeEndian.Uint32(data))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			c.cameTo(netip.AddrFrom16([16]byte(data)).Unmap(), binary.NativeEndian.Uint32(data[16:]))
		}
	}
	return c
}

func (c *control) cameTo(local netip.Addr, iface uint32) {
	if !local.IsMulticast() && !local.IsUnspecified() {
		c.local, c.iface = local, iface
	}
}

// source returns the control message that has an answer leave from where the packet was sent to.
func (c *control) source() []byte {
	if c.local.Is4() {
		info := make([]byte, unix.SizeofInet4Pktinfo)
		copy(info[4:], c.local.AsSlice())
		return appendControl(nil, unix.IPPROTO_IP, unix.IP_PKTINFO, info)
	}
	info := make([]byte, unix.SizeofInet6Pktinfo)
	copy(info, c.local.AsSlice())
	if c.local.IsLinkLocalUnicast() {
		binary.NativeEndian.PutUint32(info[16:], c.iface)
	}
	return appendControl(nil, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info)
}

// appendSegment appends the control message UDP_SEGMENT.
func appendSegment(b []byte, segment int) []byte {
	return appendControl(b, unix.IPPROTO_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, uint16(segment)))
}

// appendControl appends a control message.
//
//	struct cmsghdr { size_t len; int level; int type; } and data, padded
func appendControl(b []byte, level, kind uint32, data []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, unix.CmsgSpace(len(data)))...)
	msg := b[start:]
	if unix.SizeofCmsghdr == 16 {
		binary.NativeEndian.PutUint64(msg, uint64(unix.CmsgLen(len(data))))
	} else {
		binary.NativeEndian.PutUint32(msg, uint32(unix.CmsgLen(len(data))))
	}
	h := msg[unix.SizeofCmsghdr-8:]
	binary.NativeEndian.PutUint32(h, level)
	binary.NativeEndian.PutUint32(h[4:], kind)
	copy(msg[unix.CmsgLen(0):], data)
	return b
}
